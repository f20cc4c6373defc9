import { describe, expect, it } from 'vitest';
import { hostUse, parseInterfaces } from '#engine/core/stats.ts';
import { parsePs } from '#engine/core/top.ts';
import { treeFiles } from '#kernel/files.ts';

describe('statistics', () => {
  it('of interfaces are the columns of /proc/net/dev, without the loopback', () => {
    const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:1076 10 1 2 0 0 0 0 42 3 4 5 0 0 0 0
`;
    expect(parseInterfaces(text)).toEqual({
      eth0: {
        rxBytes: 1076,
        rxPackets: 10,
        rxErrors: 1,
        rxDropped: 2,
        txBytes: 42,
        txPackets: 3,
        txErrors: 4,
        txDropped: 5,
      },
    });
  });

  it('of the host count each CPU once, and guest time not twice', () => {
    const files = treeFiles({
      '/proc/stat': 'cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 0 1 2 3 4 5 6 7 8 9\nintr 5\n',
      '/proc/meminfo': 'MemTotal:       2048 kB\nMemAvailable:    512 kB\n',
    });
    expect(hostUse(files)).toEqual({
      cpuNs: 36 * 10_000_000,
      idleNs: 9 * 10_000_000,
      cpus: 2,
      memoryBytes: 2 << 20,
      availableBytes: 512 << 10,
    });
  });
});

describe('top', () => {
  const PS = 'UID        PID  PPID CMD\nroot         1     0 /sbin/init splash\nroot        42     1 sh -c "a  b"\n\n';

  it('has the lines of the container’s processes, the command as one column', () => {
    expect(parsePs(PS, new Set([42]))).toEqual({
      titles: ['UID', 'PID', 'PPID', 'CMD'],
      processes: [['root', '42', '1', 'sh -c "a b"']],
    });
  });

  it('cannot tell whose a line is without a pid', () => {
    expect(() => parsePs('CMD\nsh\n', new Set([42]))).toThrow("Couldn't find PID field in ps output");
  });
});
