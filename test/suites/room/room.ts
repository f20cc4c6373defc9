import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { errnoOf } from '#base/errors.ts';
import { removed } from '../../left-cgroups.ts';

export const RUNTIME = process.env['ESTIBA_OCI'] ?? fileURLToPath(new URL('../../../bin/estiba-oci', import.meta.url));

const READY_MS = 10_000;
const COMMAND_MS = 60_000;
const GONE_MS = 10_000;
const MOST_SAID = 256 * 1024;

export interface Answer {
  code: number | null;
  out: string;
  err: string;
}

/** A private mount and network namespace for a peer, with a directory and a name of its own; `end` leaves nothing behind. */
export class Room {
  readonly dir: string;
  /** Names cgroups and the like on the host. */
  readonly name: string;
  readonly #holder: ChildProcess;
  readonly #daemons: ChildProcess[] = [];
  readonly #cgroups: string[];
  #pid = '';
  #netns = '';

  private constructor(kind: string) {
    this.name = `estiba-suite-${kind}-${process.pid}`;
    this.#cgroups = [this.name];
    this.dir = mkdtempSync(join(tmpdir(), `${this.name}-`));
    const script = fileURLToPath(new URL('room.sh', import.meta.url));
    this.#holder = spawn(script, [this.dir], { stdio: ['ignore', 'ignore', 'inherit'] });
  }

  static async open(kind: string): Promise<Room> {
    const room = new Room(kind);
    await waitFor(() => existsSync(join(room.dir, 'pid')), READY_MS, 'the room');
    room.#pid = readFileSync(join(room.dir, 'pid'), 'utf8').trim();
    room.#netns = readlinkSync(`/proc/${room.#pid}/ns/net`);
    return room;
  }

  #enter(command: string, args: readonly string[], cwd = this.dir): string[] {
    return ['-t', this.#pid, '-m', '-n', `--wd=${cwd}`, '--', command, ...args];
  }

  /** Runs a command inside, to its end. */
  run(
    command: string,
    args: readonly string[],
    options: { input?: string; env?: Record<string, string> } = {},
  ): Answer {
    const done = spawnSync('nsenter', this.#enter(command, args), {
      encoding: 'utf8',
      timeout: COMMAND_MS,
      input: options.input ?? '',
      env: { ...process.env, ...options.env },
    });
    return { code: done.status, out: done.stdout, err: done.stderr };
  }

  /** As `run`, for what takes minutes: nothing waits for it but who asks. What it says is cut to its last part. */
  async runLong(
    command: string,
    args: readonly string[],
    options: { cwd?: string; env?: Record<string, string>; timeoutMs: number },
  ): Promise<Answer> {
    const child = spawn('nsenter', this.#enter(command, args, options.cwd), {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const said = { out: '', err: '' };
    for (const name of ['out', 'err'] as const)
      child[name === 'out' ? 'stdout' : 'stderr'].setEncoding('utf8').on('data', (text: string) => {
        said[name] = (said[name] + text).slice(-MOST_SAID);
      });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs);
    const [code] = (await once(child, 'close')) as [number | null];
    clearTimeout(timer);
    return { code, ...said };
  }

  /** A program that runs inside as long as the room. Its words go to NAME.log in the room's directory. */
  start(name: string, command: string, args: readonly string[], env: Record<string, string> = {}): void {
    const log = join(this.dir, `${name}.log`);
    // exec: the child's pid is then the program's own, so that `end` stops it and not a shell.
    const line = ['exec', command, ...args].map(quote).join(' ').replace("'exec'", 'exec');
    this.#daemons.push(
      spawn('nsenter', this.#enter('sh', ['-c', `${line} > ${quote(log)} 2>&1`]), {
        stdio: 'ignore',
        env: { ...process.env, ...env },
      }),
    );
  }

  /** A peer makes its containers' cgroups below this one: it goes with the room. */
  ownsCgroup(name: string): void {
    this.#cgroups.push(name);
  }

  log(name: string): string {
    const path = join(this.dir, `${name}.log`);
    return existsSync(path) ? readFileSync(path, 'utf8').slice(-4000) : '';
  }

  /** What daemons leave running on purpose (spawner, edge, shims): they go with their network namespace. */
  #endStrays(): void {
    const holder = Number(this.#pid);
    for (const pid of processesIn(this.#netns)) if (pid !== holder) killUnlessGone(pid);
  }

  /** As a boot leaves things: no process, no link or table, no cgroup, and nothing of the volatile directory. */
  async reboot(volatile: string): Promise<void> {
    this.#endStrays();
    for (const name of this.#cgroups) killCgroup(name);
    this.run('sh', [
      '-c',
      'for l in $(ls /sys/class/net | grep -v "^lo$"); do ip link del "$l"; done; nft flush ruleset',
    ]);
    this.run('sh', ['-c', `grep -o ' ${volatile}[^ ]*' /proc/self/mountinfo | sort -r | xargs -r umount -l`]);
    for (const name of this.#cgroups) await removeCgroups(name);
    rmSync(volatile, { recursive: true, force: true });
  }

  async end(): Promise<void> {
    for (const child of [...this.#daemons.reverse(), this.#holder]) {
      child.kill('SIGTERM');
      await waitFor(() => child.exitCode !== null || child.signalCode !== null, 15_000, 'a peer to end').catch(() =>
        child.kill('SIGKILL'),
      );
    }
    this.#endStrays();
    for (const name of this.#cgroups) killCgroup(name);
    for (const name of this.#cgroups) await removeCgroups(name);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A helper ends by itself once its daemon has: maybe just now. */
function killUnlessGone(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}

/** Processes of a network namespace: nobody but who was started in the room is in the room's. */
function processesIn(netns: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => linkAt(`/proc/${pid}/ns/net`) === netns)
    .map(Number);
}

/** Undefined: the process has just ended. */
function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Ends what runs in the cgroups named so, and waits until it has. */
function killCgroup(name: string): void {
  const pids = (): number[] =>
    readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry) && textAt(`/proc/${entry}/cgroup`).includes(`/${name}/`))
      .map(Number);
  thaw(name);
  for (let left = pids(); left.length > 0; left = pids())
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
}

/** A paused container of cgroup v1 does not die before it is thawed (cgroup-v1/freezer-subsystem.rst). */
function thaw(name: string): void {
  const top = join('/sys/fs/cgroup/freezer', name);
  if (!existsSync(top)) return;
  for (const entry of readdirSync(top, { recursive: true, encoding: 'utf8' }))
    if (entry.endsWith('freezer.state')) writeFileSync(join(top, entry), 'THAWED');
}

function textAt(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // the process has just ended
  }
}

/** The cgroups named so, in every hierarchy, children first. */
async function removeCgroups(name: string): Promise<void> {
  const remove = async (dir: string): Promise<void> => {
    for (const entry of readdirSync(dir, { withFileTypes: true }))
      if (entry.isDirectory()) await remove(join(dir, entry.name));
    await waitFor(() => removed(dir), GONE_MS, `${dir} to be empty`);
  };
  for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
    const dir = join('/sys/fs/cgroup', hierarchy, name);
    if (existsSync(dir)) await remove(dir);
  }
}

export async function waitFor(check: () => boolean, ms: number, what: string): Promise<void> {
  const end = Date.now() + ms;
  while (!check()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(50);
  }
}

/** A tar of a root file system with busybox, and /pause, which only sleeps. */
export function busyboxTar(dir: string): string {
  const root = join(dir, 'rootfs');
  for (const sub of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root'])
    mkdirSync(join(root, sub), { recursive: true });
  cpSync('/bin/busybox', join(root, 'bin/busybox'));
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean);
  for (const name of applets) if (name !== 'busybox') symlinkSync('busybox', join(root, 'bin', name));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nuser:x:1000:\n');
  writeFileSync(join(root, 'pause'), '#!/bin/sh\nexec sleep 1000000\n', { mode: 0o755 });
  const tar = join(dir, 'busybox.tar');
  execFileSync('tar', ['-C', root, '-cf', tar, '.']);
  rmSync(root, { recursive: true });
  return tar;
}

/** The hard limits this host grants: engines ask for more than a guest without CAP_SYS_RESOURCE may give. */
export function grantedLimits(): { nofile: number; nproc: number } {
  const nofile = Number(execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }));
  const most = Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8'));
  const nproc = Number(
    execFileSync('bash', ['-c', 'ulimit -Hu'], { encoding: 'utf8' }).replace('unlimited', String(most)),
  );
  return { nofile, nproc: Math.min(nproc, most) };
}
