import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, type Room, until } from './room.ts';

/** A daemon of ours in the room, under a name of its own; `docker` is the command that speaks to it. */
export class Daemon {
  readonly docker: string[];
  readonly #runRoot: string;
  readonly #name: string;

  private constructor(runRoot: string, name: string) {
    this.#runRoot = runRoot;
    this.#name = name;
    this.docker = ['docker', '-H', `unix://${join(runRoot, 'docker.sock')}`];
  }

  /** `registry`: where its own is served. */
  static async start(room: Room, name: string, registry: string): Promise<Daemon> {
    const bundle = join(ROOT, 'dist/daemon.run.cjs');
    if (!existsSync(bundle)) throw new Error('not run: make build first');
    const roots = ['--data-root', room.path('data'), '--run-root', room.path('run')];
    const flags = ['--name', name, ...roots, '--only', 'engine,registry', '--registry', registry];
    room.start('daemon', process.execPath, bundle, ...flags);
    await until('the daemon', async () => existsSync(room.path('run/endpoints.json')));
    return new Daemon(room.path('run'), name);
  }

  /** After the room was closed, and the daemon with it: what outlives a daemon on purpose is taken away too. */
  sweep(): void {
    const spawner = this.#spawner();
    if (spawner !== undefined) process.kill(spawner);
    for (const hierarchy of readdirSync('/sys/fs/cgroup')) removeCgroups(join('/sys/fs/cgroup', hierarchy, this.#name));
  }

  #spawner(): number | undefined {
    const socket = join(this.#runRoot, 'spawner.sock');
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
