import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import type { ContentLease } from '#image/content.ts';
import { tarOf } from '#image/diff.ts';
import { merged } from '#image/merge.ts';

/**
 * `--squash`: what a build added to its base, as one layer. What one of its layers made and a later one removed is in neither the image
 * nor its size any more.
 */
export async function squashed(
  node: BuildNode,
  stack: readonly StepLayer[],
  lease: ContentLease,
  epochSec: number | undefined,
): Promise<StepLayer[]> {
  const base = stack.filter((layer) => !layer.made);
  const added = stack.slice(base.length);
  if (added.length < 2) return [...stack];
  const { snapshots, stepLayers, layers } = node;
  const directories = await snapshots.view(await stepLayers.ready(added));
  const below = base.length === 0 ? [] : await snapshots.view(await stepLayers.ready(base));
  const levels = await Promise.all(
    directories.map(async (directory) => ({ directory, xattrs: await node.readXattrs(directory) })),
  );
  const { opaqueXattr } = layers;
  const xattrs = new Map<string, ReadonlyMap<string, Uint8Array>>();
  const newest = epochSec === undefined ? {} : { newestSec: epochSec };
  const tar = tarOf(merged(levels, { below, opaqueXattr, xattrs }), xattrs, { whiteouts: opaqueXattr, ...newest });
  return [...base, await stepLayers.make(tar, lease)];
}
