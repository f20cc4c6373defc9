import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Origin } from '#engine/core/spec.ts';
import { renameDurably, sweepTemporary, syncDirectory, temporaryName } from '#storage/files.ts';

/**
 * What every container's root has where its image has nothing: what is mounted on, and what programs look for. It is the lowest
 * layer of each root, so that an image's own entries, owners, modes and whiteouts count, and no start makes a target of a mount:
 * those were most of the inodes that a short container made and removed.
 *
 *     D/bottoms/<hash>    one tree, never written to once it has this name; the hash is of what it holds
 *
 * It is no layer of an image: diff, commit and builds know nothing of it.
 */
type Entry = { at: string } & ({ is: 'directory' | 'file' } | { is: 'link'; to: string });

/** Docker's own list, in order of making; its files are 0755 as well, which `docker export` and `docker cp` show. */
const EVERYWHERE: readonly Entry[] = [
  { at: 'dev', is: 'directory' },
  { at: 'dev/console', is: 'file' },
  { at: 'dev/pts', is: 'directory' },
  { at: 'dev/shm', is: 'directory' },
  { at: 'etc', is: 'directory' },
  { at: 'etc/hostname', is: 'file' },
  { at: 'etc/hosts', is: 'file' },
  // mount(8), df and their like of before 2011 read no other list.
  { at: 'etc/mtab', is: 'link', to: '/proc/mounts' },
  { at: 'etc/resolv.conf', is: 'file' },
  { at: 'proc', is: 'directory' },
  { at: 'sys', is: 'directory' },
];

const MODE = 0o755;

/** Programs take it for the sign of a Docker container. */
const OF_DOCKER: Entry = { at: '.dockerenv', is: 'file' };

export interface Bottoms {
  docker: string;
  /** Of pods, by the cluster or the CRI: under a kubelet with containerd or CRI-O no container has Docker's sign. */
  pod: string;
}

/** Makes those that are not there, for good, and removes what other versions made unless a root may still stand on it. */
export async function openBottoms(dir: string, { mayBeInUse }: { mayBeInUse: boolean }): Promise<Bottoms> {
  await mkdir(dir, { recursive: true, mode: 0o711 });
  await sweepTemporary(dir);
  const present = new Set(await readdir(dir));
  const bottoms = {
    docker: await ensure(dir, present, [OF_DOCKER, ...EVERYWHERE]),
    pod: await ensure(dir, present, EVERYWHERE),
  };
  const ours = Object.values(bottoms).map((path) => basename(path));
  if (!mayBeInUse)
    for (const name of present) if (!ours.includes(name)) await rm(join(dir, name), { recursive: true, force: true });
  return bottoms;
}

export function bottomOf(bottoms: Bottoms, by: Origin['by']): string {
  return by === 'kubernetes' || by === 'cri' ? bottoms.pod : bottoms.docker;
}

async function ensure(dir: string, present: ReadonlySet<string>, entries: readonly Entry[]): Promise<string> {
  // Short: before Linux 6.8 all layers' paths share a page.
  const name = createHash('sha256').update(JSON.stringify(entries)).digest('hex').slice(0, 8);
  const path = join(dir, name);
  if (!present.has(name)) await make(path, entries);
  return path;
}

/** Whole or not there, also after a power cut: a root that stands on half of it would be a riddle. */
async function make(path: string, entries: readonly Entry[]): Promise<void> {
  const tree = temporaryName(path);
  await makeDirectory(tree);
  for (const entry of entries) {
    const at = join(tree, entry.at);
    if (entry.is === 'directory') await makeDirectory(at);
    else if (entry.is === 'link') await symlink(entry.to, at);
    else {
      await writeFile(at, '', { flag: 'wx' });
      await chmod(at, MODE);
    }
  }
  // Files without bytes are their names and inodes, which their directories' syncs write.
  for (const { at } of entries.filter(({ is }) => is === 'directory').reverse()) await syncDirectory(join(tree, at));
  await syncDirectory(tree);
  await renameDurably(tree, path);
}

/** Whatever the umask takes from it. */
async function makeDirectory(path: string): Promise<void> {
  await mkdir(path);
  await chmod(path, MODE);
}
