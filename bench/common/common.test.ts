import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ThinClient } from './thin-client.mjs';

const BENCH = join(import.meta.dirname, '..');
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'estiba-bench-common-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

describe('a benchmark’s command line', () => {
  it.each(readdirSync(BENCH).filter((name) => name.endsWith('.mjs')))('%s refuses what it does not know', (name) => {
    const args = [join(BENCH, name), '--nonsense'];
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env: { TMPDIR: dir } });
    expect(stderr).toMatch(/'--nonsense'.*\nusage: .*node bench\//s);
    expect(status).toBe(2);
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('a benchmark that ends', () => {
  it.each([
    ['by a signal', 'SIGTERM', 143],
    ['by an error', undefined, 1],
  ])('%s takes its processes and directories with it', async (_, signal, status) => {
    const script = join(dir, 'bench.mjs');
    writeFileSync(
      script,
      `import { spawn } from 'node:child_process';
      import { mkdtempSync } from 'node:fs';
      import { atEnd, takeBack } from '${join(BENCH, 'common/end.mjs')}';
      const made = mkdtempSync('${join(dir, 'made-')}');
      atEnd(() => takeBack({ dirs: [made] }));
      // One that does not hear of SIGTERM, as a daemon that hangs.
      const child = spawn('sh', ['-c', 'trap "" TERM; echo up; while :; do sleep 1; done', made], { detached: true });
      child.stdout.once('data', () => {
        console.log(JSON.stringify({ made, pid: child.pid }));
        ${signal ? '' : "throw new Error('this one');"}
      });`,
    );
    const bench = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'ignore'] });
    const [said] = (await once(bench.stdout, 'data')) as [Buffer];
    const { made, pid } = JSON.parse(said.toString()) as { made: string; pid: number };
    if (signal) bench.kill(signal as NodeJS.Signals);
    expect((await once(bench, 'exit'))[0]).toBe(status);
    expect(existsSync(made)).toBe(false);
    expect(commandOf(pid)).not.toContain(made);
  });
});

describe('the client of the benchmarks', () => {
  const listen = async (server: Server): Promise<ThinClient> => {
    const path = join(dir, `${Math.random()}.sock`);
    await once(server.listen(path), 'listening');
    return new ThinClient(path);
  };

  it('reads answers of a known length, in chunks and without a body over one connection, and says what it asks', async () => {
    let connections = 0;
    const server = createHttp((request, response) => {
      const said: Buffer[] = [];
      request.on('data', (chunk: Buffer) => said.push(chunk));
      request.on('end', () => {
        if (request.url === '/none') return response.writeHead(204).end();
        if (request.url === '/large') for (let i = 0; i < 40; i++) response.write('x'.repeat(99_991));
        if (request.url === '/chunks') response.write('a chunk, ');
        response.end(`${request.method} ${request.headers['content-type']} ${Buffer.concat(said)}`);
      });
    }).on('connection', () => connections++);
    const client = await listen(server);
    const json = 'application/json';
    expect(await client.ask('GET', '/length')).toEqual({ status: 200, size: 21, text: `GET ${json} ` });
    expect((await client.ask('POST', '/chunks', Buffer.from('{}'))).text).toBe(`a chunk, POST ${json} {}`);
    expect(await client.ask('DELETE', '/none')).toEqual({ status: 204, size: 0, text: '' });
    expect((await client.ask('GET', '/large')).size).toBe(40 * 99_991 + 21);
    expect(connections).toBe(1);
    client.close();
    server.close();
  });

  it.each([1, 7, 1000])(
    'reads answers that come %i bytes at a time, and one without a length to its end',
    async (step) => {
      const chunked =
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n00b\r\n0\r\n\r\nefghij\r\n0\r\nA: b\r\n\r\n';
      const endless = 'HTTP/1.1 200 OK\r\n\r\nabcd';
      const server = createServer((socket) => {
        socket.on('data', async (request) => {
          const answer = request.toString().startsWith('GET') ? chunked : endless;
          for (let at = 0; at < answer.length; at += step) {
            socket.write(answer.slice(at, at + step));
            await new Promise((next) => setImmediate(next));
          }
          if (answer === endless) socket.end();
        });
      });
      const client = await listen(server);
      expect((await client.ask('GET', '/')).text).toBe('abcd0\r\n\r\nefghij');
      expect((await client.ask('POST', '/')).text).toBe('abcd');
      client.close();
      server.close();
    },
  );

  it('says when the connection ends before the answer, or nobody listens', async () => {
    const server = createServer((socket) =>
      socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab')),
    );
    await expect((await listen(server)).ask('GET', '/cut')).rejects.toThrow(
      'GET /cut: the connection ended before the answer',
    );
    server.close();
    await expect(new ThinClient(join(dir, 'nobody')).ask('GET', '/')).rejects.toThrow('ENOENT');
  });
});

function commandOf(pid: number): string {
  const path = `/proc/${pid}/cmdline`;
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
