import { describe, expect, it } from 'vitest';
import { treeFiles } from '#kernel/files.ts';
import { readListeners } from '#kernel/proc/sockets.ts';

const HEAD = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';

describe('listeners of a network namespace', () => {
  it('are sockets that take what comes, on addresses of both families', () => {
    const files = treeFiles({
      '/proc/7/net/tcp': `${HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1\n   1: 0200D30A:0050 0100D30A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n`,
      '/proc/7/net/tcp6': `${HEAD}   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1\n`,
      '/proc/7/net/udp': `${HEAD}  10: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4 2\n`,
    });
    expect(readListeners(7, files)).toEqual([
      { protocol: 'tcp', address: '127.0.0.1', port: 8080, uid: 1000 },
      { protocol: 'tcp', address: '::1', port: 80, uid: 0 },
      { protocol: 'udp', address: '0.0.0.0', port: 53, uid: 0 },
    ]);
  });
});
