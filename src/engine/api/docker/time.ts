/** Docker's zero time, for what has not happened. */
export const ZERO_TIME = '0001-01-01T00:00:00Z';

/** Milliseconds → RFC 3339 with nanosecond digits, as Go prints them; 0 is "never". */
export function dockerTime(ms: number): string {
  if (ms === 0) return ZERO_TIME;
  const date = new Date(Math.floor(ms));
  const nanoseconds = Math.round((ms - Math.floor(ms / 1000) * 1000) * 1e6);
  const fraction = String(nanoseconds).padStart(9, '0').replace(/0+$/, '');
  return `${date.toISOString().slice(0, 19)}${fraction === '' ? '' : `.${fraction}`}Z`;
}

/** `About an hour`, `3 weeks`: the words of docker ps. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(seconds / 3600);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

/** What clients send as `since` and `until`: RFC 3339, seconds with a fraction, or a Go duration before now. */
export function parseTime(
  text: string,
  nowMs: number,
  duration: (text: string) => number | undefined,
): number | undefined {
  if (text === '' || text === '0') return undefined;
  if (/^\d+(\.\d{1,9})?$/.test(text)) return Number(text) * 1000;
  const ns = duration(text);
  if (ns !== undefined) return nowMs - ns / 1e6;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}
