import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findExecutor } from '#kernel/plan/execute.ts';
import { busyboxRoot } from '#kernel/plan/handmade.ts';

const root = busyboxRoot('planner');
const socket = join(root.dir, 'planner.sock');
const bundle = join(root.dir, 'dist/planner.run.cjs');
const script = join(root.dir, 'fallback.sh');
let planner: ChildProcess;

beforeAll(async () => {
  buildSync({
    entryPoints: [fileURLToPath(new URL('planner.ts', import.meta.url))],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    packages: 'external',
    define: { 'import.meta.url': '__url' },
    banner: { js: "const __url = require('node:url').pathToFileURL(__filename).href;" },
  });
  writeFileSync(script, 'echo "fallback $ESTIBA_OCI_PLANNER $@"\n');
  planner = spawn(process.execPath, [bundle, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((ready) => planner.stdout?.once('data', ready));
});
afterAll(() => {
  planner.kill();
  root.remove();
});

const front = (...args: string[]): string[] => [
  'oci',
  socket,
  root.dir,
  script,
  '--root',
  join(root.dir, 'state'),
  ...args,
];

function oci(args: string[], input = ''): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(findExecutor(), front(...args), {
    input,
    encoding: 'utf8',
    cwd: root.dir,
  });
  return { code: status, out: stdout, err: stderr };
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return ''; // ended meanwhile
  }
}

function configure(argv: readonly string[]): void {
  const file = join(root.dir, 'config.json');
  if (!existsSync(file)) expect(oci(['spec'])).toMatchObject({ code: 0 });
  const config = JSON.parse(readFileSync(file, 'utf8'));
  Object.assign(config.process, { terminal: false, args: argv, env: ['PATH=/bin'] });
  writeFileSync(file, JSON.stringify(config));
}

describe('the native front', () => {
  it('runs a container with the caller’s own streams and gives its exit code', () => {
    configure(['sh', '-c', 'cat; echo err >&2; exit 3']);
    expect(oci(['run', 'planner-one'], 'from stdin\n')).toEqual({ code: 3, out: 'from stdin\n', err: 'err\n' });
    expect(oci(['state', 'planner-one'])).toMatchObject({ code: 1 });
  });

  it('gives on every exit code a program can have, and runs it once', () => {
    // 75 once meant "not served": the script then ran the container a second time.
    configure(['sh', '-c', 'echo ran; exit 75']);
    expect(oci(['run', 'planner-code'])).toEqual({ code: 75, out: 'ran\n', err: '' });
  });

  it('creates, starts and deletes, each a call of its own', async () => {
    mkdirSync(join(root.dir, 'state'), { recursive: true });
    configure(['sleep', '60']);
    // The container keeps the streams it was created with: pipes of ours would never end.
    const created = spawnSync(findExecutor(), front('create', 'planner-two'), { stdio: 'ignore', cwd: root.dir });
    expect(created.status).toBe(0);
    expect(JSON.parse(oci(['state', 'planner-two']).out)).toMatchObject({ status: 'created' });
    expect(oci(['start', 'planner-two'])).toMatchObject({ code: 0, err: '' });
    expect(oci(['exec', 'planner-two', 'sh', '-c', 'hostname; exit 4'])).toMatchObject({ code: 4 });
    expect(oci(['delete', '--force', 'planner-two'])).toMatchObject({ code: 0, err: '' });
    expect(oci(['list', '-q'])).toMatchObject({ code: 0, out: '' });
  });

  it('says what is wrong on stderr, as alone', () => {
    configure(['nonesuch']);
    const { code, err } = oci(['run', 'planner-three']);
    expect(code).toBe(1);
    expect(err).toContain('executable file not found in $PATH');
    expect(oci(['list', '-q']).out).toBe('');
  });

  it('hands signals on to a foreground container', async () => {
    configure(['sh', '-c', 'trap "exit 42" TERM; echo up; while true; do sleep 0.05; done']);
    const child = spawn(findExecutor(), front('run', 'planner-four'), {
      cwd: root.dir,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((up) => child.stdout.once('data', up));
    // It waits for the end; without this line, most often not yet.
    await expect.poll(() => readFileSync(`/proc/${child.pid}/wchan`, 'utf8')).toMatch(/poll/);
    child.kill('SIGTERM');
    expect(await new Promise((ended) => child.once('close', ended))).toBe(42);
  });

  describe('with a planner of its own', () => {
    const alone = (node: string, ...args: string[]): string[] => [
      ...['oci-alone', node, bundle, root.dir, script, '--root', join(root.dir, 'state')],
      ...args,
    ];
    const planners = (): string[] =>
      readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandLine(pid).includes(`${bundle}\0--fd`));

    it('serves one call and leaves nobody behind', () => {
      configure(['sh', '-c', 'cat; exit 9']);
      const { status, stdout, stderr } = spawnSync(findExecutor(), alone(process.execPath, 'run', 'planner-alone'), {
        input: 'from stdin\n',
        encoding: 'utf8',
        cwd: root.dir,
      });
      expect({ status, stdout, stderr }).toEqual({ status: 9, stdout: 'from stdin\n', stderr: '' });
      expect(planners()).toEqual([]);
      expect(oci(['list', '-q'])).toMatchObject({ code: 0, out: '' });
    });

    it('takes the container away after a ^C, which all of the terminal’s group gets', async () => {
      configure(['sh', '-c', 'trap "exit 43" INT; echo up; while true; do sleep 0.05; done']);
      const child = spawn(findExecutor(), alone(process.execPath, 'run', 'planner-int'), {
        cwd: root.dir,
        stdio: ['ignore', 'pipe', 'inherit'],
        detached: true, // a process group, as a shell makes one
      });
      await new Promise((up) => child.stdout.once('data', up));
      process.kill(-(child.pid ?? 0), 'SIGINT');
      expect(await new Promise((ended) => child.once('close', ended))).toBe(43);
      expect(oci(['list', '-q'])).toMatchObject({ code: 0, out: '' });
    });

    describe('that starts from a snapshot', () => {
      const dist = join(root.dir, 'dist');
      // By the name under which tools/snapshot.mjs leaves it.
      const { size, mtimeMs } = statSync(process.execPath);
      const blob = join(dist, `planner-build-${size}-${Math.floor(mtimeMs / 1000)}.blob`);
      const call = (...args: string[]): ReturnType<typeof spawnSync> =>
        spawnSync(findExecutor(), alone(process.execPath, ...args), {
          stdio: ['ignore', 'pipe', 'inherit'],
          cwd: root.dir,
        });
      const run = (): { status: number | null; stdout: string; stderr: string } => {
        configure(['sh', '-c', 'echo ran; exit 9']);
        const { status, stdout, stderr } = spawnSync(
          findExecutor(),
          alone(process.execPath, 'run', 'planner-snapshot'),
          {
            encoding: 'utf8',
            cwd: root.dir,
          },
        );
        return { status, stdout, stderr };
      };
      afterEach(() => {
        for (const path of [blob, join(dist, 'planner.flags')]) rmSync(path, { force: true });
      });

      it('needs nothing else', () => {
        configure(['true']);
        const taken = ['--no-warnings', '--snapshot-blob', blob, '--build-snapshot', bundle];
        const rehearsal = [root.dir, '--root', join(root.dir, 'rehearsal'), 'run', '--bundle', root.dir, 'rehearsed'];
        execFileSync(process.execPath, [...taken, ...rehearsal], { stdio: ['ignore', 'ignore', 'inherit'] });
        writeFileSync(join(dist, 'planner.flags'), 'build\n--no-warnings\n');
        renameSync(bundle, `${bundle}.away`);
        try {
          expect(run()).toEqual({ status: 9, stdout: 'ran\n', stderr: '' });
          configure(['sleep', '60']);
          spawnSync(findExecutor(), alone(process.execPath, 'run', '-d', 'planner-ps'), {
            stdio: 'ignore',
            cwd: root.dir,
          });
          expect(String(call('ps', 'planner-ps').stdout)).toContain('sleep 60');
          expect(call('delete', '--force', 'planner-ps').status).toBe(0);
        } finally {
          renameSync(`${bundle}.away`, bundle);
        }
        expect(existsSync(join(root.dir, 'rehearsal/rehearsed'))).toBe(false);
      });

      it('goes on without it, and without a word, when Node.js refuses it', () => {
        writeFileSync(blob, 'of another kind of processor');
        writeFileSync(join(dist, 'planner.flags'), 'build\n--no-warnings\n');
        expect(run()).toEqual({ status: 9, stdout: 'ran\n', stderr: '' });
      });
    });

    it('goes on with the script when there is no Node.js', () => {
      const { stdout } = spawnSync(findExecutor(), alone('/nonexistent/node', 'list'), { encoding: 'utf8' });
      expect(stdout).toContain('fallback none --root');
    });
  });

  it('goes on with the script when nobody listens, when paths are its own, and when another build answers', () => {
    const away = spawnSync(findExecutor(), ['oci', `${socket}.none`, root.dir, script, 'a', 'b c'], {
      encoding: 'utf8',
    });
    expect(away.stdout).toBe('fallback off a b c\n');
    expect(oci(['run', '-b', '/proc/self/cwd', 'x']).out).toContain('fallback off');
    const { atime, mtime } = statSync(bundle);
    utimesSync(bundle, atime, new Date(mtime.getTime() + 5000));
    expect(oci(['list']).out).toContain('fallback off');
    utimesSync(bundle, atime, mtime);
  });
});
