import { randomBytes } from 'node:crypto';

/** Chance as an argument: the system's in production, a seeded one wherever a run must be repeatable. */
export interface Random {
  /** A float in [0, 1). */
  next(): number;
  bytes(length: number): Uint8Array;
}

export const systemRandom: Random = { next: floats(), bytes: drawnAhead() };

/** As `floats`: ids are short. What was given is wiped, so that nobody finds it here later. */
function drawnAhead(): (length: number) => Uint8Array {
  const [mostBytes, ahead] = [64, 4096];
  let drawn = new Uint8Array(0);
  let at = 0;
  return (length) => {
    if (length > mostBytes) return randomBytes(length);
    if (at + length > drawn.length) {
      drawn = Uint8Array.from(randomBytes(ahead));
      at = 0;
    }
    const bytes = drawn.slice(at, at + length);
    drawn.fill(0, at, at + length);
    at += length;
    return bytes;
  };
}

/** Drawn ahead: a call of the system for each costs ten times as much, and a pod's names and uid take forty. */
function floats(): () => number {
  const [each, ahead] = [6, 256];
  let drawn = Buffer.alloc(0);
  let at = 0;
  return () => {
    if (at === drawn.length) {
      drawn = randomBytes(each * ahead);
      at = 0;
    }
    at += each;
    return drawn.readUIntBE(at - each, each) / 2 ** 48;
  };
}

/** SplitMix32: small, fast and the same on every machine. Not for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  const nextU32 = (): number => {
    state = (state + 0x9e3779b9) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  return {
    next: () => nextU32() / 2 ** 32,
    bytes: (length) => Uint8Array.from({ length }, () => nextU32() & 0xff),
  };
}

/** An integer in [0, limit). */
export function below(random: Random, limit: number): number {
  return Math.floor(random.next() * limit);
}

export function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[below(random, items.length)];
  if (item === undefined) throw new RangeError('pick from an empty list');
  return item;
}

/** 64 lower-case hex digits, the shape of Docker's ids; never all decimal in the first 12, which some tools take for a number. */
export function newId(random: Random): string {
  for (;;) {
    const id = Buffer.from(random.bytes(32)).toString('hex');
    if (/[a-f]/.test(id.slice(0, 12))) return id;
  }
}
