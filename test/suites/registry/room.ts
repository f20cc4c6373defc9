import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** What the test image prints when it runs. */
export const HELLO = 'hello from the image';

/**
 * A network and mount namespace of our own for engines and registries: nothing they do to links, routes or mounts is seen
 * outside, and every port on its loopback is free.
 */
export class Room {
  readonly folder: string;
  readonly #holder: ChildProcess;
  readonly #children: ChildProcess[] = [];

  private constructor(folder: string, holder: ChildProcess) {
    this.folder = folder;
    this.#holder = holder;
  }

  static async open(): Promise<Room> {
    const folder = mkdtempSync(join(tmpdir(), 'estiba-registry-suite-'));
    const holder = spawn('unshare', ['-m', '-n', 'sleep', 'infinity'], { stdio: 'ignore' });
    const room = new Room(folder, holder);
    await until(
      'the room',
      async () =>
        (await run('nsenter', room.#enter('readlink', '/proc/self/ns/net'))) !==
        (await run('readlink', ['/proc/self/ns/net'])),
    );
    await room.in('ip', 'link', 'set', 'lo', 'up');
    await room.in('sh', '-c', `mount --bind ${folder} ${folder} && mount --make-rshared ${folder}`);
    // crun and runc of Debian 12 look for v2 controllers on hosts that are v1 for the rest: hide them.
    const v2 = '/sys/fs/cgroup/unified/cgroup.controllers';
    if (existsSync(v2)) {
      writeFileSync(join(folder, 'empty'), '');
      await room.in('mount', '--bind', join(folder, 'empty'), v2);
    }
    return room;
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  /** Runs a program inside and returns what it prints; its failure throws with what it says. */
  in(program: string, ...args: string[]): Promise<string> {
    return run('nsenter', this.#enter(program, ...args), this.#env());
  }

  /** Starts a program inside that goes on until the room closes; its output goes to `<name>.log`. */
  start(name: string, program: string, ...args: string[]): ChildProcess {
    const child = spawn(
      'nsenter',
      this.#enter('sh', '-c', `exec "$@" > ${this.path(`${name}.log`)} 2>&1`, 'sh', program, ...args),
      {
        stdio: 'ignore',
        env: this.#env(),
      },
    );
    this.#children.push(child);
    return child;
  }

  log(name: string): string {
    return existsSync(this.path(`${name}.log`)) ? readFileSync(this.path(`${name}.log`), 'utf8') : '';
  }

  async close(): Promise<void> {
    for (const child of this.#children.reverse()) await ended(child);
    await ended(this.#holder);
    // Engines leave overlay mounts behind in namespaces that are gone now.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10 });
  }

  #enter(...command: string[]): string[] {
    return ['-t', String(this.#holder.pid), '-m', '-n', '--', ...command];
  }

  #env(): NodeJS.ProcessEnv {
    return { ...process.env, CONTAINERS_CONF: this.path('containers.conf'), HOME: this.folder, TMPDIR: this.folder };
  }
}

/** A small root file system as a tar: busybox, a user's file, a link. */
export async function rootfsTar(room: Room): Promise<{ tar: string; folder: string }> {
  const folder = room.path('rootfs');
  for (const dir of ['bin', 'etc', 'tmp']) mkdirSync(join(folder, dir), { recursive: true });
  cpSync('/bin/busybox', join(folder, 'bin/busybox'));
  for (const applet of ['sh', 'cat', 'echo']) symlinkSync('busybox', join(folder, 'bin', applet));
  writeFileSync(join(folder, 'etc/hello'), `${HELLO}\n`);
  await run('tar', ['-C', folder, '--numeric-owner', '--owner=0', '--group=0', '-cf', room.path('rootfs.tar'), '.']);
  return { tar: room.path('rootfs.tar'), folder };
}

/** Our registry as its own process, bundled from the sources. Returns once it answers. */
export async function startOurs(room: Room, listen: string, more: string[] = []): Promise<ChildProcess> {
  const bundle = join(ROOT, 'dist/registry.run.cjs');
  if (!existsSync(bundle)) await run(process.execPath, [join(ROOT, 'tools/build.mjs')]);
  const child = room.start(
    'ours',
    process.execPath,
    bundle,
    'serve',
    '--data-root',
    room.path('ours'),
    '--listen',
    listen,
    ...more,
  );
  await until('our registry', async () => (await room.in('wget', '-qO-', `http://${listen}/v2/`)) === '{}');
  return child;
}

/** Debian's docker-registry. */
export async function startPeer(room: Room, listen: string): Promise<ChildProcess> {
  const config = `version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: ${room.path('peer')}}, delete: {enabled: true}}\nhttp: {addr: '${listen}'}\n`;
  writeFileSync(room.path('peer.yml'), config);
  const child = room.start('peer', 'docker-registry', 'serve', room.path('peer.yml'));
  await until('docker-registry', async () => (await room.in('wget', '-qO-', `http://${listen}/v2/`)) === '{}');
  return child;
}

export async function until(what: string, holds: () => Promise<boolean>, withinMs = 20_000): Promise<void> {
  const endMs = Date.now() + withinMs;
  for (let last: unknown; ; ) {
    try {
      if (await holds()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > endMs) throw new Error(`${what} is not ready after ${withinMs} ms`, { cause: last });
    await new Promise((go) => setTimeout(go, 50));
  }
}

export function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { env, maxBuffer: 64 << 20, timeout: 120_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(' ')}: ${stderr.trim() || error.message}`));
      else resolve(stdout.trim());
    });
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>((done) => {
    child.once('exit', () => done());
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 5_000).unref();
  });
}
