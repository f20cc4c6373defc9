import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { type AttachOptions, attachReply } from '#engine/api/docker/attach.ts';
import { createRequest } from '#engine/api/docker/create.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { FakeNode, FakeProcess, plainRecord } from '#engine/core/fakes.ts';
import type { Joiner } from '#engine/core/launch.ts';
import type { Attached } from '#engine/core/parts.ts';
import { checkBody } from '#spec/docker/body.ts';
import { FrameReader } from '#spec/docker/frames.ts';

const { spec } = createRequest(checkBody('ContainerCreate', { Image: 'x', Cmd: ['y'] }));
const CREATED = plainRecord(spec);

/** A container that was not started yet and, once `start` is called, says `late` and ends. */
function unstarted() {
  const joiners: Joiner[] = [];
  const never = (): never => expect.unreachable('it does not run');
  const containers: AttachOptions['containers'] = {
    find: () => CREATED,
    tell: () => undefined,
    running: never,
    onNextStart: (_id, join) => {
      joiners.push(join);
      return () => joiners.splice(0);
    },
  };
  let detached = 0;
  const start = async (): Promise<void> => {
    const process = new FakeProcess(new FakeNode());
    process.attach = async (): Promise<Attached> => {
      const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
      stdout.end('late');
      stderr.end();
      return { stdin, stdout, stderr, detach: () => void detached++ };
    };
    for (const join of joiners.splice(0)) await join(process);
  };
  return { containers, start, detached: () => detached };
}

async function attach(options: AttachOptions, signal: AbortSignal): Promise<string[]> {
  const query = new URLSearchParams('stdout=1&stream=1&logs=1');
  const reply = attachReply(options, { query, version: '1.41' } as ApiRequest, 'c');
  if (reply.kind !== 'hijack') throw new Error('no hijack');
  const output = new PassThrough();
  await reply.run({ input: new PassThrough(), output }, signal);
  return output.readableLength === 0 ? [] : new FrameReader().push(output.read() as Buffer).map((f) => `${f.payload}`);
}

describe('attach with logs', () => {
  it('misses nothing of a program that starts, speaks and ends while the past is told', async () => {
    const { containers, start } = unstarted();
    const past: AttachOptions['past'] = () => start();
    expect(await attach({ containers, past }, AbortSignal.timeout(5_000))).toEqual(['late']);
  });

  it('gives its place back when the past cannot be told', async () => {
    const { containers, start, detached } = unstarted();
    const past: AttachOptions['past'] = async () => {
      await start();
      throw new Error('no such file');
    };
    await expect(attach({ containers, past }, AbortSignal.timeout(5_000))).rejects.toThrow('no such file');
    expect(detached()).toBe(1);
  });
});
