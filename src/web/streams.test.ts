import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseAsk } from '#web/live.ts';
import { LogLines } from '#web/streams.ts';

describe('lines of a log', () => {
  it('are the same wherever the bytes are cut', () => {
    const text =
      '2026-01-02T03:04:05.000000006Z héllo\r\n2026-01-02T03:04:06Z <b>x</b>\nno time\n2026-01-02T03:04:07Z open';
    const whole = new LogLines(false);
    const wanted = [...whole.push(Buffer.from(text)), ...whole.rest()];
    expect(wanted).toEqual([
      { at: '2026-01-02T03:04:05.000000006Z', error: false, text: 'héllo' },
      { at: '2026-01-02T03:04:06Z', error: false, text: '<b>x</b>' },
      { at: '', error: false, text: 'no time' },
      { at: '2026-01-02T03:04:07Z', error: false, text: 'open' },
    ]);
    const bytes = Buffer.from(text);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length)), (cuts) => {
        const lines = new LogLines(false);
        const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const got = at.slice(1).flatMap((end, i) => lines.push(bytes.subarray(at[i], end)));
        expect([...got, ...lines.rest()]).toEqual(wanted);
      }),
    );
  });

  it('come in pieces when they have no end', () => {
    const lines = new LogLines(true).push(Buffer.alloc(20_000, 'x'));
    expect(lines.map((l) => [l.error, l.text.length])).toEqual([[true, 20_000]]);
  });
});

describe('what a page may say', () => {
  it('is one of four things', () => {
    expect(parseAsk('{"open":1,"topic":{"kind":"terminal","container":"c"}}')).toEqual({
      open: 1,
      topic: { kind: 'terminal', container: 'c', rows: 24, columns: 80 },
    });
    expect(parseAsk('{"input":1,"text":"ls\\r"}')).toEqual({ input: 1, text: 'ls\r' });
    expect(parseAsk('{"resize":1,"rows":2,"columns":3}')).toEqual({ resize: 1, rows: 2, columns: 3 });
    expect(parseAsk('{"close":1}')).toEqual({ close: 1 });
  });

  it('is refused otherwise', () => {
    for (const text of [
      'x',
      '[]',
      '{}',
      '{"open":-1,"topic":{"kind":"world"}}',
      '{"open":1}',
      '{"open":1,"topic":{"kind":"logs"}}',
      '{"resize":1,"rows":1e9,"columns":1}',
    ])
      expect(() => parseAsk(text), text).toThrow();
  });
});
