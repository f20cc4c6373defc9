import { fail } from '#base/shape.ts';
import { parseDurationNs } from '#base/units.ts';
import { detailsOf } from '#engine/api/docker/log-details.ts';
import { frameLines } from '#engine/api/docker/log-frames.ts';
import { flag, textOf } from '#engine/api/docker/query.ts';
import { parseTime } from '#engine/api/docker/time.ts';
import { NotSupported } from '#engine/api/errors.ts';
import type { Reply } from '#engine/api/reply.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import { followLogs, type LogSource } from '#engine/core/log-follow.ts';
import { type LogFormat, type LogLine, type LogWish, readLogBytes, readLogs } from '#engine/core/log-reader.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import { frameHeader, MULTIPLEXED_STREAM, RAW_STREAM, STDERR, STDOUT } from '#spec/docker/frames.ts';

/** `GET /containers/{id}/logs`: straight from the shim's files, whole batches at a time. */
export function logsReply(request: ApiRequest, record: ContainerRecord, source: LogSource): Reply {
  const { query } = request;
  const { driver } = record.spec.logging;
  if (driver === 'none')
    throw new NotSupported({
      what: 'reading the logs of a container with logging driver none',
      instead: 'it keeps no logs; run it with json-file or local',
    });
  const { tty } = record.spec.process;
  const wish = logWish(query, source.now());
  if (!wish.stdout && !wish.stderr)
    fail('query stdout', null, 'and stderr are both off: you must choose at least one stream');
  const details = flag(query, 'details') ? detailsOf(record) : '';
  const print = printer({ tty, timestamps: flag(query, 'timestamps'), details });
  const format: LogFormat = driver === 'local' ? 'cri' : 'json';
  return {
    kind: 'stream',
    status: 200,
    type: tty || compareVersions(request.version, '1.42') < 0 ? RAW_STREAM : MULTIPLEXED_STREAM,
    run: async (out, signal) => {
      const put = (lines: LogLine[]): Promise<void> => out.write(print(lines));
      const { stdout, stderr } = wish;
      const isPlain = !wish.since && !wish.until && !flag(query, 'timestamps') && details === '';
      const place = isPlain
        ? await readLogBytes(source, wish.tail, (bytes) =>
            out.write(frameLines(bytes, { format, stdout, stderr, framed: !tty })),
          )
        : await readLogs(source, format, wish, put);
      if (flag(query, 'follow')) await followLogs(source, format, withoutTail(wish), put, signal, place);
    },
  };
}

/** What the program said until now, as an attached client reads it (`logs=1` of attach). */
export async function pastOutput(
  record: ContainerRecord,
  source: Pick<LogSource, 'path' | 'maxFiles' | 'now'>,
  wish: { stdout: boolean; stderr: boolean; framed: boolean },
  write: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const { driver } = record.spec.logging;
  if (driver === 'none') return;
  const print = printer({ tty: !wish.framed, timestamps: false, details: '' });
  const until = new Date(source.now()); // what comes later is in the stream
  await readLogs(source, driver === 'local' ? 'cri' : 'json', { ...wish, until }, (lines) => write(print(lines)));
}

function logWish(query: URLSearchParams, nowMs: number): LogWish {
  const time = (name: string): Date | undefined => {
    const text = textOf(query, name);
    if (text === undefined || text === '0') return undefined;
    const ms = parseTime(text, nowMs, parseDurationNs);
    return ms === undefined
      ? fail(`query ${name}`, text, 'is no time: write RFC 3339, seconds since 1970, or a duration')
      : new Date(ms);
  };
  const tail = query.get('tail');
  const count = tail === null || tail === '' || tail === 'all' ? undefined : Number(tail);
  const since = time('since');
  const until = time('until');
  return {
    stdout: flag(query, 'stdout'),
    stderr: flag(query, 'stderr'),
    ...(since ? { since } : {}),
    ...(until ? { until } : {}),
    // Docker takes a tail that is no number, or below zero, for all.
    ...(count === undefined || !Number.isInteger(count) || count < 0 ? {} : { tail: count }),
  };
}

function withoutTail({ tail: _tail, ...rest }: LogWish): LogWish {
  return rest;
}

function printer(how: { tty: boolean; timestamps: boolean; details: string }): (lines: LogLine[]) => Buffer {
  return (lines) => {
    const parts: Buffer[] = [];
    for (const line of lines) {
      const head = Buffer.from(`${how.timestamps ? `${padTime(line.time)} ` : ''}${how.details}`);
      if (!how.tty) parts.push(frameHeader(line.stream === 'stdout' ? STDOUT : STDERR, head.length + line.text.length));
      if (head.length > 0) parts.push(head);
      parts.push(line.text);
    }
    return Buffer.concat(parts);
  };
}

/** Docker's clients print all nine digits. */
function padTime(time: string): string {
  const [, whole = time, fraction = ''] = /^([^.Z]+)(?:\.(\d+))?Z$/.exec(time) ?? [];
  return `${whole}.${fraction.padEnd(9, '0')}Z`;
}
