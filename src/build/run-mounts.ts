import { chmod, chown, cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { newId } from '#base/random.ts';
import type { Undo } from '#base/undo.ts';
import { MountedTree } from '#build/copy/mounted.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { CopySourceMissing, SecretMissing } from '#build/errors.ts';
import type { PlannedMount, StepId } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import type { OciMount } from '#spec/oci/config.ts';

/** Secrets and agents that who starts the build gave along. */
export interface Given {
  secrets: ReadonlyMap<string, Buffer>;
  /** Id → path of a socket of ours that leads to the agent. */
  agents: ReadonlyMap<string, string>;
}

export interface PreparedMounts {
  mounts: OciMount[];
  /** Secrets as variables, and the way to the agent. In no cache key. */
  env: string[];
}

export interface MountSources {
  /** Layers of a bind's or cache's source, and the path inside them; a context's files become a layer. */
  layers(from: StepId | undefined, source: string): Promise<{ layers: StepLayer[]; path: string; what: string }>;
}

const READ_ONLY = ['rbind', 'ro', 'rprivate'];
const WRITABLE = ['rbind', 'rprivate'];

/**
 * `RUN --mount`: each becomes a mount of config.json. `use` runs while cache directories are lent; everything made for the
 * command is undone with `undo`.
 */
export async function withMounts<T>(
  node: BuildNode,
  id: string,
  planned: readonly PlannedMount[],
  given: Given,
  sources: MountSources,
  undo: Undo,
  use: (prepared: PreparedMounts) => Promise<T>,
): Promise<T> {
  const prepared: PreparedMounts = { mounts: [], env: [] };
  const caches: Extract<PlannedMount, { type: 'cache' }>[] = [];
  const directory = join(node.runDirectory, id);
  for (const mount of planned) {
    switch (mount.type) {
      case 'tmpfs':
        prepared.mounts.push(tmpfs(mount));
        break;
      case 'bind':
        prepared.mounts.push(await bind(node, mount, sources, undo));
        break;
      case 'cache':
        caches.push(await cacheOf(mount, sources));
        break;
      case 'secret':
        await secret(mount, given, directory, undo, prepared);
        break;
      case 'ssh':
        agent(mount, given, prepared);
    }
  }
  const next = (index: number): Promise<T> => {
    const mount = caches[index];
    // Shorter targets first: a mount below another has to come after it.
    if (!mount) {
      prepared.mounts.sort((a, b) => (a.destination < b.destination ? -1 : 1));
      return use(prepared);
    }
    const fill = (path: string): Promise<void> => fillCache(node, mount, sources, path);
    return node.cacheMounts.with(mount, fill, (path) => {
      const options = mount.readonly ? READ_ONLY : WRITABLE;
      prepared.mounts.push({ destination: mount.target, type: 'bind', source: path, options });
      return next(index + 1);
    });
  };
  // In one order for every build, so that two that lock the same caches do not wait for each other.
  caches.sort((a, b) => (a.id < b.id ? -1 : 1));
  return next(0);
}

function tmpfs(mount: Extract<PlannedMount, { type: 'tmpfs' }>): OciMount {
  const size = mount.sizeBytes === undefined ? [] : [`size=${mount.sizeBytes}`];
  return { destination: mount.target, type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', ...size] };
}

async function bind(
  node: BuildNode,
  mount: Extract<PlannedMount, { type: 'bind' }>,
  sources: MountSources,
  undo: Undo,
): Promise<OciMount> {
  const { layers, path, what } = await sources.layers(mount.from, mount.source);
  const root = mount.readonly ? await viewOf(node, layers, undo) : await scratchOf(node, layers, undo);
  const tree = new MountedTree(what, root, node.readXattrs);
  const found = await resolveIn(tree, path);
  if (!found.info) throw new CopySourceMissing({ source: mount.source, where: what });
  const options = mount.readonly ? READ_ONLY : WRITABLE;
  return { destination: mount.target, type: 'bind', source: join(root, found.path), options };
}

async function viewOf(node: BuildNode, layers: readonly StepLayer[], undo: Undo): Promise<string> {
  const root = await node.overlays.view(await node.stepLayers.ready(layers));
  undo.add('view', () => node.overlays.unmount(root));
  return root;
}

/** `rw`: what is written is thrown away. */
async function scratchOf(node: BuildNode, layers: readonly StepLayer[], undo: Undo): Promise<string> {
  const id = `build-${newId(node.random)}`;
  await node.snapshots.prepare(id, await node.stepLayers.ready(layers), { volatile: true });
  undo.add('snapshot', () => node.snapshots.remove(id));
  const root = await node.overlays.mount(id);
  undo.add('mount', () => node.overlays.unmount(root));
  return root;
}

/** One that begins with a directory of a stage is another one when the stage is: what it was filled with would be out of date. */
async function cacheOf(
  mount: Extract<PlannedMount, { type: 'cache' }>,
  sources: MountSources,
): Promise<Extract<PlannedMount, { type: 'cache' }>> {
  if (mount.from === undefined) return mount;
  const { layers } = await sources.layers(mount.from, mount.source);
  return { ...mount, id: [mount.id, mount.source, ...layers.map((layer) => layer.diffId)].join(' ') };
}

async function fillCache(
  node: BuildNode,
  mount: Extract<PlannedMount, { type: 'cache' }>,
  sources: MountSources,
  path: string,
): Promise<void> {
  if (mount.from === undefined) return;
  const source = await sources.layers(mount.from, `/${mount.source.replace(/^\/+/, '')}`);
  const root = await node.overlays.view(await node.stepLayers.ready(source.layers));
  try {
    const found = await resolveIn(new MountedTree(source.what, root, node.readXattrs), source.path);
    if (found.info?.type !== 'dir') throw new CopySourceMissing({ source: mount.source, where: source.what });
    await cp(join(root, found.path), path, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
  } finally {
    await node.overlays.unmount(root);
  }
}

async function secret(
  mount: Extract<PlannedMount, { type: 'secret' }>,
  given: Given,
  directory: string,
  undo: Undo,
  prepared: PreparedMounts,
): Promise<void> {
  const bytes = given.secrets.get(mount.id);
  if (!bytes) {
    if (mount.required) throw new SecretMissing({ kind: 'secret', id: mount.id });
    return;
  }
  if (mount.env !== undefined) prepared.env.push(`${mount.env}=${bytes.toString()}`);
  if (mount.target === undefined) return;
  const { uid = 0, gid = 0, mode = 0o400 } = mount.owner as { uid?: number; gid?: number; mode?: number };
  const path = join(directory, `secret-${prepared.mounts.length}`);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  undo.add('secrets', () => rm(directory, { recursive: true, force: true }));
  await writeFile(path, bytes, { mode: 0o600 });
  await chown(path, uid, gid);
  await chmod(path, mode);
  prepared.mounts.push({ destination: mount.target, type: 'bind', source: path, options: READ_ONLY });
}

function agent(mount: Extract<PlannedMount, { type: 'ssh' }>, given: Given, prepared: PreparedMounts): void {
  const source = given.agents.get(mount.id);
  if (source === undefined) {
    if (mount.required) throw new SecretMissing({ kind: 'ssh', id: mount.id });
    return;
  }
  prepared.mounts.push({ destination: mount.target, type: 'bind', source, options: WRITABLE });
  if (!prepared.env.some((entry) => entry.startsWith('SSH_AUTH_SOCK=')))
    prepared.env.push(`SSH_AUTH_SOCK=${mount.target}`);
}
