import { mkdirSync } from 'node:fs';
import { chmod, lstat, mkdir, readdir, rm, rmdir, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { errnoOf, isCode } from '#base/errors.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import { keyIn, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '#cluster/client/resources.ts';
import { BadContainerConfig, VolumeNotReady } from '#cluster/node/errors.ts';
import type { PodObjects } from '#cluster/node/objects.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import type { NodeHost } from '#cluster/node/seams.ts';
import { type FileOwner, writeAtomically } from '#cluster/node/volumes/atomic-dir.ts';
import { nestedMountPoints } from '#cluster/node/volumes/nested.ts';
import { giveToGroup } from '#cluster/node/volumes/ownership.ts';
import { isPayloadVolume, payloadOf } from '#cluster/node/volumes/payload.ts';
import type { PodTokens } from '#cluster/node/volumes/tokens.ts';
import { claimNameOf } from '#spec/kubernetes/pod-volumes.ts';
import { unitsOf } from '#spec/kubernetes/quantity.ts';
import type { HostPathVolumeSource, Pod, Volume } from '#spec/kubernetes/types.gen.ts';

/** A volume of a pod on this node. */
export interface ReadyVolume {
  source: string;
  readonly: boolean;
}

export interface PodVolumesOptions {
  client: KubeClient;
  objects: PodObjects;
  tokens: PodTokens;
  host: Pick<NodeHost, 'mountTmpfs' | 'unmount' | 'bindSubPath'>;
  clock: Clock;
  /** `D/pods`, durable: emptyDir. */
  dataDir: string;
  /** `R/pods`, on a tmpfs: what comes from the cluster, secrets among it. */
  runDir: string;
}

/**
 * The volumes of this node's pods.
 *
 *     D/pods/UID/volumes/NAME   emptyDir on disk
 *     R/pods/UID/subpaths/CONTAINER/N   parts of volumes, bound while the container runs
 *     R/pods/UID/volumes/NAME   emptyDir in memory (a tmpfs of its own); config maps, secrets, tokens, the pod's own facts
 */
export class PodVolumes {
  readonly #o: PodVolumesOptions;
  /** Tmpfs mounts of a pod that are in place. */
  readonly #mounted = new Set<string>();

  constructor(options: PodVolumesOptions) {
    this.#o = options;
  }

  /** Makes every volume of the pod ready. VOLUME_NOT_READY says which is not, and why; called again it goes on. */
  async prepare(self: Self): Promise<Map<string, ReadyVolume>> {
    const ready = new Map<string, ReadyVolume>();
    for (const volume of self.pod.spec.volumes ?? []) ready.set(volume.name, await this.#prepareOne(volume, self));
    return ready;
  }

  /** Brings what follows the cluster's objects up to date; when a token has to be renewed next. */
  async refresh(self: Self): Promise<number | undefined> {
    for (const volume of self.pod.spec.volumes ?? []) if (isPayloadVolume(volume)) await this.#write(volume, self);
    return this.#o.tokens.renewInMs(self.pod.metadata.uid);
  }

  /**
   * A part of a volume for the container's Nth mount; its path, where only the host's own can change what it names (CVE-2017-1002101,
   * CVE-2021-25741).
   */
  async bindSubPath(
    uid: string,
    mount: { container: string; index: number; volume: string; path: string },
  ): Promise<string> {
    const directory = this.#subPaths(uid, mount.container);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const target = join(directory, String(mount.index));
    try {
      await this.#o.host.bindSubPath(mount.volume, mount.path, target);
    } catch (error) {
      if (!isCode(error, 'BAD_SUBPATH')) throw error;
      throw new BadContainerConfig({ message: `failed to prepare subPath: ${error.message}` }, { cause: error });
    }
    return target;
  }

  /** What an earlier run of the container had; absent is fine. */
  async dropSubPaths(uid: string, container: string): Promise<void> {
    const directory = this.#subPaths(uid, container);
    for (const name of await namesIn(directory)) {
      const target = join(directory, name);
      await this.#o.host.unmount(target);
      // Never with what is below: were it still mounted, that would be the user's files.
      await ((await lstat(target)).isDirectory() ? rmdir(target) : unlink(target));
    }
  }

  /** Where an emptyDir on disk is. */
  emptyDirPath(uid: string, volume: string): string {
    return join(this.#o.dataDir, uid, 'volumes', volume);
  }

  /** The disk that the pod's emptyDirs hold is given back; absent is fine. */
  async dropEmptyDirs(uid: string): Promise<void> {
    await rm(join(this.#o.dataDir, uid, 'volumes'), { recursive: true, force: true });
  }

  /** Everything of the pod on this node; absent is fine. */
  async release(uid: string): Promise<void> {
    const volumes = join(this.#o.runDir, uid, 'volumes');
    for (const name of await namesIn(volumes)) {
      const path = join(volumes, name);
      // Without this an emptyDir in memory would be emptied and then left mounted.
      await this.#o.host.unmount(path);
      this.#mounted.delete(path);
    }
    for (const container of await namesIn(join(this.#o.runDir, uid, 'subpaths')))
      await this.dropSubPaths(uid, container);
    this.#o.tokens.forget(uid);
    await rm(join(this.#o.runDir, uid), { recursive: true, force: true });
    await rm(join(this.#o.dataDir, uid), { recursive: true, force: true });
  }

  async #prepareOne(volume: Volume, self: Self): Promise<ReadyVolume> {
    const { uid } = self.pod.metadata;
    if (isPayloadVolume(volume)) return { source: await this.#write(volume, self), readonly: true };
    if (volume.emptyDir) return { source: await this.#emptyDir(volume, self), readonly: false };
    if (volume.hostPath) return { source: await hostPath(volume.name, volume.hostPath), readonly: false };
    const claim = claimNameOf(self.pod, volume);
    if (claim !== undefined) return this.#claim(volume, claim, self);
    const kind = Object.keys(volume).find((key) => key !== 'name') ?? 'none';
    throw new VolumeNotReady({
      volume: volume.name,
      message: `volumes of kind ${kind} cannot be mounted by this node (pod ${uid})`,
    });
  }

  async #emptyDir(volume: Volume, self: Self): Promise<string> {
    const path = this.#path(self.pod.metadata.uid, volume);
    const group = self.pod.spec.securityContext?.fsGroup;
    if (this.#mounted.has(path)) return path;
    const made = await mkdir(path, { recursive: true });
    if (volume.emptyDir?.medium === 'Memory') {
      const { sizeLimit } = volume.emptyDir;
      // Found again after a restart of ours: what is mounted there stays.
      if ((await lstat(path)).dev === (await lstat(dirname(path))).dev)
        await this.#o.host.mountTmpfs(path, sizeLimit === undefined ? {} : { sizeBytes: unitsOf(sizeLimit) });
      this.#mounted.add(path);
    } else if (made === undefined) return path;
    await chmod(path, 0o777);
    if (group !== undefined) await giveToGroup(path, group, 'Always');
    return path;
  }

  async #claim(volume: Volume, name: string, self: Self): Promise<ReadyVolume> {
    const { client } = this.#o;
    const wait = (message: string): never => {
      throw new VolumeNotReady({ volume: volume.name, message });
    };
    const namespace = self.pod.metadata.namespace ?? '';
    const claim = await client.find(PERSISTENT_VOLUME_CLAIMS, keyIn(namespace, name));
    if (!claim) return wait(`persistentvolumeclaim "${name}" not found`);
    if (volume.ephemeral && !claim.metadata.ownerReferences?.some((o) => o.uid === self.pod.metadata.uid))
      return wait(
        `PVC ${namespace}/${name} was not created for pod ${namespace}/${self.pod.metadata.name} (pod is not owner)`,
      );
    if (claim.metadata.deletionTimestamp) return wait(`PVC ${namespace}/${name} is being deleted`);
    if (claim.status?.phase !== 'Bound' || !claim.spec.volumeName) return wait(`PVC ${namespace}/${name} is not bound`);
    const found = await client.get(PERSISTENT_VOLUMES, claim.spec.volumeName);
    const path = found.spec?.local?.path ?? found.spec?.hostPath?.path;
    if (path === undefined) return wait(`volume ${found.metadata.name} is of a kind that this node cannot mount`);
    const source = await hostPath(volume.name, { path, type: found.spec?.hostPath?.type ?? 'Directory' });
    const security = self.pod.spec.securityContext;
    if (security?.fsGroup !== undefined)
      await giveToGroup(source, security.fsGroup, security.fsGroupChangePolicy ?? 'Always');
    const modes = claim.spec.accessModes ?? [];
    const onlyRead = modes.length > 0 && modes.every((mode) => mode === 'ReadOnlyMany');
    return { source, readonly: onlyRead || (volume.persistentVolumeClaim?.readOnly ?? false) };
  }

  async #write(volume: Volume, self: Self): Promise<string> {
    const { objects, tokens, clock } = this.#o;
    const { namespace = '', uid } = self.pod.metadata;
    if (usesToken(volume)) await tokens.renew(self.pod, volume);
    const payload = payloadOf(volume, self, {
      configMap: (name) => objects.configMap(namespace, name),
      secret: (name) => objects.secret(namespace, name),
      token: (projection) => tokens.current(uid, projection),
    });
    const path = this.#path(uid, volume);
    mkdirSync(path, { recursive: true, mode: 0o755 });
    const group = self.pod.spec.securityContext?.fsGroup;
    const user = onlyUser(self.pod);
    writeAtomically(path, payload, {
      // A token is its user's alone where there is one user; with a group it is the group's.
      owner: ({ token }): FileOwner => ({ uid: token ? (user ?? 0) : 0, gid: group ?? 0 }),
      mode: (mode, { token }) => (token && user !== undefined ? 0o600 : mode) | (group === undefined ? 0 : 0o440),
      stamp: stampOf(clock.now()),
    });
    for (const inner of nestedMountPoints(volume.name, self.pod.spec)) await mkdirUnlessThere(join(path, inner));
    return path;
  }

  #subPaths(uid: string, container: string): string {
    return join(this.#o.runDir, uid, 'subpaths', container);
  }

  #path(uid: string, volume: Volume): string {
    const onDisk = volume.emptyDir !== undefined && volume.emptyDir.medium !== 'Memory';
    return onDisk ? this.emptyDirPath(uid, volume.name) : join(this.#o.runDir, uid, 'volumes', volume.name);
  }
}

function usesToken(volume: Volume): boolean {
  return volume.projected?.sources?.some((s) => s.serviceAccountToken) ?? false;
}

/** The one user that all containers run as, when their spec says it. */
function onlyUser({ spec }: Pod): number | undefined {
  const users = [...spec.containers, ...(spec.initContainers ?? [])].map(
    (c) => c.securityContext?.runAsUser ?? spec.securityContext?.runAsUser,
  );
  return users.every((user) => user === users[0]) ? users[0] : undefined;
}

/** `2026_11_21_08_00_00.123456789`: never the same twice, since a new one is made only when something changed. */
function stampOf(nowMs: number): string {
  const iso = new Date(nowMs).toISOString();
  return `${iso.slice(0, 19).replace(/[-T:]/g, '_')}.${iso.slice(20, 23)}${process.hrtime.bigint() % 1_000_000n}`;
}

const CHECKS: Record<string, [what: string, is: (info: Awaited<ReturnType<typeof lstat>>) => boolean]> = {
  Directory: ['a directory', (s) => s.isDirectory()],
  File: ['a file', (s) => s.isFile()],
  Socket: ['a socket', (s) => s.isSocket()],
  CharDevice: ['a character device', (s) => s.isCharacterDevice()],
  BlockDevice: ['a block device', (s) => s.isBlockDevice()],
};

async function hostPath(volume: string, { path, type = '' }: HostPathVolumeSource): Promise<string> {
  if (type === 'DirectoryOrCreate' || type === '') {
    if (type !== '') await mkdir(path, { recursive: true, mode: 0o755 });
    else await mkdirUnlessThere(path);
  } else if (type === 'FileOrCreate') {
    await writeFile(path, '', { flag: 'a', mode: 0o644 });
  } else {
    const [what, is] = CHECKS[type] ?? ['of a known type', () => false];
    const info = await statOf(path);
    if (!info || !is(info))
      throw new VolumeNotReady({ volume, message: `hostPath type check failed: ${path} is not ${what}` });
  }
  return path;
}

/** Without a type nothing is checked; what is missing becomes a directory, as container runtimes make it. */
async function mkdirUnlessThere(path: string): Promise<void> {
  if (!(await statOf(path))) await mkdir(path, { recursive: true, mode: 0o755 });
}

async function statOf(path: string): Promise<Awaited<ReturnType<typeof lstat>> | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
