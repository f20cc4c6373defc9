import type { Background } from '#build/background.ts';
import type { ContextTree } from '#build/context/tree.ts';
import type { Tell } from '#build/events.ts';
import type { FailedSteps } from '#build/failed.ts';
import type { BuildGraph } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import type { Given } from '#build/run-mounts.ts';
import type { SandboxLimits } from '#build/sandbox.ts';
import type { StepSources } from '#build/step/sources.ts';
import type { ContentLease } from '#image/content.ts';
import type { Image } from '#image/images.ts';

/** One build's wishes, as its steps need them. */
export interface ExecutionOptions {
  graph: BuildGraph;
  /** Name and text of the Dockerfile: errors show its lines. */
  file: { name: string; text: string };
  /** `''` is the main one. */
  contexts: ReadonlyMap<string, ContextTree>;
  /** By `imageKey`: what the plan's `image` steps stand for. */
  images: ReadonlyMap<string, Image>;
  given: Given;
  limits: SandboxLimits;
  /** `network.host`: what RUN may ask for. */
  allow: ReadonlySet<string>;
  /** Proxies: seen by RUN, in no key. */
  proxies: string[];
  /** SOURCE_DATE_EPOCH, in seconds. */
  epochSec: number | undefined;
  failed: FailedSteps;
  tell: Tell;
  signal: AbortSignal;
}

/** What a step ends with: the layers of its root, lowest first. */
export interface StepStack {
  layers: StepLayer[];
  /** Whether the step added the uppermost. */
  own: boolean;
  /** When that was made; undefined for an image's layers. */
  createdAtMs: number | undefined;
}

/** What the making of one step's layer is given besides the step. */
export interface StepRoom {
  node: BuildNode;
  options: ExecutionOptions;
  sources: StepSources;
  lease: ContentLease;
  /** What of steps that are done is still being taken down. The build waits for it before it ends. */
  ends: Background;
  /** The build's, and the first failure's. */
  signal: AbortSignal;
}

/** The time of what a step makes of nothing. */
export function newSec({ node, options }: StepRoom): number {
  return options.epochSec ?? Math.floor(node.clock.now() / 1000);
}
