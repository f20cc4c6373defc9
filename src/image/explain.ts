import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { USER_OPAQUE_XATTR } from '#image/layer/directory-sink.ts';
import { OPAQUE_XATTR } from '#image/layer/tree.ts';
import type { LayerInfo } from '#image/layers.ts';
import { readXattrs } from '#image/xattrs.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { Digest } from '#spec/image/digest.ts';
import type { Descriptor, ImageConfig } from '#spec/image/manifest.ts';

/** One line of `docker history`, newest first there; here lowest first, with the layer it made. */
export interface HistoryLine {
  createdBy: string;
  created: string | undefined;
  comment: string;
  author: string;
  layer?: { diffId: Digest; blob: Digest; blobBytes: number; contentBytes: number };
}

/** Pairs history with layers: lines that are not `empty_layer` made one each. Images without history get a line a layer. */
export function historyOf(
  config: ImageConfig,
  layers: readonly Descriptor[],
  unpacked: (diffId: Digest) => LayerInfo | undefined,
): HistoryLine[] {
  const told: NonNullable<ImageConfig['history']> = [...(config.history ?? [])];
  const withLayer = told.filter((line) => !line.empty_layer).length;
  for (let i = withLayer; i < layers.length; i++) told.push({ created_by: '' });
  let next = 0;
  return told.map((line) => {
    const diffId = line.empty_layer ? undefined : config.rootfs.diff_ids[next];
    const blob = line.empty_layer ? undefined : layers[next];
    if (!line.empty_layer) next++;
    return {
      createdBy: line.created_by ?? '',
      created: line.created,
      comment: line.comment ?? '',
      author: line.author ?? '',
      ...(diffId && blob
        ? {
            layer: {
              diffId,
              blob: blob.digest,
              blobBytes: blob.size,
              contentBytes: unpacked(diffId)?.contentBytes ?? 0,
            },
          }
        : {}),
    };
  });
}

/** Bytes that travel with the image and nobody sees: hidden by a layer above. */
export interface Waste {
  path: string;
  bytes: number;
  /** Layers by position, lowest is 0. */
  layer: number;
  hiddenBy: number;
}

const FILES_MAX = 2_000_000;

/** The opaque directories of mounted layers, lowest first, for `wasteOf`. The executor writes its lists into `scratch`. */
export async function opaqueDirectories(
  lowestFirst: readonly string[],
  scratch: string,
  runPlan: (plan: Plan) => Promise<unknown>,
): Promise<(layer: number, path: string) => boolean> {
  const opaque: Set<string>[] = [];
  for (const root of lowestFirst) {
    const attributes = await readXattrs(root, runPlan, join(scratch, 'attributes'));
    const isOpaque = (names: ReadonlyMap<string, Uint8Array>): boolean =>
      names.has(OPAQUE_XATTR) || names.has(USER_OPAQUE_XATTR);
    opaque.push(new Set([...attributes].filter(([, names]) => isOpaque(names)).map(([path]) => path)));
  }
  return (layer, path) => opaque[layer]?.has(path) ?? false;
}

/** Walks mounted layers, lowest first. What a higher layer replaces, removes or covers with an opaque directory is waste. */
export async function wasteOf(
  lowestFirst: readonly string[],
  isOpaque: (layer: number, path: string) => boolean,
): Promise<Waste[]> {
  const visible = new Map<string, { bytes: number; layer: number }>();
  const waste: Waste[] = [];
  const hide = (path: string, by: number): void => {
    const hidden = visible.get(path);
    if (!hidden) return;
    visible.delete(path);
    if (hidden.bytes > 0) waste.push({ path, bytes: hidden.bytes, layer: hidden.layer, hiddenBy: by });
  };
  const hideBelow = (path: string, by: number): void => {
    for (const [other, { layer }] of visible) if (layer < by && other.startsWith(`${path}/`)) hide(other, by);
  };
  for (const [layer, root] of lowestFirst.entries()) {
    for await (const { path, bytes, kind } of filesOf(root)) {
      if (visible.size > FILES_MAX) return waste;
      if (kind === 'whiteout' || (kind === 'dir' && isOpaque(layer, path))) hideBelow(path, layer);
      if (kind === 'dir') continue;
      hide(path, layer);
      if (kind === 'file') visible.set(path, { bytes, layer });
    }
  }
  return waste.sort((a, b) => b.bytes - a.bytes);
}

async function* filesOf(
  root: string,
): AsyncGenerator<{ path: string; bytes: number; kind: 'file' | 'dir' | 'whiteout' }> {
  const pending = [''];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    for (const name of (await readdir(join(root, at))).sort()) {
      const path = at === '' ? name : `${at}/${name}`;
      const stat = await lstat(join(root, path));
      const kind = stat.isDirectory() ? 'dir' : stat.isCharacterDevice() && stat.rdev === 0 ? 'whiteout' : 'file';
      yield { path, bytes: stat.isFile() ? stat.size : 0, kind };
      if (kind === 'dir') pending.push(path);
    }
  }
}
