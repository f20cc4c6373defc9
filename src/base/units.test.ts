import { describe, expect, it } from 'vitest';
import { parseDurationNs, parseSizeBytes } from '#base/units.ts';

describe('units', () => {
  it.each([
    ['512', 512],
    ['64m', 64 * 2 ** 20],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['10 kB', 10240],
    ['2gb', 2 ** 31],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseSizeBytes(text)).toBe(bytes);
  });
  it.each(['', 'm', '-1', '1x', '1e3', '99999999p'])('%s is no size', (text) =>
    expect(parseSizeBytes(text)).toBeUndefined(),
  );

  it.each([
    ['0', 0],
    ['5s', 5e9],
    ['1m30s', 90e9],
    ['1.5h', 5400e9],
    ['100ms', 1e8],
    ['-2s', -2e9],
    ['3µs', 3000],
  ])('%s is %d ns', (text, ns) => {
    expect(parseDurationNs(text)).toBe(ns);
  });
  it.each(['', '5', 's', '1d', '1s2', '1 s'])('%s is no duration', (text) =>
    expect(parseDurationNs(text)).toBeUndefined(),
  );
});
