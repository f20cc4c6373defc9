import { PassThrough, Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerTarget, ExecOptions, ExecSession, NodeProxy } from '#cluster/api/node-proxy.ts';
import { NEWEST, Room } from './kubectl/room.ts';

/** A node that plays three commands: `cat` (stdin back), `false` (exit code 3), `size` (the terminal's size). */
function session(options: Omit<ExecOptions, 'command'> & { command?: readonly string[] }): ExecSession {
  const stdin = options.stdin ? new PassThrough() : undefined;
  const [name = 'cat', ...rest] = options.command ?? [];
  if (name === 'false')
    return {
      stdin,
      stdout: Readable.from([]),
      stderr: Readable.from(['no\n']),
      resize: () => undefined,
      exited: Promise.resolve(3),
      close: () => undefined,
    };
  if (name === 'echo')
    return {
      stdin,
      stdout: Readable.from([Buffer.from(`${rest.join(' ')}\n`)]),
      stderr: undefined,
      resize: () => undefined,
      exited: Promise.resolve(0),
      close: () => undefined,
    };
  const exited = new Promise<number>((done) => stdin?.once('end', () => done(0)));
  return { stdin, stdout: stdin, stderr: undefined, resize: () => undefined, exited, close: () => stdin?.destroy() };
}

const asked: { target: ContainerTarget; options: object }[] = [];
const nodes: NodeProxy = {
  logs: async (target, options) => {
    asked.push({ target, options });
    return Readable.from(['line 1\n', 'line 2\n']);
  },
  exec: async (target, options) => {
    asked.push({ target, options });
    return session(options);
  },
  attach: async (_, options) => session({ ...options, command: ['echo', 'attached'] }),
  portForward: () => Promise.reject(new Error('not played here')),
};

describe('logs, exec and attach reach the node', () => {
  let room: Room;
  beforeAll(async () => {
    room = await Room.open(NEWEST, nodes);
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'p' },
      spec: {
        nodeName: 'n1',
        containers: [
          { name: 'a', image: 'b' },
          { name: 'c', image: 'b' },
        ],
      },
    };
    await room.kubectl('apply -f -', { stdin: JSON.stringify(pod) });
    const status = {
      phase: 'Running',
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: ['a', 'c'].map((name) => ({
        name,
        image: 'b',
        imageID: '',
        ready: true,
        restartCount: 0,
        state: { running: {} },
      })),
    };
    await room.kubectl(`patch pod p --subresource=status --type=merge -p '${JSON.stringify({ status })}'`);
  });
  afterAll(() => room.close());

  it('logs come as the node gives them', async () => {
    expect(await room.kubectl('logs p -c a --tail=2 --timestamps')).toEqual({ code: 0, text: 'line 1\nline 2\n' });
    expect(asked.at(-1)).toMatchObject({
      target: { node: 'n1', pod: 'p', container: 'a' },
      options: { tailLines: 2, timestamps: true, follow: false },
    });
    expect((await room.kubectl('logs p -c none')).text).toContain('container none is not valid for pod p');
  });

  it('a command gets its arguments, its input and its exit code', async () => {
    expect(await room.kubectl('exec p -c c -- echo "a b" c')).toEqual({ code: 0, text: 'a b c\n' });
    expect(asked.at(-1)).toMatchObject({
      target: { container: 'c' },
      options: { command: ['echo', 'a b', 'c'], stdin: false, tty: false },
    });
    expect(await room.kubectl('exec -i p -c a -- cat', { stdin: 'through and back' })).toEqual({
      code: 0,
      text: 'through and back',
    });
    expect(await room.kubectl('exec p -c a -- false')).toEqual({
      code: 3,
      text: 'no\ncommand terminated with exit code 3\n',
    });
  });

  it('a megabyte goes there and comes back', async () => {
    const big = 'x'.repeat(1_000_000);
    const { code, text } = await room.kubectl('exec -i p -c a -- cat', { stdin: big });
    expect([code, text.length]).toEqual([0, big.length]);
  });

  it('attach shows what the container writes', async () => {
    expect((await room.kubectl('attach p -c a')).text).toContain('attached');
  });

  it('who may not is told so', async () => {
    expect((await room.kubectl('exec p -c a --as=eve -- true')).text).toContain('User "eve" cannot');
  });
});
