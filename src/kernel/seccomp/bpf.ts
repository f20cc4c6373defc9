import { assert } from '#base/errors.ts';

// Classic BPF as seccomp(2) takes it: 8 bytes an instruction (struct sock_filter), jumps forward only, conditional ones by
// at most 255. The kernel refuses more than 4096 instructions (BPF_MAXINSNS).
export const BPF_MAXINSNS = 4096;
export const INSTRUCTION_BYTES = 8;

const LD_W_ABS = 0x20;
const ALU_AND_K = 0x54;
const JMP_JA = 0x05;
const JMP_JEQ_K = 0x15;
const JMP_JGT_K = 0x25;
const JMP_JGE_K = 0x35;
const RET_K = 0x06;
const FAR = 255;

// struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }, little endian here.
export const DATA_NR = 0;
export const DATA_ARCH = 4;
export const dataLow = (index: number): number => 16 + 8 * index;
export const dataHigh = (index: number): number => 20 + 8 * index;

/** An instruction's place, counted from the end of the program: what has been written before it stays where it is. */
export type Label = number;
export type Test = 'eq' | 'gt' | 'ge';

/**
 * Writes a program from its end to its beginning. A jump's target is then always known when the jump is written, so no
 * second pass patches offsets, and a target that has moved out of a jump's reach is reached over a `ja`.
 */
export class BackwardWriter {
  readonly #code: number[] = [];
  readonly #k: number[] = [];
  readonly #jt: number[] = [];
  readonly #jf: number[] = [];
  readonly #returns = new Map<number, Label>();

  get length(): number {
    return this.#code.length;
  }

  /** `return value`, shared with an equal one that is still near. */
  ret(value: number): Label {
    const present = this.#returns.get(value);
    if (present !== undefined && this.#distance(present) <= FAR) return present;
    const label = this.#put(RET_K, value, 0, 0);
    this.#returns.set(value, label);
    return label;
  }

  load(offset: number, next: Label): Label {
    this.#fallInto(next);
    return this.#put(LD_W_ABS, offset, 0, 0);
  }

  and(mask: number, next: Label): Label {
    this.#fallInto(next);
    return this.#put(ALU_AND_K, mask, 0, 0);
  }

  test(test: Test, value: number, yes: Label, no: Label): Label {
    if (yes === no) return yes;
    // A `ja` pushes both targets one further away, so reach for the further one first.
    const reach = (label: Label): Label => (this.#distance(label) < FAR ? label : this.#jump(label));
    if (yes < no) {
      yes = reach(yes);
      no = reach(no);
    } else {
      no = reach(no);
      yes = reach(yes);
    }
    const code = test === 'eq' ? JMP_JEQ_K : test === 'gt' ? JMP_JGT_K : JMP_JGE_K;
    return this.#put(code, value, this.#distance(yes), this.#distance(no));
  }

  /** The bytes, beginning at `entry`. */
  finish(entry: Label): Uint8Array {
    this.#fallInto(entry);
    const count = this.length;
    assert(count <= BPF_MAXINSNS, `a seccomp program of ${count} instructions was not refused earlier`);
    const view = new DataView(new ArrayBuffer(count * INSTRUCTION_BYTES));
    for (let i = 0; i < count; i++) {
      const from = count - 1 - i;
      view.setUint16(i * INSTRUCTION_BYTES, this.#code[from] ?? 0, true);
      view.setUint8(i * INSTRUCTION_BYTES + 2, this.#jt[from] ?? 0);
      view.setUint8(i * INSTRUCTION_BYTES + 3, this.#jf[from] ?? 0);
      view.setUint32(i * INSTRUCTION_BYTES + 4, this.#k[from] ?? 0, true);
    }
    return new Uint8Array(view.buffer);
  }

  #fallInto(next: Label): void {
    if (this.#distance(next) !== 0) this.#jump(next);
  }

  #jump(to: Label): Label {
    return this.#put(JMP_JA, this.#distance(to), 0, 0);
  }

  /** How many instructions a jump written now would skip to come to `label`. */
  #distance(label: Label): number {
    return this.length - 1 - label;
  }

  #put(code: number, k: number, jt: number, jf: number): Label {
    assert(jt >= 0 && jt <= FAR && jf >= 0 && jf <= FAR && k >= 0, 'a BPF jump is in reach');
    this.#jt.push(jt);
    this.#jf.push(jf);
    this.#k.push(k >>> 0);
    return this.#code.push(code) - 1;
  }
}

export interface SeccompData {
  nr: number;
  arch: number;
  instructionPointer?: bigint;
  args?: readonly bigint[];
}

/**
 * What the kernel would answer: runs a program over one call and gives SECCOMP_RET_*. For the tests, and for the X-ray,
 * which shows what a container may call.
 */
export function runFilter(program: Uint8Array, data: SeccompData): number {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const memory = dataBytes(data);
  let a = 0;
  for (let pc = 0; pc < program.byteLength / INSTRUCTION_BYTES; pc++) {
    const at = pc * INSTRUCTION_BYTES;
    const k = view.getUint32(at + 4, true);
    const jump = (yes: boolean): number => view.getUint8(at + (yes ? 2 : 3));
    const code = view.getUint16(at, true);
    if (code === RET_K) return k;
    if (code === LD_W_ABS) a = memory.getUint32(k, true);
    else if (code === ALU_AND_K) a = (a & k) >>> 0;
    else if (code === JMP_JA) pc += k;
    else if (code === JMP_JEQ_K) pc += jump(a === k);
    else if (code === JMP_JGT_K) pc += jump(a > k);
    else if (code === JMP_JGE_K) pc += jump(a >= k);
    else assert(false, `a BPF instruction of ours has code ${code}`);
  }
  return assert(false, 'a BPF program ends with a return') as never;
}

function dataBytes(data: SeccompData): DataView {
  const view = new DataView(new ArrayBuffer(64));
  view.setUint32(DATA_NR, data.nr >>> 0, true);
  view.setUint32(DATA_ARCH, data.arch >>> 0, true);
  view.setBigUint64(8, data.instructionPointer ?? 0n, true);
  data.args?.forEach((value, index) => {
    view.setBigUint64(dataLow(index), value, true);
  });
  return view;
}
