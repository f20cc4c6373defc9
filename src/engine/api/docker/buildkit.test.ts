import { createServer } from 'node:http2';
import { connect, createServer as createTcp, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import type { BuildGraph } from '#build/graph.ts';
import { type BuildKitLine, BuildKitProgress } from '#engine/api/docker/buildkit-progress.ts';
import { BuildSessions } from '#engine/api/docker/buildkit-session.ts';
import { bytesField, readFields, varintField } from '#engine/api/docker/buildkit-wire.ts';
import type { Reply } from '#engine/api/reply.ts';
import type { ApiRequest } from '#engine/api/server.ts';

describe("BuildKit's messages", () => {
  it('are read as they were written, whatever else stands between', () => {
    const message = Buffer.concat([
      bytesField(1, 'host'),
      varintField(3, 2 ** 40),
      bytesField(20, Buffer.alloc(300, 7)),
    ]);
    const fields = readFields(message);
    expect(fields.get(1)?.toString()).toBe('host');
    expect(fields.get(20)).toEqual(Buffer.alloc(300, 7));
    expect(readFields(message.subarray(0, 20)).get(20)).toBeUndefined();
  });

  it('tell steps that start, what they say, and what came of them', () => {
    const lines: BuildKitLine[] = [];
    const progress = new BuildKitProgress(
      (line) => lines.push(line),
      () => 1500,
    );
    progress.begin({ steps: [{ title: 'RUN true' }] } as unknown as BuildGraph);
    progress.take({ at: 'start', step: 0 });
    progress.take({ at: 'output', step: 0, stream: 'stderr', text: Buffer.from('said') });
    progress.take({ at: 'done', step: 0, tookMs: 1 });
    progress.built('sha256:abc');
    const [start, output, done, image] = lines;
    const part = (line: BuildKitLine | undefined, number: number): Map<number, Buffer> =>
      readFields(
        readFields(Buffer.from(line?.id === 'moby.buildkit.trace' ? line.aux : '', 'base64')).get(number) ??
          Buffer.alloc(0),
      );
    expect(part(start, 1).get(3)?.toString()).toBe('RUN true');
    expect(part(start, 1).has(6)).toBe(false);
    expect(part(output, 3).get(4)?.toString()).toBe('said');
    expect(part(done, 1).get(1)).toEqual(part(start, 1).get(1));
    expect(part(done, 1).has(6)).toBe(true);
    expect(image).toEqual({ id: 'moby.image.id', aux: { ID: 'sha256:abc' } });
  });
});

describe("a client's session", () => {
  it('is asked for credentials, and is gone when its client is', async () => {
    const asked: string[] = [];
    const client = createServer();
    client.on('stream', (stream, headers) => {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        asked.push(`${headers[':path']} ${readFields(Buffer.concat(chunks).subarray(5)).get(1)}`);
        const answer = Buffer.concat([bytesField(1, 'me'), bytesField(2, 'secret')]);
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, answer.length]), answer]));
      });
    });
    const [ours, theirs] = await connected();
    client.emit('connection', theirs); // the client serves on the connection that it opened
    const sessions = new BuildSessions();
    const headers = { 'x-docker-expose-session-uuid': 'u1' };
    const { signal } = new AbortController();
    const reply = sessions.open({ headers, signal } as unknown as ApiRequest);
    if (reply.kind !== 'hijack') throw new Error(reply.kind);
    const ended = reply.run({ input: ours, output: ours }, new AbortController().signal);
    expect(await sessions.credentials('u1', 'reg.example')).toEqual({ username: 'me', password: 'secret' });
    expect(asked).toEqual(['/moby.filesync.v1.Auth/Credentials reg.example']);
    theirs.destroy();
    await ended;
    await expect(sessions.credentials('u1', 'reg.example')).rejects.toThrow('is not open');
    client.close();
  });

  it('has its name from the request on, until its own client has left', async () => {
    const sessions = new BuildSessions();
    const ask = (): { reply: Reply; leave: AbortController } => {
      const leave = new AbortController();
      const headers = { 'x-docker-expose-session-uuid': 'u1' };
      return { reply: sessions.open({ headers, signal: leave.signal } as unknown as ApiRequest), leave };
    };
    const first = ask();
    expect(ask).toThrow('is not the name of a session of its own');
    first.leave.abort(); // before anything ran on its connection
    const second = ask();
    first.leave.abort();
    expect(ask).toThrow('is not the name of a session of its own');
    if (second.reply.kind !== 'hijack') throw new Error(second.reply.kind);
    const [ours, theirs] = await connected();
    const ended = second.reply.run({ input: ours, output: ours }, second.leave.signal);
    theirs.end('no HTTP/2 at all, which is an error of the session');
    await ended;
    ask();
  });
});

async function connected(): Promise<[Socket, Socket]> {
  const server = createTcp();
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as { port: number };
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const ours = connect(port, '127.0.0.1');
  const theirs = await accepted;
  server.close();
  return [ours, theirs];
}
