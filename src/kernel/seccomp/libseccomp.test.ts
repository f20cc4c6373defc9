import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Arch } from '#kernel/linux/syscalls.ts';
import { AUDIT_ARCH, syscalls, X32_BIT } from '#kernel/linux/syscalls.ts';
import type { SeccompData } from '#kernel/seccomp/bpf.ts';
import { runFilter } from '#kernel/seccomp/bpf.ts';
import { compileSeccomp } from '#kernel/seccomp/compile.ts';
import { dockerDefaultProfile, resolveProfile } from '#kernel/seccomp/docker.ts';
import type { Operator, SeccompProfile } from '#kernel/seccomp/profile.ts';
import { OPERATORS } from '#kernel/seccomp/profile.ts';
import type { Condition } from '#kernel/seccomp/rules.ts';
import { readProfile } from '#kernel/seccomp/rules.ts';

// Our compiler beside libseccomp: both make a program of the same profile, one interpreter runs both over the same calls.
const NATIVE: Arch = 'x86_64';
const LIBSECCOMP_ARCH: Partial<Record<string, number>> = {
  SCMP_ARCH_X86_64: 0xc000_003e,
  SCMP_ARCH_X86: 0x4000_0003,
  SCMP_ARCH_X32: 0x4000_003e,
};
const LIBSECCOMP_OP = ['', 'NE', 'LT', 'LE', 'EQ', 'GE', 'GT', 'MASKED_EQ'];

let folder = '';
let oracle = '';
let kernel = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'estiba-oracle-'));
  oracle = compileC('libseccomp', '-lseccomp');
  kernel = compileC('calls');
});

function compileC(name: string, ...libraries: string[]): string {
  const program = join(folder, name);
  const source = new URL(`../../../test/oracle/${name}.c`, import.meta.url).pathname;
  const cc = spawnSync('gcc', ['-O1', '-Wall', '-Werror', '-o', program, source, ...libraries], { encoding: 'utf8' });
  if (cc.status !== 0) throw new Error(`libseccomp-dev and gcc are needed: ${cc.stderr}`);
  return program;
}

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** libseccomp's program, or undefined where it refuses rules that contradict each other (EEXIST). */
function libseccomp(profile: SeccompProfile): Uint8Array | undefined {
  const rules = readProfile(profile);
  const lines = [
    `default ${rules.defaultReturn}`,
    ...rules.architectures.flatMap((name) => (LIBSECCOMP_ARCH[name] ? [`arch ${LIBSECCOMP_ARCH[name]}`] : [])),
    ...rules.rules.flatMap(({ names, ret, conditions }) => {
      if (ret === rules.defaultReturn) return [];
      const args = conditions.map((c) => {
        const [a, b] = c.op === 'SCMP_CMP_MASKED_EQ' ? [c.mask, c.value] : [c.value, 0n];
        return `${c.index} ${LIBSECCOMP_OP.indexOf(c.op.slice(9))} ${a} ${b}`;
      });
      return names.map((name) => `rule ${ret} ${name} ${[conditions.length, ...args].join(' ')}`);
    }),
  ];
  const run = spawnSync(oracle, { input: lines.join('\n') });
  if (run.status !== 0 && run.stderr.includes('File exists')) return undefined;
  if (run.status !== 0) throw new Error(`libseccomp: ${run.stderr}\n${lines.join('\n')}`);
  return run.stdout;
}

/** Same returns for the same calls; a difference is shown with the call that shows it. */
function compare(profile: SeccompProfile, calls: Iterable<SeccompData>): void {
  const ours = compileSeccomp(profile, { native: NATIVE, newCalls: 'default' }).filter;
  const theirs = libseccomp(profile);
  if (!theirs) return;
  const differences: unknown[] = [];
  for (const call of calls) {
    const [we, they] = [runFilter(ours, call), runFilter(theirs, call)];
    if (we !== they) differences.push({ ...call, we: we.toString(16), they: they.toString(16) });
  }
  expect(differences.slice(0, 5)).toEqual([]);
}

const ARGUMENTS: readonly (readonly bigint[])[] = [
  [0n, 0n, 0n, 0n, 0n, 0n],
  [16n, 3n, 9n, 1n, 2n, 3n],
  [40n, 1n, 0n, 1n, 2n, 3n],
  [0x20000n, 0x7e02_0000n, 1n, 0n, 0n, 0n],
  [0xffff_ffffn, 0x7e02_0000n, 1n, 0n, 0n, 0n],
  [0x7e02_0011n, 0n, 1n, 0n, 0n, 0n],
];

function* everyCall(): Generator<SeccompData> {
  for (const arch of ['x86_64', 'i386', 'x32', 'aarch64'] as const) {
    const bit = arch === 'x32' ? X32_BIT : 0;
    for (let nr = 0; nr < 600; nr++) for (const args of ARGUMENTS) yield { arch: AUDIT_ARCH[arch], nr: nr + bit, args };
    yield { arch: AUDIT_ARCH[arch], nr: 0x7fff_ffff };
  }
}

/** The profile's answer to a call, straight from its definition. */
function meaning(profile: SeccompProfile, call: SeccompData): number {
  const { rules, defaultReturn } = readProfile(profile);
  const mine = rules.filter((rule) => rule.names.some((name) => syscalls(NATIVE).get(name) === call.nr));
  const holds = (c: Condition): boolean => {
    const value = call.args?.[c.index] ?? 0n;
    const table: Record<Operator, boolean> = {
      SCMP_CMP_NE: value !== c.value,
      SCMP_CMP_LT: value < c.value,
      SCMP_CMP_LE: value <= c.value,
      SCMP_CMP_EQ: value === c.value,
      SCMP_CMP_GE: value >= c.value,
      SCMP_CMP_GT: value > c.value,
      SCMP_CMP_MASKED_EQ: (value & c.mask) === c.value,
    };
    return table[c.op];
  };
  const stands = mine.find((rule) => rule.conditions.length === 0) ?? mine.find((rule) => rule.conditions.every(holds));
  return stands?.ret ?? defaultReturn;
}

describe('our programs and libseccomp’s', () => {
  it('agree on a profile with every kind of rule, on three architectures', () => {
    compare(
      {
        defaultAction: 'SCMP_ACT_ERRNO',
        defaultErrnoRet: 1,
        architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
        syscalls: [
          { names: ['read', 'write', 'open', 'close', 'fstat', 'mmap', 'execve', 'ioctl'], action: 'SCMP_ACT_ALLOW' },
          {
            names: ['personality'],
            action: 'SCMP_ACT_ALLOW',
            args: [{ index: 0, value: 0xffffffff, op: 'SCMP_CMP_EQ' }],
          },
          {
            names: ['clone'],
            action: 'SCMP_ACT_ALLOW',
            args: [{ index: 0, value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
          },
          { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 },
          { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 38, op: 'SCMP_CMP_LT' }] },
          { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 40, op: 'SCMP_CMP_GT' }] },
          { names: ['connect', 'accept', 'semop', 'msgget'], action: 'SCMP_ACT_ALLOW' },
          { names: ['mount'], action: 'SCMP_ACT_KILL_PROCESS' },
          { names: ['ptrace'], action: 'SCMP_ACT_TRACE', errnoRet: 7 },
          { names: ['umount2'], action: 'SCMP_ACT_TRAP' },
          { names: ['chmod'], action: 'SCMP_ACT_LOG' },
          { names: ['s390_runtime_instr', 'cacheflush'], action: 'SCMP_ACT_ALLOW' },
        ],
      },
      everyCall(),
    );
  });

  it('agree when only the native architecture is wanted: all others are killed', () => {
    compare(
      { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['chmod'], action: 'SCMP_ACT_ERRNO' }] },
      everyCall(),
    );
  });

  it('agree on Docker’s default profile, over all calls that libseccomp 2.5 has heard of', () => {
    const NEWEST = 449;
    const profile = resolveProfile(dockerDefaultProfile(), ['CAP_SYS_CHROOT'], {
      nodeArch: 'x64',
      kernelRelease: '6.1.0',
    });
    const numberOf = (name: string): number => syscalls('x86_64').get(name) ?? syscalls('i386').get(name) ?? 0;
    const old = (profile.syscalls ?? []).map((r) => ({
      ...r,
      names: r.names.filter((n) => numberOf(n) <= NEWEST && n !== 'uretprobe'),
    }));
    compare({ ...profile, syscalls: old.filter((rule) => rule.names.length > 0) }, everyCall());
  });

  const names = ['read', 'socket', 'clone', 'ioctl', 'openat', 'mount', 'semget', 'execve', 'kill', 'prctl'];
  // Around 2^32 and at the ends, where 64-bit comparisons out of 32-bit words go wrong.
  const word = fc.oneof(
    fc.constantFrom(0n, 1n, 2n, 0x7fff_ffffn, 0xffff_ffffn, 0x1_0000_0000n, 0x1_0000_0001n, 0xffff_ffff_ffff_ffffn),
    fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  );
  const arg = fc.record({ value: word, valueTwo: word, op: fc.constantFrom(...OPERATORS) });
  const args = fc
    .tuple(fc.uniqueArray(fc.nat(5), { maxLength: 3 }), fc.array(arg, { minLength: 3, maxLength: 3 }))
    .map(([indexes, list]) =>
      indexes.map((index, i) => {
        const { op, value, valueTwo } = list[i] as { op: (typeof OPERATORS)[number]; value: bigint; valueTwo: bigint };
        return op === 'SCMP_CMP_MASKED_EQ' ? { index, op, value, valueTwo: valueTwo & value } : { index, op, value };
      }),
    );

  const callsOf = (
    profile: SeccompProfile,
    values: readonly bigint[][],
    archs: readonly Arch[] = ['x86_64'],
  ): SeccompData[] => {
    // Each constant of the rules is an argument too, and its neighbours.
    const args = (profile.syscalls ?? []).flatMap((rule) => rule.args ?? []);
    const edges = args.flatMap((a) => [
      BigInt(a.value) - 1n,
      BigInt(a.value),
      BigInt(a.value) + 1n,
      BigInt(a.valueTwo ?? 0),
    ]);
    const all = [...values, ...edges.map((edge) => Array<bigint>(6).fill(BigInt.asUintN(64, edge)))];
    return names.flatMap((name) =>
      archs.flatMap((arch) => {
        const nr = (syscalls(arch).get(name) ?? 0) + (arch === 'x32' ? X32_BIT : 0);
        return all.map((a) => ({ arch: AUDIT_ARCH[arch], nr, args: a }));
      }),
    );
  };
  const values = fc.array(fc.array(word, { minLength: 6, maxLength: 6 }), { minLength: 3, maxLength: 10 });

  it('agree on any conditions of a rule', () => {
    // One rule a call: libseccomp 2.5 loses the second of two orderings on one argument (x < 2^31 or x < 2^32 denies 2^31).
    const rules = fc.array(args, { minLength: names.length, maxLength: names.length });
    fc.assert(
      fc.property(rules, values, (list, calls) => {
        const rulesOf = names.map((name, i) => ({ names: [name], action: 'SCMP_ACT_ALLOW', args: list[i] ?? [] }));
        const architectures = ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'];
        const profile = { defaultAction: 'SCMP_ACT_ERRNO', architectures, syscalls: rulesOf };
        compare(profile, callsOf(profile, calls, ['x86_64', 'i386', 'x32']));
      }),
      { numRuns: 150 },
    );
  });

  it('give what the rules say, tried in order', () => {
    const action = fc.constantFrom('SCMP_ACT_ALLOW', 'SCMP_ACT_LOG', 'SCMP_ACT_TRAP');
    const rule = fc.record({ names: fc.subarray(names, { minLength: 1 }), args, action });
    fc.assert(
      fc.property(fc.array(rule, { minLength: 1, maxLength: 20 }), values, (list, calls) => {
        const profile = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: list };
        const { filter } = compileSeccomp(profile, { native: NATIVE, newCalls: 'default' });
        for (const call of callsOf(profile, calls)) expect(runFilter(filter, call)).toBe(meaning(profile, call));
      }),
      { numRuns: 120 },
    );
  });

  it('agree on which rule stands when a call has several', () => {
    const action = fc.constantFrom('SCMP_ACT_ERRNO', 'SCMP_ACT_ALLOW', 'SCMP_ACT_TRAP');
    // Conditional rules of one call share an action: between different ones libseccomp's order is its own affair.
    const rule = fc.oneof(
      fc.record({ names: fc.subarray(names, { minLength: 1 }), action }),
      fc.record({
        names: fc.subarray(names, { minLength: 1 }),
        action: fc.constant('SCMP_ACT_LOG'),
        args: fc.constant([{ index: 1, op: 'SCMP_CMP_EQ', value: 1 }]),
      }),
    );
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 8 }), action, (syscallRules, defaultAction) => {
        compare(
          { defaultAction, architectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'], syscalls: syscallRules },
          names.flatMap((name) =>
            (['x86_64', 'x32', 'i386'] as const).flatMap((arch) =>
              [0n, 1n].map((value) => ({
                arch: AUDIT_ARCH[arch],
                nr: (syscalls(arch).get(name) ?? 0) + (arch === 'x32' ? X32_BIT : 0),
                args: [value, value],
              })),
            ),
          ),
        );
      }),
      { numRuns: 100 },
    );
  });
});

describe.runIf(process.arch === 'x64')('this machine’s kernel', () => {
  it('answers every call as our interpreter says it will', () => {
    // Every call is refused, each name with an errno of its own; some only by argument.
    const names = [...new Set([...syscalls('x86_64').keys(), ...syscalls('i386').keys()])];
    const own = ['write', 'exit_group'];
    const rules = names
      .filter((name) => !own.includes(name))
      .map((name, i) => ({
        names: [name],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: 200 + i,
        ...(i % 12 === 0
          ? {
              args: [
                { index: i % 5, op: OPERATORS[i % OPERATORS.length] ?? '', value: 1n << 40n, valueTwo: 1n << 40n },
              ],
            }
          : {}),
      }));
    const allowed = { names: own, action: 'SCMP_ACT_ALLOW', args: [{ index: 5, op: 'SCMP_CMP_NE', value: 77 }] };
    const profile = {
      defaultAction: 'SCMP_ACT_ERRNO',
      architectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
      syscalls: [...rules, allowed],
    };
    const { filter } = compileSeccomp(profile, { native: NATIVE });
    const calls = (['x86_64', 'i386'] as const).flatMap((arch) =>
      Array.from({ length: 600 }, (_x, nr) =>
        // 77 as sixth argument refuses our own two calls as well; a 32-bit call has no sixth one here.
        [0n, 1n << 40n].map((value) => ({ arch, nr, args: [value, value, value, value, value, 77n] })),
      ).flat(),
    );
    // Linux 6.14 lets uretprobe and uprobe past every filter, and kills whoever calls them out of place.
    const unasked = {
      x86_64: ['uretprobe', 'uprobe'].map((name) => syscalls('x86_64').get(name)),
      i386: own.map((name) => syscalls('i386').get(name)),
    };
    const asked = calls.filter((call) => !unasked[call.arch].includes(call.nr));
    writeFileSync(join(folder, 'program.bpf'), filter);
    const run = spawnSync(kernel, [join(folder, 'program.bpf')], {
      encoding: 'utf8',
      input: asked.map((c) => `${c.arch === 'i386' ? 32 : 64} ${c.nr} ${c.args.join(' ')}`).join('\n'),
    });
    expect([run.status, run.signal, run.stderr]).toEqual([0, null, '']);
    const answers = run.stdout.trim().split('\n').map(Number);
    const differences = asked.flatMap((call, i) => {
      const said = runFilter(filter, { ...call, arch: AUDIT_ARCH[call.arch] }) & 0xffff;
      return said === answers[i] ? [] : [{ ...call, said, kernel: answers[i] }];
    });
    expect(answers).toHaveLength(asked.length);
    expect(differences.slice(0, 5)).toEqual([]);
  });
});
