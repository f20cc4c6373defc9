import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { frameLines } from '#engine/api/docker/log-frames.ts';
import { parseLines } from '#engine/core/log-reader.ts';
import { frame } from '#spec/docker/frames.ts';

const TIMES = ['2026-11-21T04:05:06Z', '2026-11-21T04:05:06.1Z', '2026-11-21T04:05:06.123456789Z'];

const line = fc
  .record({
    log: fc.oneof(
      fc.string({ unit: 'grapheme' }).map((text) => `${text}\n`),
      fc.string(),
      fc.constantFrom('\n', '', 'a\\\n', '"\n', '","stream":"stdout","time":"x"}\n'),
    ),
    stream: fc.constantFrom('stdout', 'stderr'),
    time: fc.constantFrom(...TIMES),
  })
  .map((of) => JSON.stringify(of));
const foreign = fc.constantFrom(
  '{}',
  'torn',
  '{"stream":"stderr","log":"b\\n"}',
  '',
  '{"log":"c\\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-11-21T04:05:06Z"}',
);

describe('log lines as a client reads them', () => {
  it('are, bytes to bytes, what the lines say one by one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ arbitrary: line, weight: 5 }, foreign)),
        fc.boolean(),
        fc.boolean(),
        fc.boolean(),
        (lines, framed, stdout, stderr) => {
          const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(''));
          const slow = parseLines(bytes, 'json')
            .filter(({ stream }) => (stream === 'stdout' ? stdout : stderr))
            .map(({ stream, text }) => (framed ? frame(stream === 'stdout' ? 1 : 2, text) : text));
          const fast = frameLines(bytes, { format: 'json', framed, stdout, stderr });
          expect(fast.equals(Buffer.concat(slow))).toBe(true);
        },
      ),
    );
  });

  it('of the local driver are their text alone', () => {
    const bytes = Buffer.from('2026-11-21T04:05:06Z stdout F a\n2026-11-21T04:05:06Z stderr F b\n');
    const wish = { format: 'cri', framed: false, stdout: true, stderr: false } as const;
    expect(frameLines(bytes, wish).toString()).toBe('a\n');
  });
});
