import { describe, expect, it } from 'vitest';
import { AUDIT_ARCH, syscalls } from '#kernel/linux/syscalls.ts';
import { INSTRUCTION_BYTES, runFilter } from '#kernel/seccomp/bpf.ts';
import { SeccompCache } from '#kernel/seccomp/cache.ts';
import { compileSeccomp } from '#kernel/seccomp/compile.ts';
import { dockerDefaultProfile, kernelAtLeast, resolveProfile } from '#kernel/seccomp/docker.ts';
import type { SeccompArg, SeccompProfile } from '#kernel/seccomp/profile.ts';
import { RET_ALLOW, RET_ERRNO, RET_KILL_THREAD, RET_USER_NOTIF } from '#kernel/seccomp/profile.ts';

const MACHINE = { nodeArch: 'x64', kernelRelease: '6.1.0-18-amd64' };
const DOCKER_CAPS = ['CAP_CHOWN', 'CAP_SETUID', 'CAP_SYS_CHROOT', 'CAP_MKNOD'];
const nr = (name: string): number => syscalls('x86_64').get(name) ?? -1;
const answer = (filter: Uint8Array, name: string, args: bigint[] = []): number =>
  runFilter(filter, { arch: AUDIT_ARCH.x86_64, nr: nr(name), args });
const compile = (profile: SeccompProfile): Uint8Array => compileSeccomp(profile, { native: 'x86_64' }).filter;

describe('Docker’s default profile', () => {
  const docker = compile(resolveProfile(dockerDefaultProfile(), DOCKER_CAPS, MACHINE));

  it('denies what the capabilities of a container do not cover', () => {
    expect(answer(docker, 'read')).toBe(RET_ALLOW);
    expect(answer(docker, 'chroot')).toBe(RET_ALLOW);
    expect(answer(docker, 'mount')).toBe(RET_ERRNO | 1);
    expect(answer(docker, 'keyctl')).toBe(RET_ERRNO | 1);
    expect(answer(docker, 'unshare', [0x1000_0000n])).toBe(RET_ERRNO | 1);
    expect(answer(docker, 'clone', [0x11n])).toBe(RET_ALLOW);
    expect(answer(docker, 'clone', [0x1000_0000n])).toBe(RET_ERRNO | 1);
    expect(answer(docker, 'clone3')).toBe(RET_ERRNO | 38);
    expect(answer(docker, 'socket', [2n])).toBe(RET_ALLOW);
    expect(answer(docker, 'socket', [40n])).toBe(RET_ERRNO | 1);
  });

  it('opens with CAP_SYS_ADMIN', () => {
    const admin = compile(resolveProfile(dockerDefaultProfile(), ['CAP_SYS_ADMIN'], MACHINE));
    for (const name of ['mount', 'unshare', 'clone3', 'setns']) expect(answer(admin, name)).toBe(RET_ALLOW);
    expect(answer(admin, 'clone', [0x1000_0000n])).toBe(RET_ALLOW);
  });

  it('answers ENOSYS to calls younger than itself, so that libraries fall back', () => {
    const young = { arch: AUDIT_ARCH.x86_64, nr: 5000 };
    expect(runFilter(docker, young)).toBe(RET_ERRNO | 38);
    expect(runFilter(docker, { arch: AUDIT_ARCH.i386, nr: 5000 })).toBe(RET_ERRNO | 38);
  });

  it('is small: a call costs a binary search, not a walk', () => {
    expect(docker.length / INSTRUCTION_BYTES).toBeLessThan(600);
  });

  it('depends on the kernel and the architecture where its rules say so', () => {
    const names = (nodeArch: string, kernelRelease: string): Set<string> =>
      new Set(
        resolveProfile(dockerDefaultProfile(), [], { nodeArch, kernelRelease }).syscalls?.flatMap((r) => r.names),
      );
    expect(names('x64', '4.7.9').has('ptrace')).toBe(false);
    expect(names('x64', '4.8.0').has('ptrace')).toBe(true);
    expect(names('arm64', '6.1').has('cacheflush')).toBe(true);
    expect(names('x64', '6.1').has('cacheflush')).toBe(false);
    expect(resolveProfile(dockerDefaultProfile(), [], MACHINE).architectures).toEqual([
      'SCMP_ARCH_X86_64',
      'SCMP_ARCH_X86',
      'SCMP_ARCH_X32',
    ]);
    expect(kernelAtLeast('6.10.0', '6.9')).toBe(true);
    expect(kernelAtLeast('5.4.0-custom', '5.10')).toBe(false);
  });
});

describe('compiling', () => {
  it('kills what comes under an architecture the profile leaves out', () => {
    const filter = compile({ defaultAction: 'SCMP_ACT_ALLOW' });
    expect(runFilter(filter, { arch: AUDIT_ARCH.i386, nr: 1 })).toBe(RET_KILL_THREAD);
    expect(runFilter(filter, { arch: AUDIT_ARCH.x86_64, nr: 0x4000_0001 })).toBe(RET_KILL_THREAD);
    expect(answer(filter, 'read')).toBe(RET_ALLOW);
  });

  it('looks at the lower halves of what a 32-bit call passes: the upper ones are the caller’s choice', () => {
    // A 64-bit program can enter by int 0x80 with 2^32+40 as address family; the kernel makes a socket of family 40.
    const args: SeccompArg[] = [{ index: 0, value: 40, op: 'SCMP_CMP_NE' }];
    const filter = compile({
      defaultAction: 'SCMP_ACT_ERRNO',
      architectures: ['SCMP_ARCH_X86'],
      syscalls: [{ names: ['socket'], action: 'SCMP_ACT_ALLOW', args }],
    });
    const socket = (family: bigint): number =>
      runFilter(filter, { arch: AUDIT_ARCH.i386, nr: syscalls('i386').get('socket') ?? -1, args: [family] });
    expect(socket(2n)).toBe(RET_ALLOW);
    expect(socket(2n ** 32n + 40n)).toBe(RET_ERRNO | 1);
  });

  it('reaches far jumps: hundreds of conditional rules still answer right', () => {
    const names = [...syscalls('x86_64').keys()].slice(0, 250);
    const args = [3, 7, 11].map((value, index): SeccompArg => ({ index, value, op: 'SCMP_CMP_EQ' }));
    const filter = compile({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: names.map((name) => ({ names: [name], action: 'SCMP_ACT_ALLOW', args })),
    });
    for (const name of names) {
      expect(answer(filter, name, [3n, 7n, 11n])).toBe(RET_ALLOW);
      expect(answer(filter, name, [3n, 7n, 12n])).toBe(RET_ERRNO | 1);
    }
  });

  it('refuses a program longer than the kernel takes', () => {
    const names = [...syscalls('x86_64').keys()];
    const args = [0, 1, 2, 3, 4, 5].map((index): SeccompArg => ({ index, value: 2n ** 40n + 1n, op: 'SCMP_CMP_EQ' }));
    const profile = {
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: names.map((name) => ({ names: [name], action: 'SCMP_ACT_ALLOW', args })),
    };
    expect(() => compile(profile)).toThrow('more than 4096 instructions');
  });

  it('asks for a listener exactly when a rule notifies', () => {
    const profile = {
      defaultAction: 'SCMP_ACT_ALLOW',
      listenerPath: '/run/agent.sock',
      syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }],
    };
    const program = compileSeccomp(profile, { native: 'x86_64' });
    expect(program).toMatchObject({ notify: true, flags: 4 | 8 });
    expect(answer(program.filter, 'mkdir')).toBe(RET_USER_NOTIF);
    expect(compileSeccomp({ ...profile, syscalls: [], flags: [] }, { native: 'x86_64' })).toMatchObject({
      notify: false,
      flags: 0,
    });
  });

  it('compiles a profile once', () => {
    const cache = new SeccompCache({ native: 'x86_64' });
    const profile = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath: '/run/agent', listenerMetadata: 'a' };
    expect(cache.compile(profile)).toBe(cache.compile({ ...profile, listenerMetadata: 'b' }));
    expect(cache.compile({ defaultAction: 'SCMP_ACT_LOG' })).not.toBe(cache.compile(profile));
  });
});

describe('bad profiles name their path, value and rule', () => {
  const rule = { names: ['read'], action: 'SCMP_ACT_ERRNO' };
  const arg = { index: 0, value: 1, op: 'SCMP_CMP_EQ' };
  const with1 = (syscall: object): SeccompProfile => ({
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [{ ...rule, ...syscall }],
  });
  const cases: [SeccompProfile, string][] = [
    [{ defaultAction: 'ALLOW' }, '$.linux.seccomp.defaultAction: "ALLOW" is none of'],
    [{ defaultAction: 'constructor' }, '$.linux.seccomp.defaultAction: "constructor" is none of'],
    [{ defaultAction: 'SCMP_ACT_NOTIFY' }, 'cannot be the default'],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', defaultErrnoRet: 1 },
      '$.linux.seccomp.defaultErrnoRet: 1 goes with SCMP_ACT_ERRNO',
    ],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['x86'] },
      '.architectures[0]: "x86" is not a known architecture',
    ],
    [{ defaultAction: 'SCMP_ACT_ALLOW', flags: ['LOG'] }, '.flags[0]: "LOG" is none of'],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', listenerMetadata: 'x' },
      '.listenerMetadata: "x" must not be set without listenerPath',
    ],
    [
      with1({ names: ['raed'] }),
      '$.linux.seccomp.syscalls[0].names[0]: "raed" is not a system call of any architecture',
    ],
    [with1({ names: [] }), '.names: must name at least one call'],
    [with1({ errnoRet: 5000 }), '.syscalls[0].errnoRet: 5000 is not an integer from 0 to 4095'],
    [with1({ action: 'SCMP_ACT_NOTIFY' }), '.listenerPath: must be set'],
    [with1({ action: 'SCMP_ACT_NOTIFY', names: ['write'] }), 'SCMP_ACT_NOTIFY cannot be used for the write syscall'],
    [with1({ args: [{ ...arg, index: 6 }] }), '.args[0].index: 6 is not an argument number'],
    [with1({ args: [{ ...arg, op: 'EQ' }] }), '.args[0].op: "EQ" is not a known comparison'],
    [with1({ args: [{ ...arg, value: -1 }] }), '.args[0].value: -1 is not an unsigned 64-bit integer'],
    [with1({ args: [{ ...arg, value: 2 ** 60 }] }), 'is not an integer that is held exactly'],
  ];
  it.each(cases)('%j', (profile, message) => {
    expect(() => compile(profile)).toThrow(message);
  });
});
