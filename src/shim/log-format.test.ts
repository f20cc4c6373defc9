import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

// The log writer is C; what it must write is said here a second time, plainly, and both are fed the same bytes.
const native = join(import.meta.dirname, '../../native');
const directory = mkdtempSync(join(tmpdir(), 'estiba-log-'));
const program = join(directory, 'log');
const LOG_LINE = 16 * 1024;

interface Chunk {
  stream: 0 | 1;
  data: Buffer;
}

interface Line {
  stream: 'stdout' | 'stderr';
  data: Buffer;
  /** F, or P for a piece of a line that was too long. */
  whole: boolean;
  newline: boolean;
}

beforeAll(() => {
  const sources = ['test/log.c', 'log.c', 'sys.c'].map((file) => join(native, file));
  execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-Werror', '-fsanitize=address,undefined', '-o', program, ...sources]);
});
afterAll(() => rmSync(directory, { recursive: true }));

function write(format: 'cri' | 'json', chunks: Chunk[], maxBytes = 0, maxFiles = 1): Buffer[] {
  const path = join(directory, 'c.log');
  for (const file of readdirSync(directory)) if (file.startsWith('c.log')) rmSync(join(directory, file));
  const input = Buffer.concat(chunks.flatMap((c) => [Buffer.from(`${c.stream} ${c.data.length}\n`), c.data]));
  const run = spawnSync(program, [format, path, String(maxBytes), String(maxFiles)], { input });
  expect(run.stderr.toString()).toBe('');
  expect(run.status).toBe(0);
  const names = readdirSync(directory)
    .filter((f) => f.startsWith('c.log'))
    .sort();
  return names.map((name) => readFileSync(join(directory, name)));
}

/** Lines in the order in which they are complete; what has not ended comes last. */
function model(chunks: Chunk[]): Line[] {
  const lines: Line[] = [];
  const rest: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
  const name = (stream: 0 | 1): Line['stream'] => (stream === 0 ? 'stdout' : 'stderr');
  for (const { stream, data } of chunks) {
    let left = Buffer.concat([rest[stream], data]);
    for (;;) {
      const at = left.subarray(0, LOG_LINE).indexOf(10);
      if (at >= 0) {
        lines.push({ stream: name(stream), data: left.subarray(0, at), whole: true, newline: true });
        left = left.subarray(at + 1);
      } else if (left.length >= LOG_LINE) {
        const cut = LOG_LINE - unfinished(left.subarray(0, LOG_LINE));
        lines.push({ stream: name(stream), data: left.subarray(0, cut), whole: false, newline: false });
        left = left.subarray(cut);
      } else break;
    }
    rest[stream] = left;
  }
  for (const stream of [0, 1] as const) {
    if (rest[stream].length > 0) lines.push({ stream: name(stream), data: rest[stream], whole: true, newline: false });
  }
  return lines;
}

function unfinished(bytes: Buffer): number {
  for (let back = 1; back <= 3; back++) {
    const c = bytes[bytes.length - back] ?? 0;
    if ((c & 0xc0) === 0x80) continue;
    const needs = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xc2 && c <= 0xdf ? 2 : 1;
    return back < needs ? back : 0;
  }
  return 0;
}

/** Go's encoding/json: one U+FFFD for each byte that is no UTF-8. */
function goString(bytes: Buffer): string {
  let out = '';
  for (let i = 0; i < bytes.length; ) {
    const size = [1, 2, 3, 4].find((n) => i + n <= bytes.length && isCharacter(bytes.subarray(i, i + n)));
    const c = size === undefined ? '\ufffd' : bytes.subarray(i, i + size).toString('utf8');
    i += size ?? 1;
    if (size === undefined) out += '\\ufffd';
    else if (c === '"' || c === '\\') out += `\\${c}`;
    else if (c === '\n') out += '\\n';
    else if (c === '\r') out += '\\r';
    else if (c < ' ' || '<>&\u2028\u2029'.includes(c)) out += `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
    else out += c;
  }
  return out;
}

function isCharacter(bytes: Buffer): boolean {
  try {
    return [...new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)].length === 1;
  } catch {
    return false;
  }
}

const STAMP = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(?:\\.\\d{0,8}[1-9])?Z';

/** Plain text is looked at sixteen bytes at a time: what is not plain stands at every place of those. */
const mostlyPlain = fc
  .array(
    fc.tuple(fc.nat(40), fc.constantFrom(0, 1, 9, 10, 0x1f, 0x20, 0x22, 0x26, 0x3c, 0x3e, 0x5c, 0x7f, 0x80, 0xff)),
    {
      maxLength: 4,
    },
  )
  .map((parts) => Uint8Array.from(parts.flatMap(([n, c]) => [...new Array<number>(n).fill(0x78), c])));
const bytes = fc.oneof(
  mostlyPlain,
  fc.uint8Array({ maxLength: 60 }),
  fc.string({ unit: 'binary', maxLength: 30 }).map((s) => new Uint8Array(Buffer.from(s))),
  fc
    .constantFrom(
      '\n',
      'a\n',
      '<&>"\\\t\r\n',
      '\u2028é€😀',
      'é'.repeat(9_000),
      `${'x'.repeat(LOG_LINE - 1)}€€`,
      `${'y'.repeat(3 * LOG_LINE)}\n`,
    )
    .map((s) => new Uint8Array(Buffer.from(s))),
);
const someChunks = fc.array(
  fc.record({ stream: fc.constantFrom<0 | 1>(0, 1), data: bytes.map((b) => Buffer.from(b)) }),
  { maxLength: 12 },
);

describe('container logs', () => {
  it('in CRI form hold every byte, cut at newlines and at 16 KiB, never inside a character', () => {
    fc.assert(
      fc.property(someChunks, (chunks) => {
        const [file = Buffer.alloc(0)] = write('cri', chunks);
        const expected = model(chunks);
        const head = new RegExp(`^${STAMP} (stdout|stderr) ([FP]) `);
        let at = 0;
        for (const line of expected) {
          const match = head.exec(file.subarray(at, at + 64).toString('latin1'));
          expect([match?.[1], match?.[2]]).toEqual([line.stream, line.whole ? 'F' : 'P']);
          const from = at + (match?.[0].length ?? 0);
          expect(file.subarray(from, from + line.data.length).equals(line.data)).toBe(true);
          expect(file[from + line.data.length]).toBe(10);
          at = from + line.data.length + 1;
        }
        expect(at).toBe(file.length);
      }),
      { numRuns: 60 },
    );
  });

  it("in Docker's JSON form are escaped byte for byte as Go does", () => {
    fc.assert(
      fc.property(someChunks, (chunks) => {
        const [file = Buffer.alloc(0)] = write('json', chunks);
        const lines = file.toString('utf8').split('\n').slice(0, -1);
        const expected = model(chunks);
        expect(lines).toHaveLength(expected.length);
        for (const [i, line] of expected.entries()) {
          const log = `${goString(line.data)}${line.newline ? '\\n' : ''}`;
          expect(lines[i]?.replace(new RegExp(STAMP), 'T')).toBe(
            `{"log":"${log}","stream":"${line.stream}","time":"T"}`,
          );
        }
      }),
      { numRuns: 60 },
    );
  });

  it('turn over at their size, between lines, and keep the youngest files', () => {
    const chunks: Chunk[] = Array.from({ length: 50 }, (_, i) => ({
      stream: 0,
      data: Buffer.from(`line ${String(i).padStart(2, '0')}\n`),
    }));
    const files = write('json', chunks, 400, 3);
    expect(files).toHaveLength(3);
    for (const file of files) expect(file.length).toBeLessThanOrEqual(400);
    const kept = [...files]
      .reverse()
      .flatMap((f) => f.toString().trim().split('\n'))
      .map((l) => JSON.parse(l).log.trim());
    expect(kept).toEqual(chunks.map((c) => c.data.toString().trim()).slice(-kept.length));
    expect(write('cri', chunks, 400, 1)).toHaveLength(1);
  });
});
