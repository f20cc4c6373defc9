import type { BuildGraph, PlannedStage, RunStep } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import type { StepStack } from '#build/step/room.ts';
import type { ContentLease } from '#image/content.ts';
import type { Image } from '#image/images.ts';
import { digestOf } from '#spec/image/digest.ts';
import { type Descriptor, type ImageConfig, MEDIA } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import type { Reference } from '#spec/image/reference.ts';

type Target = Pick<Descriptor, 'digest' | 'mediaType' | 'size'>;

/** What the target stage ended with, and what stood below it. */
export interface Built {
  graph: BuildGraph;
  layers: StepLayer[];
  /** By step: what each line of the history did. */
  stacks: ReadonlyMap<number, StepStack>;
  base: Image | undefined;
  platform: Platform;
  epochSec: number | undefined;
  /** For a build of nothing but an empty root. */
  nowMs: number;
  /** Set by `--squash`: what the last line of the history says of it, and no other line has a layer. */
  squashed?: string;
}

/** The same result with what was added to its base as one layer. Docker says of what image it was made. */
export function asSquashed(built: Built, layers: StepLayer[]): Built {
  if (layers.length === built.layers.length) return built;
  const whole = digestOf(JSON.stringify(imageConfig(built)));
  return { ...built, layers, squashed: `merge ${whole} to ${built.base?.id ?? 'scratch'}` };
}

/**
 * The image's configuration (image-spec, config.md), with history as Docker writes it. Times are those of the steps, not of
 * this build: the same steps from the cache give the same bytes.
 */
export function imageConfig(built: Built): ImageConfig {
  const { graph, layers, base, platform, epochSec } = built;
  const { target } = graph;
  const baseConfig = base?.platform.config;
  let atMs = epochSec === undefined ? createdAtMs(baseConfig) : epochSec * 1000;
  const history = target.history.map((line) => {
    const stack = line.step === undefined ? undefined : built.stacks.get(line.step);
    if (epochSec === undefined) atMs = Math.max(atMs, stack?.createdAtMs ?? 0);
    return {
      created: new Date(atMs).toISOString(),
      created_by: line.createdBy,
      ...(line.comment === undefined ? {} : { comment: line.comment }),
      ...(stack?.own && built.squashed === undefined ? {} : { empty_layer: true }),
    };
  });
  if (built.squashed !== undefined)
    history.push({ created: new Date(atMs).toISOString(), created_by: '', comment: built.squashed });
  if (atMs === 0 && epochSec === undefined) atMs = built.nowMs;
  const author = target.author ?? baseConfig?.author;
  return {
    created: new Date(atMs).toISOString(),
    ...(author === undefined ? {} : { author }),
    architecture: platform.architecture,
    os: platform.os,
    ...(platform.variant ? { variant: platform.variant } : {}),
    config: settingsOf(target),
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    history: [...(baseConfig?.history ?? []), ...history],
  };
}

function createdAtMs(config: ImageConfig | undefined): number {
  const ms = Date.parse(config?.created ?? '');
  return Number.isNaN(ms) ? 0 : ms;
}

function settingsOf({ settings }: PlannedStage): NonNullable<ImageConfig['config']> {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

/** Layers packed, configuration and manifest written, the names given to it. */
export async function storeImage(
  node: BuildNode,
  built: Built,
  names: readonly Reference[],
  lease: ContentLease,
): Promise<Image> {
  return node.images.add(await writeImage(node, imageConfig(built), built.layers, lease), names);
}

/** What `estiba debug-build` starts: the layers as they are, a shell in the command's place. */
export async function storeDebugImage(
  node: BuildNode,
  stack: readonly StepLayer[],
  step: RunStep,
  lease: ContentLease,
): Promise<Image> {
  const config: ImageConfig = {
    created: new Date(node.clock.now()).toISOString(),
    architecture: node.platform.architecture,
    os: node.platform.os,
    config: { Env: step.env, WorkingDir: step.cwd, User: step.user, Cmd: step.argv },
    rootfs: { type: 'layers', diff_ids: stack.map((layer) => layer.diffId) },
  };
  return node.images.add(await writeImage(node, config, stack, lease), []);
}

/**
 * Configuration, manifest and what layers are still on their way go to the disk together: what waits for one waits for all. Nothing
 * is written that is there: a cached build ends here without touching the disk.
 */
async function writeImage(
  { content, stepLayers }: BuildNode,
  config: ImageConfig,
  stack: readonly StepLayer[],
  lease: ContentLease,
): Promise<Target> {
  const writes: Promise<unknown>[] = [];
  const put = (mediaType: string, value: object): Target => {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    lease.add(digest);
    writes.push(content.put(bytes));
    return { mediaType, digest, size: bytes.length };
  };
  const layers = await Promise.all(stack.map((layer) => stepLayers.packed(layer, lease)));
  const target = put(MEDIA.ociManifest, {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: put(MEDIA.ociConfig, config),
    layers: layers.map(({ blob: { mediaType, digest, size } }) => ({ mediaType, digest, size })),
  });
  await Promise.all([...writes, ...layers.map(({ stored }) => stored)]);
  return target;
}
