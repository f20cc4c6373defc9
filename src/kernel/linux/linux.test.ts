import { describe, expect, it } from 'vitest';
import {
  knownMountOptions,
  MOUNT_ATTR__ATIME,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_RDONLY,
  MS_NOATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_RELATIME,
  MS_SLAVE,
  parseMountOptions,
} from '#kernel/linux/mount-options.ts';
import {
  CAPABILITIES,
  capabilityMask,
  capabilityNames,
  errnoName,
  rlimitNumber,
  signalName,
  signalNumber,
} from '#kernel/linux/names.ts';
import { NAMESPACES, namespaceFlags } from '#kernel/linux/namespaces.ts';
import { syscallName, syscalls } from '#kernel/linux/syscalls.ts';

describe('the tables of names', () => {
  it('know capabilities with and without prefix, and refuse others', () => {
    expect(CAPABILITIES()).toHaveLength(41);
    expect(capabilityMask(['CAP_CHOWN', 'sys_admin'])).toBe((1n << 21n) | 1n);
    expect(capabilityNames(capabilityMask(['CAP_KILL', 'CAP_BPF']))).toEqual(['CAP_KILL', 'CAP_BPF']);
    expect(capabilityNames(1n << 63n)).toEqual(['CAP_63']);
    expect(() => capabilityMask(['CAP_FLY'])).toThrow('"CAP_FLY" is not a capability');
  });

  it('read signals as kill(1) does', () => {
    expect(['TERM', 'sigterm', '15', 'RTMIN', 'SIGRTMIN+3', 'RTMAX-1', '0'].map(signalNumber)).toEqual([
      15, 15, 15, 34, 37, 63, 0,
    ]);
    expect([6, 9, 34, 37].map(signalName)).toEqual(['SIGABRT', 'SIGKILL', 'SIGRTMIN', 'SIGRTMIN+3']);
    for (const bad of ['SIGFOO', '65', '', 'RTMIN-1', 'RTMAX+1']) expect(() => signalNumber(bad)).toThrow('signal');
  });

  it('name errors and limits', () => {
    expect([errnoName(2), errnoName(11), errnoName(9999)]).toEqual(['ENOENT', 'EAGAIN', 'errno 9999']);
    expect([rlimitNumber('RLIMIT_NOFILE'), rlimitNumber('rttime')]).toEqual([7, 15]);
    expect(() => rlimitNumber('RLIMIT_TOENAILS')).toThrow('not a resource limit');
  });

  it('hold the eight namespaces', () => {
    expect(NAMESPACES).toHaveLength(8);
    expect(namespaceFlags(['mount', 'pid', 'network'])).toBe(0x6002_0000);
  });
});

describe('syscall tables', () => {
  it('know each architecture by its own numbers', () => {
    const openat = (['x86_64', 'x32', 'i386', 'aarch64', 'arm', 'riscv64'] as const).map((a) =>
      syscalls(a).get('openat'),
    );
    expect(openat).toEqual([257, 257, 295, 56, 322, 56]);
    expect(syscalls('x32').get('execve')).toBe(520);
    expect(syscalls('x32').has('uselib')).toBe(false);
    expect(syscalls('arm').get('cacheflush')).toBe(0xf0002);
    expect(syscallName('x86_64', 59)).toBe('execve');
  });
});

describe('mount options', () => {
  it('become flags, attributes and data', () => {
    const parsed = parseMountOptions(['nosuid', 'noexec', 'ro', 'size=64k', 'mode=755']);
    expect(parsed.flags).toBe(MS_NOSUID | MS_NOEXEC | MS_RDONLY);
    expect(parsed.data).toBe('size=64k,mode=755');
  });

  it('let the later word win', () => {
    const parsed = parseMountOptions(['ro', 'noexec', 'rw', 'relatime', 'noatime']);
    expect(parsed.flags).toBe(MS_NOEXEC | MS_NOATIME);
    expect(parsed.cleared).toBe(MS_RDONLY | MS_RELATIME | 0x100_0000n);
    expect(parsed.attrSet).toBe(MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME);
    expect(parsed.attrClear).toBe(MOUNT_ATTR_RDONLY | MOUNT_ATTR__ATIME);
  });

  it('keep recursive words, propagation and our own words apart', () => {
    const parsed = parseMountOptions(['rbind', 'rro', 'rslave', 'ridmap', 'tmpcopyup']);
    expect(parsed).toMatchObject({
      flags: 0n,
      bind: 'rbind',
      recursiveSet: MOUNT_ATTR_RDONLY,
      propagation: [MS_SLAVE | MS_REC],
      idmap: 'ridmap',
      tmpcopyup: true,
      data: '',
    });
  });

  it('treat prototype names and unknown words as data, and refuse NUL', () => {
    expect(parseMountOptions(['constructor', 'rsync', 'rdefaults']).data).toBe('constructor,rsync,rdefaults');
    expect(() => parseMountOptions(['a\0b'])).toThrow('NUL');
  });

  it('list every word of the specification', () => {
    const spec =
      `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime
      noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime
      relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate
      rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid
      symfollow sync tmpcopyup unbindable idmap ridmap`.split(/\s+/);
    const known = new Set(knownMountOptions());
    expect(spec.filter((word) => !known.has(word))).toEqual([]);
  });
});
