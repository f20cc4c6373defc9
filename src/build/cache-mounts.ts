import { createHash } from 'node:crypto';
import { chmod, chown, lstat, mkdir, readdir, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { KeyedSerial } from '#base/queue.ts';
import type { PlannedMount } from '#build/graph.ts';

type CacheMount = Extract<PlannedMount, { type: 'cache' }>;

/**
 * Directories of `RUN --mount=type=cache`, kept from build to build:
 *
 *     DIRECTORY/<hash of id>-<n>    n is 0, or more where `private` ones are used at once
 *
 * The mtime of the directory says when it was last used.
 */
export class CacheMounts {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #locks = new KeyedSerial<string>('cache mount');
  readonly #inUse = new Map<string, number>();

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  /**
   * Gives the directory to `use`: `shared` to all at once, `locked` to one after the other, `private` to one while others get
   * one of their own. A new one is filled by `fill`.
   */
  async with<T>(
    mount: CacheMount,
    fill: (path: string) => Promise<void>,
    use: (path: string) => Promise<T>,
  ): Promise<T> {
    const name = createHash('sha256').update(mount.id).digest('hex').slice(0, 32);
    if (mount.sharing === 'locked') return this.#locks.run(name, () => this.#lend(`${name}-0`, mount, fill, use));
    if (mount.sharing === 'shared') return this.#lend(`${name}-0`, mount, fill, use);
    let n = 0;
    while (this.#inUse.has(`${name}-${n}`)) n++;
    return this.#lend(`${name}-${n}`, mount, fill, use);
  }

  async list(): Promise<{ id: string; bytes: number; usedAtMs: number; inUse: boolean }[]> {
    const names = await readdir(this.#directory).catch(() => []); // nothing was ever kept
    return Promise.all(
      names.map(async (name) => {
        const path = join(this.#directory, name);
        return {
          id: name,
          bytes: await bytesBelow(path),
          usedAtMs: (await lstat(path)).mtimeMs,
          inUse: this.#inUse.has(name),
        };
      }),
    );
  }

  async remove(id: string): Promise<void> {
    if (!this.#inUse.has(id)) await rm(join(this.#directory, id), { recursive: true, force: true });
  }

  async #lend<T>(
    name: string,
    { owner }: CacheMount,
    fill: (path: string) => Promise<void>,
    use: (path: string) => Promise<T>,
  ): Promise<T> {
    this.#inUse.set(name, (this.#inUse.get(name) ?? 0) + 1);
    const path = join(this.#directory, name);
    try {
      await this.#locks.run(`make ${name}`, async () => {
        if (await mkdir(path, { recursive: true })) {
          const { uid = 0, gid = 0, mode = 0o755 } = owner as { uid?: number; gid?: number; mode?: number };
          await fill(path);
          await chown(path, uid, gid);
          await chmod(path, mode);
        }
      });
      return await use(path);
    } finally {
      const seconds = this.#clock.now() / 1000;
      await utimes(path, seconds, seconds).catch(() => undefined); // removed by a prune that came first
      const left = (this.#inUse.get(name) ?? 1) - 1;
      if (left > 0) this.#inUse.set(name, left);
      else this.#inUse.delete(name);
    }
  }
}

async function bytesBelow(root: string): Promise<number> {
  let bytes = 0;
  const pending = [root];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const stat = await lstat(path).catch(() => undefined); // gone meanwhile
    if (!stat) continue;
    bytes += stat.blocks * 512;
    if (!stat.isDirectory()) continue;
    for (const name of await readdir(path).catch(() => [])) // gone meanwhile, too
      pending.push(join(path, name));
  }
  return bytes;
}
