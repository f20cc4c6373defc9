import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { createRequest } from '#engine/api/docker/create.ts';
import { logsReply } from '#engine/api/docker/logs.ts';
import { joinStreams, parseDetachKeys } from '#engine/api/docker/streams.ts';
import { updateRequest } from '#engine/api/docker/update.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { plainRecord } from '#engine/core/fakes.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import { checkBody } from '#spec/docker/body.ts';
import { FrameReader } from '#spec/docker/frames.ts';

function attachedPair(tty: boolean, detachKeys = '') {
  const program = {
    stdin: new PassThrough(),
    stdout: new PassThrough(),
    stderr: new PassThrough(),
    detached: false,
    detach: () => undefined as void,
  };
  program.detach = () => {
    program.detached = true;
  };
  const connection = { input: new PassThrough(), output: new PassThrough() };
  const gone = new AbortController();
  const ended = joinStreams(
    connection,
    program,
    { stdin: true, stdout: true, stderr: true, tty, closeStdin: true, detachKeys },
    gone.signal,
  );
  return { program, connection, gone, ended };
}

/** What is on its way in streams in memory has arrived by then. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await new Promise((done) => setImmediate(done));
}

describe('attached streams', () => {
  it('carry output in frames and input as it comes, until the program ends', async () => {
    const { program, connection, ended } = attachedPair(false);
    program.stdout.write('out');
    program.stderr.write('err');
    connection.input.end('in');
    program.stdout.end();
    program.stderr.end();
    await expect(ended).resolves.toBe('ended');
    const frames = new FrameReader().push(connection.output.read() as Buffer);
    expect(frames.map((f) => [f.stream, f.payload.toString()]).sort()).toEqual([
      [1, 'out'],
      [2, 'err'],
    ]);
    expect(String(program.stdin.read())).toBe('in');
  });

  it('let go on the detach keys, which never reach the program', async () => {
    const { program, connection, ended } = attachedPair(true);
    connection.input.write('a\x10b');
    connection.input.write('\x10');
    connection.input.write('\x11rest');
    await expect(ended).resolves.toBe('detached');
    expect(program.detached).toBe(true);
    expect(String(program.stdin.read())).toBe('a\x10b');
  });

  it('let go when the client leaves', async () => {
    const { program, gone, ended } = attachedPair(false);
    gone.abort();
    await expect(ended).resolves.toBe('detached');
    expect(program.detached).toBe(true);
  });

  it('hold the program back while the client does not read', async () => {
    const { program, connection } = attachedPair(true);
    for (let i = 0; i < 100; i++) program.stdout.write(Buffer.alloc(4096));
    await settle();
    expect(connection.output.readableLength + connection.output.writableLength).toBeLessThan(100 * 4096);
  });

  it('know key sequences', () => {
    expect([...parseDetachKeys('')]).toEqual([16, 17]);
    expect([...parseDetachKeys('ctrl-@,a,ctrl-[')]).toEqual([0, 97, 27]);
    expect(() => parseDetachKeys('ctrl-1')).toThrow('detachKeys');
  });
});

describe('logs', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-api-logs-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'c.log');
  const line = (text: string, stream = 'stdout'): string =>
    `{"log":"${text}\\n","stream":"${stream}","time":"2026-01-01T00:00:00.5Z"}\n`;

  function record(phase: 'running' | 'exited', body: object = {}): ContainerRecord {
    const { spec } = createRequest(checkBody('ContainerCreate', { Image: 'x', Cmd: ['y'], ...body }));
    return plainRecord(spec, { phase });
  }

  /** Runs the reply until it ends; `during` gets each chunk of output as text. */
  async function logs(
    query: string,
    container: ContainerRecord,
    during: (text: string) => void = () => undefined,
  ): Promise<string> {
    const gone = new AbortController();
    const request = {
      id: 'ContainerLogs',
      params: {},
      query: new URLSearchParams(query),
      version: '1.41',
      headers: {},
      signal: gone.signal,
    } as unknown as ApiRequest;
    const reply = logsReply(request, container, { path, maxFiles: 3, record: () => container, now: () => 0 });
    if (reply.kind !== 'stream') throw new Error('no stream');
    const reader = new FrameReader();
    let text = '';
    await reply.run(
      {
        write: async (chunk) => {
          const more = container.spec.process.tty
            ? String(chunk)
            : reader
                .push(Buffer.from(chunk))
                .map((f) => `${f.stream}>${f.payload.toString()}`)
                .join('');
          text += more;
          during(more);
        },
      },
      gone.signal,
    );
    return text;
  }

  it('come in frames, with times where asked, or plain for a terminal', async () => {
    writeFileSync(path, line('one') + line('two', 'stderr'));
    expect(await logs('stdout=1&stderr=1', record('exited'))).toBe('1>one\n2>two\n');
    expect(await logs('stderr=1&timestamps=1', record('exited'))).toBe('2>2026-01-01T00:00:00.500000000Z two\n');
    expect(await logs('stdout=1&stderr=1&tail=1', record('exited', { Tty: true }))).toBe('two\n');
    await expect(async () => logs('', record('exited'))).rejects.toThrow('you must choose at least one stream');
  });

  it('are followed across the turn of the file until the container ends', async () => {
    writeFileSync(path, line('one'));
    const container = record('running');
    const seen = await logs('stdout=1&follow=1', container, (text) => {
      if (text.includes('one')) setTimeout(() => appendFileSync(path, line('two')), 10);
      if (text.includes('two')) {
        setTimeout(() => {
          appendFileSync(path, line('three'));
          renameSync(path, `${path}.1`);
          writeFileSync(path, line('four'));
        }, 10);
      }
      if (text.includes('four')) container.state = { ...container.state, phase: 'exited' };
    });
    expect(seen).toBe('1>one\n1>two\n1>three\n1>four\n');
  });
});

describe('updateRequest', () => {
  it('changes only what is set', () => {
    expect(updateRequest(checkBody('ContainerUpdate', { Memory: 1 << 26, CpuShares: 0 }))).toEqual({
      resources: { memoryBytes: 1 << 26 },
    });
    expect(updateRequest(checkBody('ContainerUpdate', { RestartPolicy: { Name: 'always' } }))).toEqual({
      resources: {},
      restart: { name: 'always', maxRetries: 0 },
    });
    expect(() => updateRequest(checkBody('ContainerUpdate', { RestartPolicy: { Name: 'never' } }))).toThrow(
      '$.RestartPolicy.Name',
    );
  });
});
