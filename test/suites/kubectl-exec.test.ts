import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerTarget, ExecOptions, ExecSession, NodeProxy } from '#cluster/api/node-proxy.ts';
import { kubectl120, NEWEST, Room } from './kubectl/room.ts';

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
  portForward: async (target, port) => {
    if (port === 81) throw new Error('connection refused');
    asked.push({ target: { ...target, container: '' }, options: { port } });
    return connect(echoPort, '127.0.0.1');
  },
};

let echoPort = 0;

describe.each([
  ['the newest kubectl, over WebSocket', async () => NEWEST],
  ['kubectl 1.20, over SPDY', kubectl120],
])('logs, exec, attach and port-forward reach the node: %s', (_, binary) => {
  let room: Room;
  let echo: Server;
  beforeAll(async () => {
    // What comes in goes out again, and the connection ends when the client's half does.
    echo = createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => 0).pipe(socket));
    await new Promise<void>((done) => echo.listen(0, '127.0.0.1', done));
    echoPort = (echo.address() as AddressInfo).port;
    room = await Room.open(await binary(), nodes);
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
    const set = await room.patch('/api/v1/namespaces/default/pods/p/status', { status });
    expect(set).toBe(200);
  });
  afterAll(async () => {
    await room.close();
    echo.close();
  });

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

  it('a command that ends at once says so to a client with a terminal too', async () => {
    // An old one also tells that nobody took its terminal's size any more.
    const said = await room.kubectlAtTerminal('exec -it p -c a -- echo brief');
    expect(said).toEqual({ code: 0, text: expect.stringMatching(/^brief$/m) });
  });

  it('a megabyte goes there and comes back', async () => {
    const big = 'x'.repeat(1_000_000);
    const { code, text } = await room.kubectl('exec -i p -c a -- cat', { stdin: big });
    expect([code, text.length]).toEqual([0, big.length]);
  });

  it('attach shows what the container writes', async () => {
    expect((await room.kubectl('attach p -c a')).text).toContain('attached');
  });

  it('port-forward carries bytes both ways, and says why it cannot', async () => {
    const forwarded = room.spawn(['port-forward', 'pod/p', ':80', ':81']);
    let text = '';
    forwarded.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    forwarded.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await expect.poll(() => [...text.matchAll(/127\.0\.0\.1:(\d+) -> (\d+)/g)].length, { timeout: 15_000 }).toBe(2);
    const portOf = (remote: string): number =>
      Number([...text.matchAll(/127\.0\.0\.1:(\d+) -> (\d+)/g)].find((m) => m[2] === remote)?.[1]);
    const big = Buffer.alloc(2 << 20, 'estiba');
    const [one, two] = await Promise.all([through(portOf('80'), big), through(portOf('80'), Buffer.from('hi'))]);
    expect([one.length, two.toString()]).toEqual([big.length, 'hi']);
    expect(await through(portOf('81'), Buffer.from('x')).catch(() => 'cut')).toSatisfy(
      (v) => v === 'cut' || String(v) === '',
    );
    await expect.poll(() => text, { timeout: 5_000 }).toContain('connection refused');
    forwarded.kill('SIGTERM');
    expect(asked.at(-1)).toMatchObject({ target: { node: 'n1', pod: 'p' }, options: { port: 80 } });
  });

  it('who may not is told so', async () => {
    expect((await room.kubectl('exec p -c a --as=eve -- true')).text).toContain('User "eve" cannot');
  });
});

/** What comes back from a port until it ends, when all of `bytes` has gone in. */
function through(port: number, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = connect(port, '127.0.0.1', () => socket.end(bytes));
    socket.on('data', (part: Buffer) => parts.push(part));
    socket.on('error', reject);
    socket.on('end', () => resolve(Buffer.concat(parts)));
  });
}
