import type { Expression } from '#kernel/nft/expression.ts';
import { CMP } from '#kernel/nft/expression.ts';
import { SET_FLAG } from '#kernel/nft/message.ts';
import type { SetInfo } from '#kernel/nft/ruleset.ts';

/** What fib says of an address (linux/rtnetlink.h, RTN_*). */
export const ADDRTYPE = { unicast: 1, local: 2 } as const;

const BYTES = 64;

/** nftables' registers: four of 16 bytes (1 to 4), or the same room in words (8 to 23). What is not known is kept as not known. */
export class Registers {
  readonly #bytes = new Uint8Array(BYTES);
  readonly #known = new Uint8Array(BYTES);

  /** `value` undefined: something of `length` bytes that nobody knows. */
  put(register: number, value: Uint8Array | undefined, length = value?.length ?? 0): void {
    const at = placeOf(register);
    this.#bytes.fill(0, at, at + length);
    if (value) this.#bytes.set(value, at);
    this.#known.fill(value ? 1 : 0, at, at + length);
  }

  get(register: number, length: number): Uint8Array | undefined {
    const at = placeOf(register);
    return this.#known.subarray(at, at + length).every((known) => known === 1)
      ? this.#bytes.slice(at, at + length)
      : undefined;
  }

  mask({ sreg, dreg, mask, xor }: Expression & { expr: 'bitwise' }): void {
    const value = this.get(sreg, mask.length);
    this.put(
      dreg,
      value?.map((byte, i) => (byte & (mask[i] ?? 0)) ^ (xor[i] ?? 0)),
      mask.length,
    );
  }
}

function placeOf(register: number): number {
  return register >= 8 ? (register - 8) * 4 : (register - 1) * 16;
}

export function compare(value: Uint8Array, op: number, data: Uint8Array): boolean {
  const order = Buffer.compare(value, data);
  switch (op) {
    case CMP.EQ:
      return order === 0;
    case CMP.NEQ:
      return order !== 0;
    case CMP.LT:
      return order < 0;
    case CMP.LTE:
      return order <= 0;
    case CMP.GT:
      return order > 0;
    default:
      return order >= 0;
  }
}

/** Of an interval set an element begins a range, and one that is marked as end begins the gap behind it. */
export function inSet(value: Uint8Array, { flags, elements }: SetInfo): boolean {
  if ((flags & SET_FLAG.INTERVAL) === 0) return elements.some(({ key }) => Buffer.compare(key, value) === 0);
  let nearest: SetInfo['elements'][number] | undefined;
  for (const element of elements) {
    if (Buffer.compare(element.key, value) > 0) continue;
    const order = nearest ? Buffer.compare(element.key, nearest.key) : 1;
    // Where one range ends and the next begins, the beginning counts.
    if (order > 0 || (order === 0 && nearest?.intervalEnd)) nearest = element;
  }
  return nearest !== undefined && !nearest.intervalEnd;
}
