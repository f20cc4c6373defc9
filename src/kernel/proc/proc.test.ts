import { describe, expect, it } from 'vitest';
import { hostFiles, treeFiles } from '#kernel/files.ts';
import { mountOf, parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { isAlive, parseLimits, parseStat, parseStatus, readNamespaces, readStat } from '#kernel/proc/process.ts';

describe('/proc', () => {
  const STAT = `42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2 184467`;

  it('tells a process by its start time, whatever it calls itself', () => {
    expect(parseStat(STAT)).toEqual({ pid: 42, comm: 'a) b (c)', state: 'S', parentPid: 1, startTicks: 98765n });
    expect(parseStat(undefined)).toBeUndefined();
    expect(parseStat('garbage')).toBeUndefined();
  });

  it('knows ended and reused processes from the one that was meant', () => {
    const files = treeFiles({ '/proc/42/stat': STAT, '/proc/43/stat': STAT.replace(' S ', ' Z ') });
    expect([
      isAlive(42, 98765n, files),
      isAlive(42, 1n, files),
      isAlive(43, 98765n, files),
      isAlive(9, 1n, files),
    ]).toEqual([true, false, false, false]);
  });

  it('reads our own process', () => {
    expect(readStat(process.pid, hostFiles)?.parentPid).toBe(process.ppid);
    const status = parseStatus(hostFiles.read('/proc/self/status') ?? '');
    expect(status.uids[0]).toBe(process.getuid?.());
    expect(status.nsPids[0]).toBe(process.pid);
    expect(status.threads).toBeGreaterThan(1);
    expect(readNamespaces('self', hostFiles).mount).toMatch(/^mnt:\[\d+\]$/);
    expect(parseLimits(hostFiles.read('/proc/self/limits') ?? '')['Max open files']?.soft).toBeGreaterThan(0);
  });

  it('reads capability sets, seccomp and no_new_privs of a status', () => {
    const status = parseStatus(
      'Name:\tsh\nUid:\t0\t0\t0\t0\nNSpid:\t77\t1\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n' +
        'CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n',
    );
    expect(status.capabilities.effective).toBe(0xa80425fbn);
    expect(status).toMatchObject({ nsPids: [77, 1], noNewPrivs: true, seccomp: 2, seccompFilters: 1 });
  });

  it('reads mounts with spaces and optional fields, and finds the one that covers a path', () => {
    const mounts = parseMountInfo(
      '23 1 8:1 / / rw - ext4 /dev/sda1 rw\n' +
        '40 23 0:30 /a\\040b /mnt/x\\040y rw,nosuid shared:5 master:2 - tmpfs none rw,size=64k\n' +
        'malformed\n',
    );
    expect(mounts).toHaveLength(2);
    expect(mounts[1]).toMatchObject({ root: '/a b', mountPoint: '/mnt/x y', propagation: ['shared:5', 'master:2'] });
    expect(mountOf(mounts, '/mnt/x y/z')?.id).toBe(40);
    expect(mountOf(mounts, '/mnt/x yz')?.id).toBe(23);
  });
});
