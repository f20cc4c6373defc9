import { BadPlan } from '#kernel/plan/errors.ts';
import { type ArgKind, NO_SLOT, OPS, SLOTS } from '#kernel/plan/ops.ts';
import type { Op, OpName, Plan, Step, Where } from '#kernel/plan/plan.ts';

// The plan as bytes, for native/wire.c. All numbers are little endian; nothing is aligned.
//
//   header   magic 'ESTP' u32 · version u32 · total bytes u32 · steps u32 · undos u32
//   step     op u16 · where u8 · 0 u8 · argument bytes u32 · arguments          in the order of the plan
//   undo     step u32 · op u16 · where u8 = host · 0 u8 · argument bytes u32 · arguments      in the order of their steps
//
//   str      length u32 · bytes · NUL        the length is without the NUL
//   strs     count u32 · str …
//   u32      4 bytes        u64   8 bytes        slot   as u32
//   u32s     count u32 · u32 …
//   bytes    length u32 · bytes
//
// `because` stays here: the executor reports a step by its number, and the caller has the plan.

export const PLAN_MAGIC = 0x5054_5345; // "ESTP"
export const PLAN_VERSION = 1;
export const MAX_PLAN_BYTES = 16 << 20;
export const MAX_STEPS = 4096;
const HEADER_BYTES = 20;

export const WHERE_CODES: Readonly<Record<Where, number>> = { host: 0, middle: 1, init: 2 };

/** The same plan always gives the same bytes. What the executor would refuse is refused here, with the step's number. */
export function encodePlan(plan: Plan): Buffer {
  if (plan.steps.length > MAX_STEPS)
    throw new BadPlan({ step: MAX_STEPS, rule: `a plan has at most ${MAX_STEPS} steps` });
  checkActors(plan.steps);
  const out = new Writer();
  let undos = 0;
  out.skip(HEADER_BYTES);
  plan.steps.forEach((step, index) => {
    writeOp(out, step, WHERE_CODES[step.where], index);
  });
  plan.steps.forEach((step, index) => {
    for (const op of step.undo ?? []) {
      out.u32(index);
      writeOp(out, op, WHERE_CODES.host, index);
      undos++;
    }
  });
  const bytes = out.finish();
  if (bytes.length > MAX_PLAN_BYTES) throw new BadPlan({ step: 0, rule: `a plan has at most ${MAX_PLAN_BYTES} bytes` });
  [PLAN_MAGIC, PLAN_VERSION, bytes.length, plan.steps.length, undos].forEach((n, i) => {
    bytes.writeUInt32LE(n, i * 4);
  });
  return bytes;
}

/** They make an actor or hand it on: nothing is taken back by them. */
const NO_UNDO: ReadonlySet<OpName> = new Set(['fork', 'clone', 'cloneInto', 'exec', 'ready', 'awaitStart']);

/** An actor acts only after the step that makes it; each is made once. */
function checkActors(steps: readonly Step[]): void {
  let forked = false;
  let cloned = false;
  steps.forEach((step, index) => {
    const wrong = (rule: string): never => {
      throw new BadPlan({ step: index, op: step.op, rule });
    };
    if (step.where === 'middle' && !forked) wrong('runs in middle before a fork');
    if (step.where === 'init' && !cloned) wrong('runs in init before a clone');
    if (step.op === 'fork') {
      if (forked || cloned || step.where !== 'host') wrong('forks once, on the host, before the clone');
      forked = true;
    }
    if (step.op === 'clone' || step.op === 'cloneInto') {
      if (cloned || step.where !== (forked ? 'middle' : 'host')) wrong('clones once, in middle when there is one');
      if (step.op === 'cloneInto' && forked) wrong('clones from the host');
      cloned = true;
    }
    for (const op of step.undo ?? []) if (NO_UNDO.has(op.op)) wrong(`has ${op.op} as its undo`);
  });
}

function writeOp(out: Writer, op: Op, where: number, step: number): void {
  const row = ROWS.get(op.op);
  if (row === undefined) throw new BadPlan({ step, op: op.op, rule: 'is no operation' });
  out.u32(row.code | (where << 16));
  const lengthAt = out.length;
  out.u32(0);
  const values = op as unknown as Readonly<Record<string, unknown>>;
  for (const { name, write } of row.args) {
    const rule = write(out, values[name]);
    if (rule !== undefined) throw new BadPlan({ step, op: op.op, arg: name, rule });
  }
  out.u32At(lengthAt, out.length - lengthAt - 4);
}

type WriteArg = (out: Writer, value: unknown) => string | undefined;

const WRITERS: Readonly<Record<ArgKind, WriteArg>> = {
  str: (out, value) => {
    if (typeof value !== 'string') return 'is not a string';
    return out.str(value) ? undefined : 'has a NUL inside';
  },
  strs: (out, value) => {
    if (!Array.isArray(value)) return 'is not a list';
    out.u32(value.length);
    for (const item of value) {
      const wrong = WRITERS.str(out, item);
      if (wrong !== undefined) return `has an item that ${wrong}`;
    }
    return undefined;
  },
  u32: (out, value) => {
    if (!isU32(value)) return 'is not an unsigned number of 32 bits';
    out.u32(value);
    return undefined;
  },
  u64: (out, value) => {
    if (typeof value !== 'bigint' || value < 0n || value >> 64n !== 0n) return 'is not an unsigned number of 64 bits';
    out.u64(value);
    return undefined;
  },
  u32s: (out, value) => {
    if (!Array.isArray(value) || !value.every(isU32)) return 'is not a list of unsigned numbers of 32 bits';
    out.u32(value.length);
    for (const item of value) out.u32(item);
    return undefined;
  },
  bytes: (out, value) => {
    if (!(value instanceof Uint8Array)) return 'is not bytes';
    out.u32(value.length);
    out.bytes(value);
    return undefined;
  },
  slot: (out, value) => {
    if (!isU32(value) || (value >= SLOTS && value !== NO_SLOT)) return `is not a slot below ${SLOTS}`;
    out.u32(value);
    return undefined;
  },
};

/** The table, made ready for a loop that runs some hundred times for each container. */
const ROWS = new Map<OpName, { code: number; args: readonly { name: string; write: WriteArg }[] }>(
  (Object.keys(OPS) as OpName[]).map((op) => {
    const args = Object.entries(OPS[op].args).map(([name, kind]) => ({ name, write: WRITERS[kind as ArgKind] }));
    return [op, { code: OPS[op].code, args }];
  }),
);

function isU32(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}

const SHORT_STRING = 96;

/** Grows by doubling; a plan of a container is 10 to 30 KB. */
class Writer {
  #buffer = Buffer.allocUnsafe(16 << 10);
  length = 0;

  skip(bytes: number): void {
    this.#room(bytes);
    this.#buffer.fill(0, this.length, this.length + bytes);
    this.length += bytes;
  }

  u32(value: number): void {
    this.#room(4);
    const at = this.length;
    // Four stores cost a third of writeUInt32LE, which checks what WRITERS have checked.
    this.#buffer[at] = value;
    this.#buffer[at + 1] = value >>> 8;
    this.#buffer[at + 2] = value >>> 16;
    this.#buffer[at + 3] = value >>> 24;
    this.length = at + 4;
  }

  u32At(at: number, value: number): void {
    this.#buffer.writeUInt32LE(value, at);
  }

  u64(value: bigint): void {
    this.#room(8);
    this.length = this.#buffer.writeBigUInt64LE(value, this.length);
  }

  /** False: there is a NUL inside. */
  str(value: string): boolean {
    if (this.#ascii(value)) return true;
    if (value.includes('\0')) return false;
    const bytes = Buffer.byteLength(value);
    this.u32(bytes);
    this.#room(bytes + 1);
    this.length += this.#buffer.write(value, this.length);
    this.#buffer[this.length++] = 0;
    return true;
  }

  /** Nearly all strings of a plan are short paths; for those a loop beats two calls into the runtime. */
  #ascii(value: string): boolean {
    const size = value.length;
    if (size > SHORT_STRING) return false;
    this.#room(4 + size + 1);
    const at = this.length + 4;
    for (let i = 0; i < size; i++) {
      const code = value.charCodeAt(i);
      if (code === 0 || code > 0x7f) return false;
      this.#buffer[at + i] = code;
    }
    this.u32(size);
    this.#buffer[at + size] = 0;
    this.length = at + size + 1;
    return true;
  }

  bytes(value: Uint8Array): void {
    this.#room(value.length);
    this.#buffer.set(value, this.length);
    this.length += value.length;
  }

  finish(): Buffer {
    return this.#buffer.subarray(0, this.length);
  }

  #room(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.length);
    this.#buffer = larger;
  }
}
