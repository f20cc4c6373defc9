/** Human sizes and durations, as Docker's and Kubernetes' users write them. Undefined means: not of this form. */

const SIZE = /^(\d+(?:\.\d+)?)\s?([kmgtp]?)(?:i?b)?$/i;
const SIZE_POWER: Record<string, number> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 };

/** `512`, `64m`, `1.5GiB` → bytes. Units are powers of 1024 whatever the spelling, as in Docker's memory flags. */
export function parseSizeBytes(text: string): number | undefined {
  const match = SIZE.exec(text.trim());
  const power = SIZE_POWER[match?.[2]?.toLowerCase() ?? ''] ?? 0;
  const bytes = Math.floor(Number(match?.[1]) * 1024 ** power);
  return match && Number.isSafeInteger(bytes) ? bytes : undefined;
}

const DURATION = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/;
const DURATION_PART = /(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g;
const NANOSECONDS: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, μs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

/** Go's duration strings (`1m30s`, `0`, `1.5h`) → nanoseconds. */
export function parseDurationNs(text: string): number | undefined {
  if (text === '0') return 0;
  const match = DURATION.exec(text);
  if (!match) return undefined;
  let total = 0;
  for (const [, amount, unit = ''] of text.matchAll(DURATION_PART)) total += Number(amount) * (NANOSECONDS[unit] ?? 0);
  const signed = Math.round(match[1] === '-' ? -total : total);
  return Number.isSafeInteger(signed) ? signed : undefined;
}
