import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, lstat, mkdir, readdir, readlink, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { assert, describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Ownership, Unfinished } from '#image/layer/directory-sink.ts';
import { ErofsSink } from '#image/layer/erofs-sink.ts';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';
import { finish, hasher } from '#spec/image/digest.ts';
import { temporaryName, withFile } from '#storage/files.ts';

/**
 * How unpacked layers lie on disk. Both forms come from the same checked tree and pass the same tests:
 *
 *     erofs       layers/<name>.erofs, one file, mounted read-only   Linux 6.12 and mount(2)
 *     directory   layers/<name>.dir/fs, a tree                      everywhere; for `mapped` and `mine` without the host's root
 */
export interface LayerDriver {
  readonly form: 'erofs' | 'directory';
  readonly ownership: Ownership;
  /** What is below `layers/` for a layer of that name. */
  entry(name: string): string;
  /** Mounting it; undefined when it can be used as it lies there. */
  mount(path: string, target: string): Op | undefined;
  /** The directory that overlayfs stacks. */
  directory(path: string, mountPoint: string): string;
  /** Whether a file of that size, or anything, is there whole, as far as a look can tell. */
  looksWhole(path: string, imageBytes: number): Promise<boolean>;
  checksum(path: string): Promise<string>;
  /** What the checksum is of reaches the disk, where the form counts on that. */
  sync(path: string): Promise<void>;
  /** Does what the unpacking thread had no calls for. */
  complete(left: Unfinished | undefined, because: string, runPlan: (plan: Plan) => Promise<unknown>): Promise<void>;
}

const MS_RDONLY = 1n;
const MS_NOSUID = 2n;
const MS_NODEV = 4n;
const MS_NOATIME = 1024n;
const MNT_DETACH = 2;

export const erofsDriver: LayerDriver = {
  form: 'erofs',
  ownership: 'keep',
  entry: (name) => `${name}.erofs`,
  mount: (source, target) => ({
    op: 'mount',
    source,
    target,
    type: 'erofs',
    // Set-id bits and devices count through the overlay above, never by this path on the host.
    flags: MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME,
    data: '',
  }),
  directory: (_, mountPoint) => mountPoint,
  looksWhole: async (path, imageBytes) => (await stat(path)).size === imageBytes,
  checksum: checksumOfFile,
  sync: (path) => withFile(path, 'r', (handle) => handle.datasync()),
  complete: async () => undefined,
};

/** Steps of one plan: far from the executor's bound on its size, and few enough processes. */
const STEPS_AT_ONCE = 500;

export function directoryDriver(ownership: Ownership): LayerDriver {
  return {
    form: 'directory',
    ownership,
    entry: (name) => `${name}.dir`,
    mount: () => undefined,
    directory: (path) => join(path, 'fs'),
    looksWhole: async (path) => (await stat(path)).isDirectory(),
    // Where all is one user's, who that is says nothing; and inside a user namespace he has another number.
    checksum: (path) => checksumOfTree(join(path, 'fs'), { owners: ownership !== 'mine' }),
    sync: async () => undefined, // a checksum finds what a power cut took
    async complete(left, because, runPlan) {
      if (!left) return;
      const run = async (ops: readonly Op[]): Promise<void> => {
        const steps = ops.map((op): Step => ({ ...op, where: 'host', because }));
        for (let i = 0; i < steps.length; i += STEPS_AT_ONCE)
          await runPlan({ steps: steps.slice(i, i + STEPS_AT_ONCE) });
      };
      await run(left.ops);
      for (const [from, to] of left.links) await link(from, to);
      await run(left.times.map((time) => ({ op: 'setTime', ...time })));
    },
  };
}

/** Who unpacks: the host's root, root of a user namespace, or somebody without any right over other ids. */
export type Privilege = 'host' | 'namespace' | 'none';

/** `uidMap`: /proc/self/uid_map, where the host's own namespace maps every id to itself. */
export function privilegeOf(effectiveUid: number, uidMap: string): Privilege {
  if (effectiveUid !== 0) return 'none';
  if (/^\s*0\s+0\s+4294967295\s*$/.test(uidMap)) return 'host';
  // With its own id alone (`unshare -r`) there is nobody else to give files to.
  return /^\s*0\s+\d+\s+1\s*$/.test(uidMap) ? 'none' : 'namespace';
}

/** The best form that this kernel and this user have: an empty layer is made and mounted to see. */
export async function chooseDriver(o: {
  /** A directory that exists, for the trial. */
  scratch: string;
  privilege: Privilege;
  runPlan(plan: Plan): Promise<unknown>;
  log: Logger;
}): Promise<LayerDriver> {
  // Only the host's root mounts file systems of a kind that an image could attack (EROFS among them).
  if (o.privilege !== 'host') return directoryDriver(o.privilege === 'namespace' ? 'mapped' : 'mine');
  const trial = temporaryName(join(o.scratch, 'layer'));
  const [file, target] = [join(trial, 'image'), join(trial, 'mnt')];
  try {
    await mkdir(target, { recursive: true });
    const sink = new ErofsSink(file, 'trial');
    sink.finish();
    sink.close();
    const because = 'trial of the layer store';
    const mount = erofsDriver.mount(file, target);
    assert(mount, 'a layer of this form is mounted');
    const ops: Op[] = [mount, { op: 'umount', target, flags: MNT_DETACH }, { op: 'removeTree', path: trial }];
    await o.runPlan({ steps: ops.map((op): Step => ({ ...op, where: 'host', because })) });
    return erofsDriver;
  } catch (error) {
    o.log.info('layers are unpacked into directories: this kernel mounts no EROFS file', { why: describeChain(error) });
    await rm(trial, { recursive: true, force: true });
    return directoryDriver('keep');
  }
}

async function checksumOfFile(path: string): Promise<string> {
  const hash = hasher();
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) hash.update(chunk);
  return finish(hash);
}

/** Of names, modes, owners, links, devices and contents; attributes are not read. */
async function checksumOfTree(root: string, { owners }: { owners: boolean }): Promise<string> {
  const hash = createHash('sha256');
  const pending = [''];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const path = join(root, at);
    const { mode, uid, gid, rdev, size } = await lstat(path);
    hash.update(`${at}\0${mode} ${owners ? `${uid}:${gid}` : ''} ${rdev}\0`);
    if ((mode & S_IFMT) === S_IFDIR) for (const name of (await readdir(path)).sort()) pending.push(join(at, name));
    else if ((mode & S_IFMT) === S_IFLNK) hash.update(await readlink(path));
    else if ((mode & S_IFMT) === S_IFREG) {
      hash.update(`${size}\0`);
      for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) hash.update(chunk);
    }
  }
  return finish(hash);
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFREG = 0o100000;
