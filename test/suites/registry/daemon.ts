import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, type Room, until } from './room.ts';

/** A daemon of ours in the room, under a name of its own; `docker` is the command that speaks to it. */
export class Daemon {
  readonly docker: string[];
  readonly #room: Room;
  readonly #name: string;
  readonly #command: string[];
  #child: ChildProcess | undefined;

  private constructor(room: Room, name: string, command: string[]) {
    this.#room = room;
    this.#name = name;
    this.#command = command;
    this.docker = ['docker', '-H', `unix://${room.path('run/docker.sock')}`];
  }

  /** `registry`: where its own is served. */
  static async start(room: Room, name: string, registry: string, more: string[] = []): Promise<Daemon> {
    const bundle = join(ROOT, 'dist/daemon.run.cjs');
    if (!existsSync(bundle)) throw new Error('not run: make build first');
    const roots = ['--data-root', room.path('data'), '--run-root', room.path('run')];
    const flags = ['--name', name, ...roots, '--only', 'engine,registry', '--registry', registry, ...more];
    const daemon = new Daemon(room, name, [process.execPath, bundle, ...flags]);
    await daemon.restart();
    return daemon;
  }

  /** Starts it where none runs. */
  async restart(): Promise<void> {
    const ready = this.#room.path('run/endpoints.json');
    rmSync(ready, { force: true });
    const [program = '', ...args] = this.#command;
    this.#child = this.#room.start('daemon', program, ...args);
    await until('the daemon', async () => existsSync(ready));
  }

  /** At once and without a word, as a power cut would. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child) return;
    const gone = new Promise<void>((done) => child.once('exit', () => done()));
    child.kill('SIGKILL');
    await gone;
  }

  /** After the room was closed, and the daemon with it: what outlives a daemon on purpose is taken away too. */
  sweep(): void {
    const spawner = this.#spawner();
    if (spawner !== undefined) process.kill(spawner);
    for (const hierarchy of readdirSync('/sys/fs/cgroup')) removeCgroups(join('/sys/fs/cgroup', hierarchy, this.#name));
  }

  #spawner(): number | undefined {
    const socket = this.#room.path('run/spawner.sock');
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    const found = pids.find((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(socket);
      } catch {
        return false; // ended meanwhile
      }
    });
    return found === undefined ? undefined : Number(found);
  }
}

function removeCgroups(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroups(join(path, entry.name));
  rmdirSync(path);
}
