import { messageOf } from '#base/errors.ts';
import { fail, type Shape } from '#base/shape.ts';

/**
 * 64-bit numbers of the specification. JSON.parse rounds what does not fit a double: 18446744073709551615, every
 * "unlimited" rlimit, would come out as 2^64. A number that fits stays a number, a greater one is a bigint.
 */
export type Int64 = number | bigint;

const LONG_NUMBER = /[0-9]{16}/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?[0-9]{16,}(?![0-9.eE])/g;
const MARK = '\u0000int:';

/** JSON.parse, but integers beyond 2^53 arrive as bigints instead of being rounded. Throws what `fail` throws. */
export function parseJson(text: string, path = '$'): unknown {
  try {
    if (!LONG_NUMBER.test(text)) return JSON.parse(text);
    // Only integers outside of strings are marked; a string that bears the mark itself turns into a bigint, which no
    // rule for strings accepts, so nothing is gained by forging it.
    const marked = text.replace(STRING_OR_NUMBER, (token) =>
      token.startsWith('"') || Number.isSafeInteger(Number(token)) ? token : JSON.stringify(MARK + token),
    );
    return JSON.parse(marked, (_key, value) =>
      typeof value === 'string' && /^\0int:-?\d+$/.test(value) ? BigInt(value.slice(MARK.length)) : value,
    );
  } catch (error) {
    return fail(path, excerpt(text), `is not JSON: ${messageOf(error)}`);
  }
}

/** The inverse: bigints are written as plain numbers. Nearly no document has one, and without a replacer it is written five times as fast. */
export function stringifyJson(value: unknown, indent?: string): string {
  try {
    return JSON.stringify(value, undefined, indent);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // what JSON.stringify says of a bigint
  }
  const text = JSON.stringify(value, (_key, v) => (typeof v === 'bigint' ? `${MARK}${v}` : v), indent);
  return text.replace(/"\\u0000int:(-?\d+)"/g, '$1');
}

export function int64(): Shape<Int64> {
  return ranged(-(2n ** 63n), 2n ** 63n - 1n, 'is not a signed 64-bit integer');
}

export function uint64(): Shape<Int64> {
  return ranged(0n, 2n ** 64n - 1n, 'is not an unsigned 64-bit integer');
}

function ranged(min: bigint, max: bigint, rule: string): Shape<Int64> {
  return (value, path) => {
    // Encoders of other languages write 1e15 for a round float; an integral double is an integer.
    if (typeof value === 'number' && Number.isInteger(value) && BigInt(value) >= min && BigInt(value) <= max)
      return value;
    if (typeof value === 'bigint' && value >= min && value <= max) return value;
    return fail(path, typeof value === 'bigint' ? String(value) : value, rule);
  };
}

function excerpt(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
