import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dialIn } from '#kernel/netlink/dial.ts';

const PORT = 18_431;

/** What comes back until the other side ends, when all of `bytes` has gone in. */
async function through(netns: string, bytes: Buffer, addresses = ['127.0.0.1', '::1']): Promise<Buffer> {
  const stream = await dialIn(netns, PORT, addresses);
  stream.end(bytes);
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

describe('a connection made inside a network namespace', () => {
  const programs: ChildProcess[] = [];
  const netnsOf = new Map<string, string>();

  const listen = async (host: string): Promise<void> => {
    const echo = `require('net').createServer({ allowHalfOpen: true }, (s) => s.on('error', () => 0).pipe(s)).listen(${PORT}, '${host}', () => console.log('up'))`;
    const script = `ip link set lo up && exec ${process.execPath} -e "${echo}"`;
    const program = spawn('unshare', ['-n', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    programs.push(program);
    await new Promise((resolve) => program.stdout?.once('data', resolve));
    netnsOf.set(host, `/proc/${program.pid}/ns/net`);
  };

  beforeAll(async () => {
    await listen('127.0.0.1');
    await listen('::1');
  });
  afterAll(() => {
    for (const program of programs) program.kill('SIGKILL');
  });

  it.each(['127.0.0.1', '::1'])(
    'reaches what listens on %s alone, with more bytes each way than buffers hold',
    async (host) => {
      const bytes = Buffer.alloc(8 << 20, 'estiba');
      expect((await through(netnsOf.get(host) ?? '', bytes)).equals(bytes)).toBe(true);
    },
  );

  it('says how each address answered when none takes it', async () => {
    const here = netnsOf.get('127.0.0.1') ?? '';
    await expect(dialIn(here, PORT + 1, ['127.0.0.1', '::1'])).rejects.toThrow(
      `connect to port ${PORT + 1}: dial tcp 127.0.0.1 port ${PORT + 1}: Connection refused; dial tcp ::1 port`,
    );
    await expect(dialIn('/nowhere', PORT, ['127.0.0.1'])).rejects.toThrow('network namespace /nowhere: No such file');
  });

  const helpers = (port: number): string =>
    execFileSync('sh', ['-c', `pgrep -f "estiba-net [d]ial .* ${port} " || true`], { encoding: 'utf8' });

  it('leaves no process behind when it is given up', async () => {
    const stream = await dialIn(netnsOf.get('127.0.0.1') ?? '', PORT, ['127.0.0.1']);
    stream.destroy();
    await expect.poll(() => helpers(PORT), { timeout: 10_000 }).toBe('');
  });

  it('that nobody answers is given up with its caller, and within a bound by itself', async () => {
    const silent = PORT + 2;
    const here = netnsOf.get('127.0.0.1') ?? '';
    const rules = `table inet silent { chain input { type filter hook input priority 0; tcp dport ${silent} drop; }; }`;
    execFileSync('nsenter', [`--net=${here}`, 'nft', rules]);
    const startMs = performance.now();
    const byItself = dialIn(here, silent, ['127.0.0.1']);
    byItself.catch(() => undefined); // awaited below
    const caller = new AbortController();
    const withCaller = dialIn(here, silent, ['127.0.0.1'], caller.signal);
    await expect.poll(() => helpers(silent).trim().split('\n').length).toBe(2);
    caller.abort(new Error('the client has gone'));
    await expect(withCaller).rejects.toThrow('the client has gone');
    await expect.poll(() => helpers(silent).trim().split('\n').length).toBe(1);
    await expect(dialIn(here, silent, ['127.0.0.1'], caller.signal)).rejects.toThrow('the client has gone');
    await expect(byItself).rejects.toThrow(/timed out/);
    expect(performance.now() - startMs).toBeLessThan(60_000); // the kernel alone: 130 s
    expect(helpers(silent)).toBe('');
  });
});
