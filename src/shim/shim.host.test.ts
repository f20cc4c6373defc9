import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findExecutor } from '#kernel/plan/execute.ts';
import { busyboxRoot, type Handmade, handmadeExec, handmadePlan } from '#kernel/plan/handmade.ts';
import { readExecExit, Shim, type ShimOptions } from '#shim/shim.ts';
import { Spawner } from '#shim/spawner.ts';
import { processStartTime, readShimState } from '#shim/state.ts';

const root = busyboxRoot('shim');
const socket = join(root.dir, 'spawner.sock');
let spawner: Spawner;
let made = 0;

beforeAll(async () => {
  spawner = await Spawner.start(socket);
});
afterAll(async () => {
  await spawner.quit();
  root.remove();
});

function freshDir(): string {
  const dir = join(root.dir, `c${made++}`);
  mkdirSync(dir);
  return dir;
}

async function create(
  argv: readonly string[],
  options: Partial<ShimOptions> = {},
  more: Partial<Handmade> = {},
): Promise<Shim> {
  const plan = handmadePlan({ rootfs: root.rootfs, argv, awaitStart: true, ...more });
  return spawner.create(plan, { dir: freshDir(), ...options });
}

const sh = (script: string): readonly string[] => ['sh', '-c', script];

async function text(stream: Readable): Promise<string> {
  let all = '';
  for await (const chunk of stream) all += chunk;
  return all;
}

describe('a container and its shim', () => {
  it('is created, started and waited for; the exit status is on disk', async () => {
    const shim = await create(sh('exit 3'));
    expect((await readShimState(shim.dir)).initPid).toBe(shim.pid);
    await shim.start();
    expect(await shim.wait()).toMatchObject({ code: 3, oomKilled: false });
    expect(readFileSync(join(shim.dir, 'exit'), 'utf8')).toMatch(/^768 0 \d{19}\n$/);
  });

  it('gives stdout and stderr apart, from the first byte, and stdin', async () => {
    const shim = await create(sh('read x; echo out $x; echo err >&2; ls -l /proc/self/fd/1 | grep -c pipe'), {
      stdin: true,
    });
    const attached = await shim.attach({ stdin: true });
    const [out, err] = [text(attached.stdout), text(attached.stderr)];
    await shim.start();
    await attached.write(Buffer.from('hello\n'));
    expect(await out).toBe('out hello\n1\n');
    expect(await err).toBe('err\n');
    expect((await attached.wait()).code).toBe(0);
  });

  it('closes stdin when told to', async () => {
    const shim = await create(['cat'], { stdin: true });
    const attached = await shim.attach({ stdin: true });
    await shim.start();
    const big = Buffer.alloc(3 << 20, 'abcdefgh');
    const out = text(attached.stdout);
    await attached.write(big);
    attached.end();
    expect((await out).length).toBe(big.length);
    expect((await shim.wait()).code).toBe(0);
  });

  it('makes the program wait while an attached reader does not read', async () => {
    const shim = await create(sh('dd if=/dev/zero bs=1024 count=8192 2>/dev/null; echo done > /tmp/done'));
    const attached = await shim.attach();
    await shim.start();
    await until(() => childrenOf(shim.pid).some((pid) => nameOf(pid) === 'dd' && waitsIn(pid, 'pipe_write')));
    expect(existsSync(join(root.rootfs, 'tmp/done'))).toBe(false);
    expect((await text(attached.stdout)).length).toBe(8 << 20);
    await shim.wait();
    expect(existsSync(join(root.rootfs, 'tmp/done'))).toBe(true);
    rmSync(join(root.rootfs, 'tmp/done'));
  });

  it('has a terminal with a size that can change', async () => {
    const script = 'tty; stty size; trap "stty size; exit 0" WINCH; echo ready; while true; do sleep 0.05; done';
    const shim = await create(sh(script), { terminal: true, stdin: true }, { terminal: { rows: 24, cols: 80 } });
    const attached = await shim.attach({ stdin: true, terminal: true });
    let seen = '';
    attached.stdout.on('data', (chunk) => {
      seen += chunk;
    });
    await shim.start();
    await until(() => seen.includes('ready'));
    await shim.resize({ rows: 50, cols: 132 });
    expect((await shim.wait()).code).toBe(0);
    expect(seen.split('\r\n')).toEqual(['/dev/pts/0', '24 80', 'ready', '50 132', '']);
  });

  it('passes signals on and reports the one that ended the process', async () => {
    const shim = await create(sh('trap "exit 42" TERM; echo ready; while true; do sleep 0.05; done'));
    const attached = await shim.attach();
    const ready = once(attached.stdout, 'data');
    await shim.start();
    await ready;
    await shim.signal(15);
    expect(await shim.wait()).toMatchObject({ code: 42 });
    const killed = await create(['sleep', '60']);
    await killed.start();
    await killed.signal(9);
    expect(await killed.wait()).toMatchObject({ code: 137, signal: 'SIGKILL' });
    await killed.signal(9); // too late: the shim is gone with the container's end
  });

  it('runs further processes in the container and keeps their exit codes', async () => {
    const shim = await create(['sleep', '60']);
    await shim.start();
    const plain = await shim.exec(
      handmadeExec(shim.pid, sh('hostname; until ps -o comm | grep -q sleep; do usleep 1000; done; echo 1; exit 5')),
      {
        name: 'one',
      },
    );
    expect(await text(plain.stdout)).toBe('handmade\n1\n');
    expect((await plain.wait()).code).toBe(5);
    expect((await readExecExit(shim.dir, 'one'))?.code).toBe(5);
    const size = { rows: 10, cols: 20 };
    const tty = await shim.exec(handmadeExec(shim.pid, sh('tty; stty size'), { terminal: size }), {
      name: 'two',
      terminal: true,
    });
    expect(await text(tty.stdout)).toBe('/dev/pts/0\r\n10 20\r\n');
    await expect(shim.exec(handmadeExec(shim.pid, ['nonesuch']), { name: 'three' })).rejects.toMatchObject({
      data: { errno: 'ENOENT', detail: 'exec: "nonesuch": executable file not found in $PATH' },
    });
    await shim.shutdown();
    expect(await shim.wait()).toMatchObject({ code: 137 });
    expect(existsSync(join(shim.dir, 'shim.sock'))).toBe(false);
  });

  it('runs one exec after another over one connection; what was said for one that has ended reaches no other', async () => {
    const shim = await create(['sleep', '60']);
    await shim.start();
    const { pid = 0 } = await readShimState(shim.dir);
    const sockets = (): string[] =>
      readdirSync(`/proc/${pid}/fd`)
        .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
        .filter((target) => target.startsWith('socket:'));
    const exec = (name: string, argv: readonly string[]) =>
      shim.exec(handmadeExec(shim.pid, argv), { name, stdin: true });

    const first = await exec('first', ['true']);
    await first.wait();
    const open = sockets();
    const second = await exec('second', ['cat']);
    expect(sockets()).toEqual(open);
    await first.write(Buffer.from('too late\n'));
    first.end();
    first.close();
    await expect(first.signal(9)).rejects.toMatchObject({ code: 'CONNECTION_LOST' });
    await second.write(Buffer.from('in time\n'));
    second.end();
    expect(await text(second.stdout)).toBe('in time\n');
    expect((await second.wait()).code).toBe(0);

    // It leaves more input behind than its pipe holds: the next one must not wait for that.
    const deaf = await exec('deaf', sh('exit 7'));
    await deaf.write(Buffer.alloc(1 << 20, 'x'));
    expect((await deaf.wait()).code).toBe(7);
    const last = await exec('last', ['cat']);
    last.end();
    expect(await text(last.stdout)).toBe('');
    expect((await last.wait()).code).toBe(0);
    await shim.shutdown();
  });

  it('tells that the kernel killed for memory', async () => {
    const oomCgroup = `/sys/fs/cgroup/memory/estiba-shim-${process.pid}`;
    mkdirSync(oomCgroup);
    writeFileSync(join(oomCgroup, 'memory.limit_in_bytes'), String(8 << 20));
    try {
      const join_ = { op: 'joinCgroup', where: 'init', because: 'test', path: oomCgroup, slot: 0xffff_ffff } as const;
      // tail keeps a line without an end in memory.
      const shim = await create(sh('tail -n 1 /dev/zero'), { oomCgroup }, { before: [join_] });
      const told = new Promise<void>((done) => {
        shim.onOom = done;
      });
      await shim.start();
      expect(await shim.wait()).toMatchObject({ oomKilled: true });
      await told;
    } finally {
      await spawner.run({ steps: [{ op: 'removeCgroup', where: 'host', because: 'test', path: oomCgroup }] });
    }
  });

  it('refuses a plan that fails and leaves no trace of it', async () => {
    const dir = freshDir();
    const plan = handmadePlan({ rootfs: root.rootfs, argv: ['nonesuch'], awaitStart: true });
    await expect(spawner.create(plan, { dir })).rejects.toThrow('executable file not found');
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('the spawner', () => {
  it('runs the daemon’s own steps and takes them back when one fails', async () => {
    const dir = join(root.dir, 'steps');
    const mkdir = (path: string) =>
      ({
        op: 'mkdir',
        where: 'host',
        because: 'test',
        path,
        mode: 0o755,
        flags: 0,
        undo: [{ op: 'rmdir', path }],
      }) as const;
    await spawner.run({ steps: [mkdir(dir)] });
    expect(existsSync(dir)).toBe(true);
    await expect(spawner.run({ steps: [mkdir(join(dir, 'a')), mkdir(join(dir, 'no/such'))] })).rejects.toThrow(
      /step 2 of 2, mkdir .*: ENOENT/,
    );
    expect(readdirSync(dir)).toEqual([]);
  });

  it('answers many requests at once, each with its own', async () => {
    const plan = (n: number) => handmadePlan({ rootfs: root.rootfs, argv: sh(`exit ${n}`), wait: true });
    const results = await Promise.all(Array.from({ length: 20 }, (_, n) => spawner.run(plan(n))));
    expect(results.map((r) => r.exited?.code)).toEqual(Array.from({ length: 20 }, (_, n) => n));
  });
});

describe('logs', () => {
  const LINES = 200_000;
  const print = `seq 1 ${LINES} | while read i; do echo "line $i of a log that is about one hundred bytes long, give or take, said the carpenter"; done`;

  it('are exact under 20 MB of output, in CRI’s form', async () => {
    const path = join(root.dir, 'cri.log');
    const shim = await create(sh(print), { log: { driver: 'cri', path } });
    await shim.start();
    await shim.wait();
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    expect(lines).toHaveLength(LINES);
    const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z stdout F line (\d+) of a log .* carpenter$/;
    expect(lines.findIndex((line, i) => form.exec(line)?.[2] !== String(i + 1))).toBe(-1);
  });

  it('that flow are read once a millisecond or a full pipe at a time, not at each of the program’s writes', async () => {
    const [path, writes, text] = [join(root.dir, 'flow.log'), 20_000, 'x'.repeat(99)];
    const shim = await create(sh(`yes ${text} | dd bs=4096 count=${writes} iflag=fullblock 2>/dev/null; sleep 1000`), {
      log: { driver: 'cri', path },
    });
    const pid = Number(readFileSync(join(shim.dir, 'pid'), 'utf8').split(' ')[0]);
    const reads = (): number => Number(/^syscr: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1]);
    let widest = 0;
    const [before, began] = [reads(), performance.now()];
    await shim.start();
    const lines = Math.floor((writes * 4096) / (text.length + 1));
    const size = lines * ` stdout F ${text}\n`.length;
    await until(() => {
      widest = Math.max(widest, pipeSize(pid));
      return statSync(path).size > size;
    });
    const tookMs = performance.now() - began;
    expect(reads() - before).toBeLessThan(tookMs + (writes * 4096) / 65_536 + 100);
    expect(widest).toBe(1024 * 1024);
    await until(() => pipeSize(pid) === 64 * 1024); // nothing has come for a while
    await shim.signal(9);
    await shim.wait();
  });

  it('escape as Go does in Docker’s form, with labels, and split long lines', async () => {
    const path = join(root.dir, 'json.log');
    const log = { driver: 'json-file', path, attrs: { app: 'web' } } as const;
    const script = [
      String.raw`printf 'a<b>&"c"\\ \t\001 \303\241 \342\200\250 \377\303 x\n'`,
      'head -c 20000 /dev/zero | tr "\\0" y; echo',
      'printf "no end" >&2',
    ].join('; ');
    const shim = await create(sh(script), { log });
    await shim.start();
    await shim.wait();
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    const first = lines[0] ?? '';
    expect(first.slice(0, first.indexOf(',"time"'))).toBe(
      String.raw`{"log":"a\u003cb\u003e\u0026\"c\"\\ \u0009\u0001 á \u2028 \ufffd\ufffd x\n","stream":"stdout","attrs":{"app":"web"}`,
    );
    const parsed = lines.map((line) => JSON.parse(line) as { log: string; stream: string });
    const stdout = parsed.filter((p) => p.stream === 'stdout').map((p) => p.log);
    expect(stdout.slice(1).map((l) => l.length)).toEqual([16384, 20000 - 16384 + 1]);
    expect(parsed.filter((p) => p.stream === 'stderr').map((p) => p.log)).toEqual(['no end']);
  });

  it('are rotated by size and count, without losing a line', async () => {
    const path = join(root.dir, 'rotated.log');
    const shim = await create(sh('seq 1 20000'), { log: { driver: 'cri', path, maxBytes: 100_000, maxFiles: 20 } });
    await shim.start();
    await shim.wait();
    const files = readdirSync(root.dir).filter((n) => n.startsWith('rotated.log'));
    expect(files.length).toBeGreaterThan(5);
    const numbers = files
      .sort((a, b) => Number(b.split('.')[2] ?? 0) - Number(a.split('.')[2] ?? 0))
      .flatMap((f) => readFileSync(join(root.dir, f), 'utf8').trimEnd().split('\n'))
      .map((line) => Number(line.split(' ').at(-1)));
    expect(numbers).toEqual(Array.from({ length: 20_000 }, (_, i) => i + 1));
  });

  it('take packed files in, which are turned with the others; the oldest falls away', async () => {
    const path = join(root.dir, 'packed.log');
    const shim = await create(sh('for n in 1 2 3 4; do read a; seq 100; done; read a'), {
      stdin: true,
      log: { driver: 'cri', path, maxBytes: 4_000, maxFiles: 4 },
    });
    const attached = await shim.attach({ stdin: true });
    attached.stdout.resume();
    await shim.start();
    const files = () => readdirSync(root.dir).filter((name) => name.startsWith('packed.log'));
    /** Each round fills a file and begins the next. */
    const turn = async (names: string[]) => {
      await attached.write(Buffer.from('\n'));
      await until(() => JSON.stringify(files()) === JSON.stringify(names) && statSync(path).size > 0);
    };
    const pack = (name: string) => {
      const { ino } = statSync(join(root.dir, name), { bigint: true });
      const packed = join(root.dir, 'scratch');
      writeFileSync(packed, name);
      return shim.takePackedLog(ino, packed);
    };
    await turn(['packed.log', 'packed.log.1']);
    expect(await pack('packed.log.1')).toBe(true);
    expect(files()).toEqual(['packed.log', 'packed.log.1.gz']);
    expect(readFileSync(`${path}.1.gz`, 'utf8')).toBe('packed.log.1');
    await turn(['packed.log', 'packed.log.1', 'packed.log.2.gz']);
    await turn(['packed.log', 'packed.log.1', 'packed.log.2', 'packed.log.3.gz']);
    expect(await pack('packed.log.2')).toBe(true);
    await turn(['packed.log', 'packed.log.1', 'packed.log.2', 'packed.log.3.gz']);
    expect(readFileSync(`${path}.3.gz`, 'utf8')).toBe('packed.log.2');
    writeFileSync(join(root.dir, 'scratch'), '');
    expect(await shim.takePackedLog(0xffff_ffff_ffffn, join(root.dir, 'scratch'))).toBe(false);
    await expect(shim.takePackedLog(0n, 'x'.repeat(5_000))).rejects.toThrow('an inode and a path');
    await attached.write(Buffer.from('\n'));
    await shim.wait();
    rmSync(join(root.dir, 'scratch'));
  });

  it('are opened again on request', async () => {
    const path = join(root.dir, 'reopened.log');
    const shim = await create(sh('read a; echo one; read b; echo two'), { stdin: true, log: { driver: 'cri', path } });
    const attached = await shim.attach({ stdin: true });
    attached.stdout.resume();
    await shim.start();
    await attached.write(Buffer.from('\n'));
    await until(() => readFileSync(path, 'utf8').includes('one'));
    rmSync(path);
    await shim.reopenLog();
    await attached.write(Buffer.from('\n'));
    await shim.wait();
    expect(readFileSync(path, 'utf8')).toMatch(/^\S+ stdout F two\n$/);
  });
});

describe('a crash', () => {
  it('of the process that started them and of the spawner kills no container and loses no line', async () => {
    const count = 20;
    const crashDir = join(root.dir, 'crash');
    mkdirSync(crashDir);
    const worker = fileURLToPath(new URL('crash-worker.mjs', import.meta.url));
    const child = spawn(process.execPath, [worker, crashDir, root.rootfs, String(count)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve) => child.stdout.once('data', (d) => resolve(String(d))));
    const spawnerPid = Number(line);
    child.kill('SIGKILL');
    process.kill(spawnerPid, 'SIGKILL');
    await until(async () => (await processStartTime(spawnerPid)) === undefined);

    const shims = await Promise.all(Array.from({ length: count }, (_, i) => Shim.connect(join(crashDir, `c${i}`))));
    const exits = await Promise.all(shims.map((shim) => shim.wait()));
    expect(exits.map((e) => e.code)).toEqual(Array.from({ length: count }, (_, i) => i));
    for (let i = 0; i < count; i++) {
      const log = readFileSync(join(crashDir, `c${i}.log`), 'utf8')
        .trimEnd()
        .split('\n');
      expect(log.map((l) => Number(l.split(' ').at(-1)))).toEqual(Array.from({ length: 200 }, (_, n) => n + 1));
    }
  });
});

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`never true: ${condition}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

describe('a spawner', () => {
  it('keeps nothing open that the parent of the daemon had: a script would hold its lock as long as the last container runs', async () => {
    const lock = join(root.dir, 'lock');
    const fd = openSync(lock, 'w');
    const path = join(root.dir, 'other.sock');
    const child = spawn(findExecutor(), ['spawner', path], { stdio: ['ignore', 'pipe', 'inherit', fd] });
    closeSync(fd);
    await once(child.stdout as Readable, 'data');
    const fds = `/proc/${child.pid}/fd`;
    expect(readdirSync(fds).map((name) => readlinkSync(join(fds, name)))).not.toContain(lock);
    child.kill('SIGKILL');
    await once(child, 'close');
  });

  it('that is busy has workers for quick steps: one that was killed is replaced, and all go with a spawner that was', async () => {
    const path = join(root.dir, 'busy.sock');
    const own = spawn(findExecutor(), ['spawner', path], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(own.stdout as Readable, 'data');
    const busy = await Spawner.connect(path);
    const sleeper = spawn('sleep', ['1000']);
    const pid = sleeper.pid ?? 0;
    const startTime = (await processStartTime(pid)) ?? 0n;
    const waits = busy.run({
      steps: [{ op: 'waitGone', where: 'host', because: 'test', pid, startTime, timeoutMs: 60_000 }],
    });
    waits.catch(() => undefined); // awaited below
    const mkdir = (name: string) =>
      ({ op: 'mkdir', where: 'host', because: 'test', path: join(root.dir, name), mode: 0o755, flags: 0 }) as const;
    const workers = (): number[] => childrenOf(own.pid ?? 0).filter((child) => nameOf(child) === 'estiba-worker');

    await Promise.all(Array.from({ length: 12 }, (_, n) => busy.run({ steps: [mkdir(`busy${n}`)] })));
    expect(readdirSync(root.dir).filter((name) => name.startsWith('busy') && name !== 'busy.sock')).toHaveLength(12);
    expect(workers().length).toBeGreaterThan(0);
    expect(workers().length).toBeLessThanOrEqual(4);

    const undone = { ...mkdir('taken-back'), undo: [{ op: 'rmdir', path: join(root.dir, 'taken-back') }] } as const;
    await expect(busy.run({ steps: [undone, mkdir('no/such')] })).rejects.toThrow(/step 2 of 2, mkdir .*: ENOENT/);
    expect(existsSync(join(root.dir, 'taken-back'))).toBe(false);

    for (const worker of workers()) process.kill(worker, 'SIGKILL');
    await until(() => workers().length === 0);
    await Promise.all(['after', 'later'].map((name) => busy.run({ steps: [mkdir(name)] })));
    expect(existsSync(join(root.dir, 'after')) && existsSync(join(root.dir, 'later'))).toBe(true);
    await until(() => workers().length === 0); // nothing was asked for a while

    await busy.run({ steps: [mkdir('last')] });
    const left = workers();
    expect(left.length).toBeGreaterThan(0);
    own.kill('SIGKILL');
    await once(own, 'close');
    await until(async () => (await Promise.all(left.map(processStartTime))).every((start) => start === undefined));
    sleeper.kill('SIGKILL');
    await expect(waits).rejects.toThrow();
    busy.close();
  });
});

/** Bytes that the largest pipe of a process holds. */
function pipeSize(pid: number): number {
  const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`);
  const pipes = fds.filter((path) => readlinkSync(path).startsWith('pipe:'));
  const F_GETPIPE_SZ = 1032;
  const ask = `for (@ARGV) { open(my $pipe, '+<', $_); print fcntl($pipe, ${F_GETPIPE_SZ}, 0), "\\n" }`;
  return Math.max(
    ...execFileSync('perl', ['-e', ask, ...pipes], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map(Number),
  );
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
}

/** '' when it has ended meanwhile. */
function nameOf(pid: number): string {
  return factOf(pid, 'comm');
}

/** In a function of the kernel, by a part of its name: `pipe_write` is `anon_pipe_write` in newer ones. */
function waitsIn(pid: number, where: string): boolean {
  return factOf(pid, 'wchan').includes(where);
}

function factOf(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8').trim();
  } catch {
    return ''; // it has ended meanwhile
  }
}
