import { parseDurationNs } from '#base/units.ts';
import { CliUsage } from '#cli/errors.ts';

/** `10m` (ago), `2026-01-02T03:04:05`, seconds since the epoch: as the API takes it. */
export function timeOf(written: string | undefined, nowMs: number): string | undefined {
  if (written === undefined || written === '') return undefined;
  if (/^\d+(\.\d+)?$/.test(written)) return written;
  const ago = parseDurationNs(written);
  if (ago !== undefined) return ((nowMs - ago / 1e6) / 1000).toFixed(3);
  const ms = Date.parse(written);
  if (Number.isNaN(ms))
    throw new CliUsage({ why: `${JSON.stringify(written)} is no time: 10m, 2026-01-02T03:04:05 or seconds` });
  return (ms / 1000).toFixed(3);
}
