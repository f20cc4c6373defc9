import { assert } from '#base/errors.ts';
import { NO_SLOT, SLOTS } from '#kernel/plan/ops.ts';
import type { Op, Plan, Step, Where } from '#kernel/plan/plan.ts';

/** Collects the steps of one plan and hands out its descriptor slots. */
export class PlanBuilder {
  readonly #steps: Step[] = [];
  readonly #free: number[] = Array.from({ length: SLOTS }, (_, i) => SLOTS - 1 - i);
  readonly warnings: string[] = [];

  host(because: string, op: Op, ...undo: Op[]): void {
    this.#add('host', because, op, undo);
  }

  middle(because: string, op: Op, ...undo: Op[]): void {
    this.#add('middle', because, op, undo);
  }

  init(because: string, op: Op, ...undo: Op[]): void {
    this.#add('init', because, op, undo);
  }

  at(where: Where, because: string, op: Op, ...undo: Op[]): void {
    this.#add(where, because, op, undo);
  }

  /** A step that another planner made. */
  step(step: Step): void {
    this.#steps.push(step);
  }

  slot(): number {
    const slot = this.#free.pop();
    assert(slot !== undefined, `a plan with more than ${SLOTS} open descriptors`);
    return slot;
  }

  /** A closed slot may be used again. */
  close(where: Where, because: string, slot: number): void {
    if (slot === NO_SLOT) return;
    this.#add(where, because, { op: 'close', slot }, []);
    this.#free.push(slot);
  }

  /** The step before took what was in the slot (`bindAt` its tree). */
  release(slot: number): void {
    if (slot !== NO_SLOT) this.#free.push(slot);
  }

  warn(message: string): void {
    this.warnings.push(message);
  }

  finish(): Plan {
    return { steps: this.#steps };
  }

  #add(where: Where, because: string, op: Op, undo: readonly Op[]): void {
    this.#steps.push({ ...op, where, because, ...(undo.length > 0 ? { undo } : {}) } as Step);
  }
}

const encoder = new TextEncoder();

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

// open(2)'s and mknod(2)'s numbers, the same on x86-64 and arm64 but for O_DIRECTORY and O_NOFOLLOW.
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
export const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000;

export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

/** dev_t as the kernel takes it (new_encode_dev, 12 bits of major around 20 of minor). */
export function deviceNumber(major: number, minor: number): bigint {
  const [a, b] = [BigInt(major), BigInt(minor)];
  return ((a & 0xfffn) << 8n) | (b & 0xffn) | ((b & ~0xffn) << 12n) | ((a & ~0xfffn) << 32n);
}
