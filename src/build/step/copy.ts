import { createHash } from 'node:crypto';
import type { StepRecord } from '#build/cache.ts';
import type { SourceTree } from '#build/context/tree.ts';
import { addedSelections } from '#build/copy/archive.ts';
import { EMPTY_TREE, LayerContents } from '#build/copy/layer.ts';
import { modeChange } from '#build/copy/mode.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import type { Selection } from '#build/copy/select.ts';
import { type CopyStep, copiedRoots } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import { ownerIn } from '#build/sandbox.ts';
import { newSec, type StepRoom, type StepStack } from '#build/step/room.ts';

/** What making a step gave. */
export interface Made {
  /** Undefined: it added nothing. */
  layer?: StepLayer;
  /** Of a copy from a stage or an image: digest of all that it put, times apart. */
  files?: string;
  /** An earlier step that gave just this, in the place of a layer. */
  known?: StepRecord;
}

/**
 * COPY and ADD: what their sources name, written as a layer straight from where it is. `earlier`: what this very step has given on the
 * same root before; the stages that it copies from may have had other files then.
 */
export async function copyStep(
  step: CopyStep,
  root: StepStack,
  earlier: readonly StepRecord[],
  room: StepRoom,
): Promise<Made> {
  const { node, options, sources, lease, signal } = room;
  const below = await sources.view(root.layers, 'the image');
  const owner = step.chown === undefined ? undefined : await chosenOwner(step.chown, below);
  const contents = new LayerContents({
    destination: step.destination,
    root: step.link ? EMPTY_TREE : below,
    owner,
    mode: step.chmod === undefined ? undefined : modeChange(step.chmod),
    parents: step.parents,
    newestSec: options.epochSec,
  });
  for (const item of step.items) {
    if ('inline' in item) await contents.place(inlineSelection(item.inline.name, item.inline.text, newSec(room)));
    else if ('remote' in item) {
      for (const one of await sources.downloaded(item, step)) await place(contents, one, room);
    } else {
      for (const one of await sources.selection(item.from, item.path, step, item.unpack))
        await place(contents, sources.isContext(item.from) ? ownedByRoot(one) : one, room);
    }
    signal.throwIfAborted();
  }
  if (contents.isEmpty) return {};
  if (copiedRoots(step, (id) => sources.isContext(id)).length === 0)
    return { layer: await node.stepLayers.make(contents.tar(), lease) };
  if (earlier.length > 0) {
    const files = await contents.digest();
    const known = earlier.find((record) => record.files === files);
    if (known) return { known };
  }
  const hash = createHash('sha256');
  const layer = await node.stepLayers.make(contents.tar(hash), lease);
  return { layer, files: hash.digest('hex') };
}

/** WORKDIR: the directory, unless it is there. */
export async function workdirStep(
  { path, user }: { path: string; user: string },
  root: StepStack,
  room: StepRoom,
): Promise<StepLayer | undefined> {
  const { node, options, sources, lease } = room;
  const below = await sources.view(root.layers, 'the image');
  if (await isDirectory(below, path)) return undefined;
  const owner = user === '' ? undefined : await chosenOwner(user, below);
  const contents = new LayerContents({
    destination: path,
    root: below,
    owner,
    mode: undefined,
    parents: false,
    newestSec: options.epochSec,
  });
  await contents.makeDirectory(path, newSec(room));
  return contents.isEmpty ? undefined : node.stepLayers.make(contents.tar(), lease);
}

/** Files of a context belong to nobody here: whoever sent them has other users. */
export function ownedByRoot(selection: Selection): Selection {
  if (selection.unpack) return selection;
  const mine = <T extends { uid: number; gid: number }>(info: T): T => ({ ...info, uid: 0, gid: 0 });
  return {
    ...selection,
    info: mine(selection.info),
    files: selection.files.map((file) => ({ ...file, info: mine(file.info) })),
  };
}

async function place(contents: LayerContents, selection: Selection, { node }: StepRoom): Promise<void> {
  for (const one of await addedSelections(selection, node.files)) await contents.place(one);
}

async function chosenOwner(wish: string, root: SourceTree): Promise<{ uid: number; gid: number }> {
  const [user = '', group] = wish.split(':', 2);
  const { uid, gid } = await ownerIn(root, wish);
  // Without a group, COPY takes the user's number for it where that is a number (Dockerfile reference, "COPY --chown").
  return group === undefined && /^\d+$/.test(user) ? { uid, gid: uid } : { uid, gid };
}

async function isDirectory(tree: SourceTree, path: string): Promise<boolean> {
  return (await resolveIn(tree, path)).info?.type === 'dir';
}

const INLINE_MODE = 0o644;

function inlineSelection(name: string, text: string, mtimeSec: number): Selection {
  const bytes = Buffer.from(text);
  const info = {
    type: 'file' as const,
    mode: INLINE_MODE,
    uid: 0,
    gid: 0,
    size: bytes.length,
    mtimeSec,
    linkTarget: '',
    deviceMajor: 0,
    deviceMinor: 0,
  };
  const tree: SourceTree = { ...EMPTY_TREE, what: name, open: () => asyncOf(bytes) };
  return { tree, path: '', info, name, files: [{ path: '', info }], unpack: false };
}

async function* asyncOf(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
