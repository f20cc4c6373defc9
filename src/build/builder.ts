import { mkdir, rm, statfs } from 'node:fs/promises';
import { describeChain } from '#base/errors.ts';
import { Background } from '#build/background.ts';
import { StepCache } from '#build/cache.ts';
import { CacheMounts } from '#build/cache-mounts.ts';
import { checkDockerfile, heedDirective } from '#build/checks.ts';
import { FileStore } from '#build/context/files.ts';
import { type ContextTree, type SourceTree, treeSource } from '#build/context/tree.ts';
import { readText } from '#build/copy/resolve.ts';
import { BuildCancelled, ChecksFailed, DockerfileMissing, TooManyRounds } from '#build/errors.ts';
import type { BuildEvent, Tell } from '#build/events.ts';
import { Execution } from '#build/execute.ts';
import { exportImage } from '#build/export.ts';
import { FailedSteps } from '#build/failed.ts';
import { excerptOf } from '#build/failure.ts';
import type { BuildGraph } from '#build/graph.ts';
import { StepLayers } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import { type BuildOptions, imageKey, planBuild, type ResolvedImage } from '#build/plan.ts';
import { asSquashed, type Built, storeDebugImage, storeImage } from '#build/result.ts';
import type { Given } from '#build/run-mounts.ts';
import { type SandboxLimits, sweepSandboxes } from '#build/sandbox.ts';
import { PROXY_ARGS } from '#build/scope.ts';
import { squashed } from '#build/squash.ts';
import type { StepStack } from '#build/step/room.ts';
import { type CacheUse, cacheUse, type PruneAllWish, pruneAll, roomForCache } from '#build/tidy.ts';
import type { Image } from '#image/images.ts';
import type { BuildWarning } from '#spec/dockerfile/errors.ts';
import type { Ignore } from '#spec/dockerfile/ignore.ts';
import { type Dockerfile, parseDockerfile } from '#spec/dockerfile/instructions.ts';
import type { ExportType } from '#spec/estiba/build.ts';
import { parsePlatform } from '#spec/image/platform.ts';
import type { Reference } from '#spec/image/reference.ts';
import type { Store } from '#storage/store.ts';

/** One build, whoever asks: everything has been received and parsed. */
export interface BuildRequest {
  file: { name: string; text: string };
  contexts: ReadonlyMap<string, ContextTree>;
  options: BuildOptions;
  given: Given;
  limits: SandboxLimits;
  allow: ReadonlySet<string>;
  /** Ask registries for newer base images. */
  pull: boolean;
  /** What is added to the base becomes one layer. */
  squash: boolean;
  epochSec: number | undefined;
  names: readonly Reference[];
  /** Credentials for base images, by registry. */
  auth: Readonly<Record<string, object>>;
}

export interface Finished {
  image: Image;
  graph: BuildGraph;
}

/** A plan asks for images, gets them, and may ask again (ONBUILD): more rounds than this nobody needs. */
const ROUNDS_MAX = 100;

const TIDY_EVERY_MS = 600_000;

/** Builds of one node. */
export class Builder {
  readonly node: BuildNode;
  readonly failed: FailedSteps;
  readonly #dataDirectory: string;
  readonly #budgetBytes: number | undefined;
  #building = 0;
  #tidiedAtMs = 0;

  private constructor(node: BuildNode, failed: FailedSteps, dataDirectory: string, budgetBytes: number | undefined) {
    this.node = node;
    this.failed = failed;
    this.#dataDirectory = dataDirectory;
    this.#budgetBytes = budgetBytes;
  }

  /** `dataDirectory` keeps files of contexts and cache mounts. What builds of an earlier daemon left is removed. */
  static async open(
    parts: Omit<BuildNode, 'files' | 'cache' | 'stepLayers' | 'cacheMounts' | 'background'> & {
      dataDirectory: string;
      store: Store;
      /** What blobs, layers and all that builds keep may take together; undefined: builds keep a tenth of the disk. */
      budgetBytes?: number | undefined;
    },
  ): Promise<Builder> {
    const { content, layers, snapshots, images, clock, random, dataDirectory, store } = parts;
    await sweepSandboxes(parts.sandbox);
    await rm(parts.runDirectory, { recursive: true, force: true });
    await mkdir(parts.runDirectory, { recursive: true, mode: 0o700 });
    await mkdir(dataDirectory, { recursive: true, mode: 0o700 });
    const background = new Background(parts.log);
    const cache = await StepCache.open({ store, content, layers, snapshots, images, background, clock });
    const node: BuildNode = {
      ...parts,
      files: await FileStore.openAt(`${dataDirectory}/files`, clock, random),
      cache,
      stepLayers: new StepLayers({ content, layers, cache, background, random }),
      cacheMounts: new CacheMounts(`${dataDirectory}/mounts`, clock),
      background,
    };
    const failed = new FailedSteps(snapshots, clock, random);
    return new Builder(node, failed, dataDirectory, parts.budgetBytes);
  }

  /** Every build, from the docker CLI's to `estiba up`'s, ends here. */
  async build(request: BuildRequest, tell: Tell, signal: AbortSignal): Promise<Finished> {
    this.#building++;
    try {
      return await this.#build(request, tell, signal);
    } finally {
      this.#building--;
      void this.tidy().catch((error: unknown) =>
        this.node.log.error('the build cache could not be tidied', { error: describeChain(error) }),
      );
    }
  }

  /** Keeps what builds keep within its budget; now and then, and never under a running build. */
  async tidy(): Promise<void> {
    const { node } = this;
    const nowMs = node.clock.monotonic();
    if (this.#building > 0 || (this.#tidiedAtMs > 0 && nowMs - this.#tidiedAtMs < TIDY_EVERY_MS)) return;
    this.#tidiedAtMs = nowMs;
    const keepBytes = await roomForCache(node, this.#dataDirectory, this.#budgetBytes);
    const { ids, freedBytes } = await pruneAll(node, { all: true, keepBytes });
    if (ids.length > 0)
      node.log.info('build cache pruned for the disk budget', { entries: ids.length, freedBytes, keepBytes });
  }

  /** What the disk that builds keep things on has left for others. */
  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#dataDirectory);
    return bavail * bsize;
  }

  async #build(request: BuildRequest, tell: Tell, signal: AbortSignal): Promise<Finished> {
    const { node } = this;
    const file = parseDockerfile(request.file.text, request.file.name);
    const { graph, images, warnings } = await this.plan(file, request, tell, signal);
    this.#warn(request, file, [...checkDockerfile(file), ...warnings], tell);
    tell({ at: 'planned', graph });
    const execution = new Execution(node, {
      ...request,
      graph,
      images,
      proxies: proxiesOf(request.options.args),
      failed: this.failed,
      tell,
      signal,
    });
    try {
      const { layers } = await execution.stack(graph.target.root);
      const whole = await this.#built(request, graph, images, layers, execution);
      const { lease } = execution;
      const built = request.squash ? asSquashed(whole, await squashed(node, layers, lease, request.epochSec)) : whole;
      return { image: await storeImage(node, built, request.names, execution.lease), graph };
    } catch (error) {
      if (signal.aborted) throw new BuildCancelled({}, { cause: error });
      throw error;
    } finally {
      await execution.close();
    }
  }

  /** Warnings alone: nothing is fetched or run. Those that need the base images' settings are told when these are here. */
  async check(
    request: BuildRequest,
    ignore: Ignore,
    signal: AbortSignal,
  ): Promise<{ warnings: Extract<BuildEvent, { at: 'warning' }>[]; fail: boolean }> {
    const file = parseDockerfile(request.file.text, request.file.name);
    const planned: BuildWarning[] = [];
    for (const stage of file.stages) {
      const options = { ...request.options, target: stage.name ?? String(stage.index) };
      const { warnings } = await this.plan(file, { ...request, options }, () => undefined, signal, 'known');
      for (const warning of warnings) if (!planned.some((other) => isSame(other, warning))) planned.push(warning);
    }
    const { warnings, fail } = heedDirective(file.directives.check, [...checkDockerfile(file, ignore), ...planned]);
    const told = warnings.map((warning) => ({
      at: 'warning' as const,
      warning,
      excerpt: excerptOf(request.file.text, warning.lines),
    }));
    return { warnings: told, fail };
  }

  /** A result as a file. One that no name holds goes with it. */
  async *export(image: Image, type: ExportType): AsyncGenerator<Buffer> {
    yield* exportImage(this.node, image, type);
    if (image.repoTags.length === 0 && image.repoDigests.length === 0) await this.node.images.remove(image.id);
  }

  /** The root of a command that failed, as an image that starts where the command did. */
  async imageOfFailed(id: string | undefined): Promise<{ image: Image; network: string }> {
    const { node } = this;
    const { snapshot, layers, step, network } = this.failed.find(id);
    const lease = node.content.lease('a failed step');
    try {
      const top = await node.stepLayers.make(node.snapshots.diff(snapshot), lease);
      return { image: await storeDebugImage(node, [...layers, top], step, lease), network };
    } finally {
      lease.release();
    }
  }

  /** Mounts of builds go; roots of failed steps do not outlive the daemon. */
  async close(): Promise<void> {
    await this.node.background.idle();
    await this.failed.prune(0);
    await this.node.overlays.unmountAll();
  }

  /** What builds keep on disk: steps, cache mounts, files of contexts. */
  usage(): Promise<CacheUse[]> {
    return cacheUse(this.node);
  }

  prune(wish: PruneAllWish): Promise<{ ids: string[]; freedBytes: number }> {
    return pruneAll(this.node, wish);
  }

  /** Plans until every image that the target stands on is here. */
  async plan(
    file: Dockerfile,
    request: Pick<BuildRequest, 'options' | 'pull' | 'auth'>,
    tell: Tell,
    signal: AbortSignal,
    /** `known`: an image that is not here stands as one without settings. */
    fetch: 'pull' | 'known' = 'pull',
  ): Promise<{ graph: BuildGraph; images: Map<string, Image>; warnings: BuildWarning[] }> {
    const resolved = new Map<string, ResolvedImage>();
    const images = new Map<string, Image>();
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const plan = planBuild(file, request.options, resolved);
      if (plan.done) return { graph: plan.graph, images, warnings: plan.warnings };
      await Promise.all(
        plan.wanted.map(async (wanted) => {
          const note = (text: string): void => tell({ at: 'note', text });
          const { reference, platform } = wanted;
          if (fetch === 'known' && !(await this.node.images.find(reference))) {
            resolved.set(imageKey(wanted), { digest: '', settings: {} });
            return;
          }
          const image = await this.node.image(reference, {
            platform,
            always: request.pull,
            auth: request.auth,
            note,
            signal,
          });
          images.set(imageKey(wanted), image);
          resolved.set(imageKey(wanted), {
            digest: image.platform.manifestDigest,
            settings: image.platform.config.config ?? {},
          });
        }),
      );
    }
    throw new TooManyRounds({ rounds: ROUNDS_MAX });
  }

  async #built(
    request: BuildRequest,
    graph: BuildGraph,
    images: ReadonlyMap<string, Image>,
    layers: StepStack['layers'],
    execution: Execution,
  ): Promise<Built> {
    const { target } = graph;
    const stacks = new Map<number, StepStack>();
    for (const { step } of target.history) if (step !== undefined) stacks.set(step, await execution.known(step));
    const platform = parsePlatform(request.options.targetPlatform, this.node.platform);
    const base = target.base && [...images.values()].find((i) => i.platform.manifestDigest === target.base?.digest);
    const { epochSec } = request;
    return { graph, layers, stacks, base, platform, epochSec, nowMs: this.node.clock.now() };
  }

  #warn(request: BuildRequest, file: Dockerfile, all: readonly BuildWarning[], tell: Tell): void {
    const { warnings, fail } = heedDirective(file.directives.check, all);
    for (const warning of warnings)
      tell({ at: 'warning', warning, excerpt: excerptOf(request.file.text, warning.lines) });
    if (fail) throw new ChecksFailed({ count: warnings.length });
  }
}

function isSame(a: BuildWarning, b: BuildWarning): boolean {
  return a.check === b.check && a.lines.start === b.lines.start && a.message === b.message;
}

function proxiesOf(args: ReadonlyMap<string, string>): string[] {
  return [...args].filter(([name]) => PROXY_ARGS.has(name)).map(([name, value]) => `${name}=${value}`);
}

/** The Dockerfile of a context, whatever `.dockerignore` says of it; DOCKERFILE_MISSING. */
export async function readDockerfile(node: BuildNode, context: ContextTree, name: string): Promise<string> {
  const everything: SourceTree = {
    ...treeSource(context, 'the build context', (digest) => node.files.open(digest)),
    lstat: (path) => context.find(path),
  };
  const text = await readText(everything, name, DOCKERFILE_MAX_BYTES);
  if (text === '') throw new DockerfileMissing({ name });
  return text;
}

const DOCKERFILE_MAX_BYTES = 2 * 1024 * 1024;
