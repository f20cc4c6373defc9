import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ArgKind, NO_SLOT, OPS, SLOTS } from '#kernel/plan/ops.ts';
import type { Op, OpName, Plan, Step } from '#kernel/plan/plan.ts';
import { planToJson, printPlan } from '#kernel/plan/print.ts';
import { decodeResults, exitStatus, planFailed, RESULT_MAGIC } from '#kernel/plan/result.ts';
import { encodePlan, PLAN_MAGIC, PLAN_VERSION } from '#kernel/plan/wire.ts';

const encoder = new TextEncoder();

// A small container: what the golden files show.
const CONTAINER: Plan = {
  steps: [
    {
      op: 'mkdir',
      where: 'host',
      path: '/sys/fs/cgroup/memory/web',
      mode: 0o755,
      flags: 1,
      because: '$.linux.cgroupsPath',
      undo: [{ op: 'removeCgroup', path: '/sys/fs/cgroup/memory/web' }],
    },
    { op: 'clone', where: 'host', flags: 0x2c02_0000n, cgroup: NO_SLOT, sibling: 0, because: '$.linux.namespaces' },
    { op: 'mount', where: 'init', source: '', target: '/', type: '', flags: 0x8_4000n, data: '', because: 'default' },
    {
      op: 'mountAt',
      where: 'init',
      root: 0,
      source: 'proc',
      target: '/proc',
      type: 'proc',
      flags: 14n,
      data: '',
      create: 1,
      because: '$.mounts[0]',
    },
    { op: 'capBounding', where: 'init', keep: 0x400n | (1n << 21n), because: '$.process.capabilities.bounding' },
    {
      op: 'rlimit',
      where: 'init',
      resource: 7,
      soft: 1024n,
      hard: 0xffff_ffff_ffff_ffffn,
      because: '$.process.rlimits[0]',
    },
    {
      op: 'write',
      where: 'init',
      path: '/proc/sys/net/ipv4/ip_forward',
      data: encoder.encode('1\n'),
      flags: 1,
      mode: 0,
      because: '$.linux.sysctl',
    },
    {
      op: 'seccomp',
      where: 'init',
      filter: new Uint8Array([6, 0, 0, 0, 0, 0, 0xff, 0x7f]),
      flags: 2,
      listener: '',
      state: new Uint8Array(),
      pidAt: [],
      because: '$.linux.seccomp',
    },
    { op: 'ready', where: 'host', because: 'OCI lifecycle step 5' },
    { op: 'awaitStart', where: 'init', fifo: '', slot: NO_SLOT, because: 'OCI lifecycle step 8' },
    {
      op: 'exec',
      where: 'init',
      path: 'sh',
      argv: ['sh', '-c', 'echo hello world'],
      env: ['PATH=/bin'],
      because: '$.process.args',
    },
  ],
};

describe('the table of operations', () => {
  it('gives every operation a code of its own that fits the wire', () => {
    const codes = Object.values(OPS).map((row) => row.code);
    expect(new Set(codes).size).toBe(codes.length);
    expect(codes.every((c) => c > 0 && c < 0x1_0000)).toBe(true);
  });

  it('names only its own arguments in what it says', () => {
    for (const row of Object.values(OPS))
      for (const [, name] of row.says.matchAll(/\{(\w+)\}/g)) expect(Object.keys(row.args)).toContain(name);
  });

  it('is the table that native/ops.gen.h was written from', () => {
    const script = fileURLToPath(new URL('../../../tools/gen-native.mjs', import.meta.url));
    execFileSync(process.execPath, [script, '--check'], { stdio: 'pipe' });
  });
});

describe('printing', () => {
  it('prints a plan as the golden file has it', async () => {
    await expect(printPlan(CONTAINER)).toMatchFileSnapshot('case/container/plan.txt');
  });

  it('prints it as JSON', async () => {
    await expect(`${JSON.stringify(planToJson(CONTAINER), null, 1)}\n`).toMatchFileSnapshot('case/container/plan.json');
  });

  it('never lets a control character through', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (path) => {
        const line = printPlan({ steps: [{ op: 'rmdir', where: 'host', path, because: 'x' }] });
        // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what the test looks for
        expect(line.slice(0, -1)).not.toMatch(/[\u0000-\u001f]/);
      }),
    );
  });
});

describe('the wire form', () => {
  it('is the bytes of the golden file', async () => {
    await expect(`${hexLines(encodePlan(CONTAINER))}\n`).toMatchFileSnapshot('case/container/plan.hex');
  });

  it('has the length and the counts it says, for any plan', () => {
    fc.assert(
      fc.property(fc.array(anyStep(), { maxLength: 20 }), (steps) => {
        const bytes = encodePlan({ steps });
        const words = [0, 4, 8, 12, 16].map((at) => bytes.readUInt32LE(at));
        const undos = steps.reduce((n, s) => n + (s.undo?.length ?? 0), 0);
        expect(words).toEqual([PLAN_MAGIC, PLAN_VERSION, bytes.length, steps.length, undos]);
      }),
    );
  });

  it('refuses a value that does not fit its argument, by step and name', () => {
    const chmod: Step = { op: 'chmod', where: 'host', path: 'a\0b', mode: 0, because: '' };
    expect(() => encodePlan({ steps: [chmod] })).toThrow('step 1, chmod: path has a NUL inside');
    expect(() => encodePlan({ steps: [{ ...chmod, path: 'a', mode: -1 }] })).toThrow('mode is not an unsigned number');
    expect(() => encodePlan({ steps: [{ op: 'close', where: 'host', slot: 64, because: '' }] })).toThrow(
      'slot below 64',
    );
  });

  it('refuses a step of an actor that does not exist yet', () => {
    expect(() => encodePlan({ steps: [{ op: 'setsid', where: 'init', because: '' }] })).toThrow('before a clone');
    expect(() => encodePlan({ steps: [{ op: 'setsid', where: 'middle', because: '' }] })).toThrow('before a fork');
  });
});

describe('results', () => {
  const failed = record(2, { step: 3, op: OPS.mountAt.code, errno: 22, detail: 'upperdir lies on an overlay' });

  it('decode one by one, however they are cut', () => {
    const bytes = Buffer.concat([record(4, { step: 0, op: OPS.removeCgroup.code, errno: 16, detail: 'x' }), failed]);
    fc.assert(
      fc.property(fc.nat(bytes.length), (cut) => {
        const first = decodeResults(bytes.subarray(0, cut));
        const second = decodeResults(Buffer.concat([first.rest, bytes.subarray(cut)]));
        expect([...first.records, ...second.records].map((r) => r.kind)).toEqual(['undoFailed', 'failed']);
      }),
    );
  });

  it('become an error that names step, operation, errno, detail and wish', () => {
    const [only] = decodeResults(failed).records;
    expect(only && planFailed(CONTAINER, only).message).toBe(
      'step 4 of 11, mount proc on /proc nosuid|nodev|noexec: EINVAL, because upperdir lies on an overlay (wanted by $.mounts[0])',
    );
  });

  it('tell an exit status from a signal', () => {
    expect(exitStatus(3 << 8)).toEqual({ code: 3 });
    expect(exitStatus(9)).toEqual({ code: 137, signal: 'SIGKILL' });
    expect(exitStatus(11 | 0x80)).toEqual({ code: 139, signal: 'SIGSEGV', coreDumped: true });
  });
});

function record(kind: number, r: { step: number; op: number; errno: number; detail: string }): Buffer {
  const detail = Buffer.from(r.detail);
  const head = Buffer.alloc(32);
  [RESULT_MAGIC, kind, 0, r.step, r.op, r.errno, 0, detail.length].forEach((n, i) => {
    head.writeUInt32LE(n, i * 4);
  });
  return Buffer.concat([head, detail]);
}

function hexLines(bytes: Buffer): string {
  return (bytes.toString('hex').match(/.{1,64}/g) ?? []).join('\n');
}

function anyStep(): fc.Arbitrary<Step> {
  const names = (Object.keys(OPS) as OpName[]).filter((n) => !['fork', 'clone', 'cloneInto'].includes(n));
  const undoable = names.filter((n) => n !== 'exec' && n !== 'ready' && n !== 'awaitStart');
  return fc
    .tuple(
      fc.constantFrom(...names).chain(anyOp),
      fc.array(fc.constantFrom(...undoable).chain(anyOp), { maxLength: 2 }),
    )
    .map(([op, undo]) => ({ ...op, where: 'host', because: 'chance', undo }) as Step);
}

function anyOp(name: OpName): fc.Arbitrary<Op> {
  const str = fc.string({ unit: 'grapheme', maxLength: 30 }).map((s) => s.replaceAll('\0', ''));
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  const kinds: Record<ArgKind, fc.Arbitrary<unknown>> = {
    str,
    strs: fc.array(str, { maxLength: 4 }),
    u32,
    u64: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
    u32s: fc.array(u32, { maxLength: 4 }),
    bytes: fc.uint8Array({ maxLength: 40 }),
    slot: fc.oneof(fc.integer({ min: 0, max: SLOTS - 1 }), fc.constant(NO_SLOT)),
  };
  const args = Object.fromEntries(Object.entries(OPS[name].args).map(([arg, kind]) => [arg, kinds[kind as ArgKind]]));
  return fc.record(args).map((values) => ({ op: name, ...values }) as unknown as Op);
}
