/**
 * Kubernetes quantities: a decimal number with a suffix, `100m`, `1.5Gi`, `2e3`. Values are held as integers of nano units, so
 * sums never lose a millicore; `canonical` writes them the way the API server stores them.
 *
 *     quantity = [sign] digits [. digits] ( n u m "" k M G T P E | Ki Mi Gi Ti Pi Ei | e[sign]digits | E[sign]digits )
 */
const NANO = 1_000_000_000n;

type Format = 'decimal' | 'binary' | 'exponent';

export interface ParsedQuantity {
  nano: bigint;
  format: Format;
}

const DECIMAL: Record<string, bigint> = {
  n: 1n,
  u: 1_000n,
  m: 1_000_000n,
  '': NANO,
  k: NANO * 10n ** 3n,
  M: NANO * 10n ** 6n,
  G: NANO * 10n ** 9n,
  T: NANO * 10n ** 12n,
  P: NANO * 10n ** 15n,
  E: NANO * 10n ** 18n,
};
const BINARY: Record<string, bigint> = {
  Ki: NANO << 10n,
  Mi: NANO << 20n,
  Gi: NANO << 30n,
  Ti: NANO << 40n,
  Pi: NANO << 50n,
  Ei: NANO << 60n,
};
const PATTERN = /^([+-]?)(\d+(?:\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,3}|)$/;
const MAX = (2n ** 63n - 1n) * NANO;

/** Undefined when the text is no quantity. Fractions below a nano unit round away from zero, as upstream; sizes cap at 2^63-1. */
export function parseQuantity(text: string | number): ParsedQuantity | undefined {
  const match = PATTERN.exec(String(text));
  if (!match) return undefined;
  const [, sign, digits = '', suffix = ''] = match;
  const [whole = '', fraction = ''] = digits.split('.');
  const scaled = BigInt(`${whole}${fraction}` || '0');
  const exponent = /^[eE][+-]?\d+$/.test(suffix) ? Number(suffix.slice(1)) : undefined;
  const unit = exponent === undefined ? (DECIMAL[suffix] ?? BINARY[suffix] ?? NANO) : NANO;
  const tens = (exponent ?? 0) - fraction.length;
  const nano = tens >= 0 ? scaled * unit * 10n ** BigInt(tens) : divideUp(scaled * unit, 10n ** BigInt(-tens));
  const capped = nano > MAX ? MAX : nano;
  return {
    nano: sign === '-' ? -capped : capped,
    format: exponent !== undefined ? 'exponent' : suffix in BINARY ? 'binary' : 'decimal',
  };
}

/** Nano units; zero for what is absent or malformed (validation has refused malformed ones before). */
export function nanoOf(text: string | number | undefined): bigint {
  return text === undefined ? 0n : (parseQuantity(text)?.nano ?? 0n);
}

/** Whole units, rounded up: bytes of memory, counts. */
export function unitsOf(text: string | number | undefined): number {
  return Number(roundUp(nanoOf(text), NANO));
}

/** Thousandths, rounded up: millicores of `cpu`. */
export function milliOf(text: string | number | undefined): number {
  return Number(roundUp(nanoOf(text), 1_000_000n));
}

export function compareQuantities(a: string | number, b: string | number): number {
  const left = nanoOf(a);
  const right = nanoOf(b);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** Keeps the format of the first that is not zero, as upstream's Add does. */
export function addQuantities(a: string | number, b: string | number): string {
  const left = parseQuantity(a) ?? { nano: 0n, format: 'decimal' };
  const right = parseQuantity(b) ?? { nano: 0n, format: 'decimal' };
  return formatQuantity({ nano: left.nano + right.nano, format: left.nano === 0n ? right.format : left.format });
}

export function subtractQuantities(a: string | number, b: string | number): string {
  const right = parseQuantity(b) ?? { nano: 0n, format: 'decimal' };
  return addQuantities(a, formatQuantity({ nano: -right.nano, format: right.format }));
}

/** The text the server stores: no fraction, the largest suffix that divides. `0.5` → `500m`, `1024Mi` → `1Gi`, `1000m` → `1`. */
export function canonicalQuantity(text: string | number): string | undefined {
  const parsed = parseQuantity(text);
  return parsed && formatQuantity(parsed);
}

export function formatQuantity({ nano, format }: ParsedQuantity): string {
  if (nano === 0n) return '0';
  const sign = nano < 0n ? '-' : '';
  const size = nano < 0n ? -nano : nano;
  // Below 1024 a binary number has no binary suffix to take, and fractions fall back to decimal ones.
  if (format === 'binary' && size >= NANO << 10n && size % NANO === 0n) return sign + largest(size, BINARY, '');
  if (format === 'exponent') return sign + exponential(size);
  return sign + largest(size, DECIMAL, 'n');
}

function largest(size: bigint, units: Record<string, bigint>, smallest: string): string {
  let best = smallest;
  let unit = smallest === '' ? NANO : 1n;
  for (const [suffix, value] of Object.entries(units)) {
    if (size % value === 0n && value >= unit) {
      best = suffix;
      unit = value;
    }
  }
  return `${size / unit}${best}`;
}

function exponential(size: bigint): string {
  let exponent = -9;
  let digits = size;
  while (digits % 1000n === 0n) {
    digits /= 1000n;
    exponent += 3;
  }
  return exponent === 0 ? `${digits}` : `${digits}e${exponent}`;
}

function divideUp(a: bigint, b: bigint): bigint {
  return (a + b - 1n) / b;
}

function roundUp(nano: bigint, unit: bigint): bigint {
  return nano <= 0n ? nano / unit : divideUp(nano, unit);
}
