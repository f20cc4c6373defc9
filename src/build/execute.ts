import { EstibaError } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import { Background } from '#build/background.ts';
import type { StepRecord, StepResult } from '#build/cache.ts';
import { treeDigest } from '#build/context/tree.ts';
import { selectionKey } from '#build/copy/select.ts';
import { BuildCancelled, StepFailed } from '#build/errors.ts';
import { stepFailed } from '#build/failure.ts';
import { type BuildStep, copiedRoots, inputsOf, type StepId, stepKey } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import { once } from '#build/once.ts';
import { copyStep, type Made, workdirStep } from '#build/step/copy.ts';
import type { ExecutionOptions, StepRoom, StepStack } from '#build/step/room.ts';
import { runStep } from '#build/step/run.ts';
import { StepSources } from '#build/step/sources.ts';
import type { ContentLease } from '#image/content.ts';
import type { Digest } from '#spec/image/digest.ts';

const EMPTY_STACK: StepStack = { layers: [], own: false, createdAtMs: undefined };

/**
 * Carries a graph out, from the target backwards: a step whose key is known gives what it gave before, and nothing it stands on
 * is looked at. The others run as soon as what they read is there, independent ones at once.
 */
export class Execution {
  readonly #node: BuildNode;
  readonly #o: ExecutionOptions;
  readonly #keys = new Map<StepId, Promise<string>>();
  readonly #contents = new Map<StepId, Promise<string>>();
  readonly #stacks = new Map<StepId, Promise<StepStack>>();
  readonly #commands: Limiter;
  readonly #abort = new AbortController();
  readonly #room: StepRoom;
  readonly #releases: (() => void)[] = [];
  /** Steps whose layers the result has. */
  readonly #ofTarget = new Set<StepId>();
  readonly #stale = new Map<StepId, boolean>();
  /** Steps that have been told of, run or known. */
  readonly #told = new Set<StepId>();

  constructor(node: BuildNode, options: ExecutionOptions) {
    this.#node = node;
    this.#o = options;
    this.#commands = new Limiter(node.parallel);
    const signal = AbortSignal.any([options.signal, this.#abort.signal]);
    const lease = node.content.lease('a build');
    const sources = new StepSources({
      node,
      options,
      lease,
      signal,
      detail: (id) => this.#detail(id),
      layersOf: async (id) => (await this.stack(id)).layers,
      hold: (layers) => this.#hold(layers),
      failure: (id, step, error) => this.#failure(id, step, error),
    });
    this.#room = { node, options, sources, lease, ends: new Background(node.log), signal };
    let root = options.graph.target.root;
    while (root !== undefined) {
      this.#ofTarget.add(root);
      const step = this.#detail(root);
      root = 'root' in step ? step.root : undefined;
    }
  }

  /** The layers of a step's root; `undefined` is the empty one. */
  async stack(id: StepId | undefined): Promise<StepStack> {
    if (id === undefined) return EMPTY_STACK;
    return once(this.#stacks, id, () => this.#step(id));
  }

  /** What a step of the target did, run now or known from before. */
  async known(id: StepId): Promise<StepStack> {
    if (this.#stacks.has(id)) return this.stack(id);
    const record = this.#node.cache.find(await this.#key(id));
    if (!record) return this.stack(id);
    return { layers: record.layers, own: record.own === 1, createdAtMs: record.createdAtMs };
  }

  get lease(): ContentLease {
    return this.#room.lease;
  }

  /** Ends what still runs, waits for it, and lets everything go. */
  async close(): Promise<void> {
    this.#abort.abort(new BuildCancelled({}));
    await Promise.allSettled([...this.#stacks.values(), ...this.#keys.values()]);
    await this.#room.ends.idle();
    await this.#room.sources.close();
    for (const release of this.#releases) release();
    this.lease.release();
  }

  // -- keys

  #key(id: StepId): Promise<string> {
    return once(this.#keys, id, () => this.#makeKey(id));
  }

  async #makeKey(id: StepId): Promise<string> {
    const step = this.#detail(id);
    switch (step.do) {
      case 'image':
        return `image ${step.digest}`;
      case 'context':
        return 'context'; // what is taken from it is the taker's part of the key
      case 'fetch':
      case 'git':
        return treeDigest(await this.#room.sources.tree(id));
      default: {
        const inputs = inputsOf(step);
        const keys = new Map<StepId, string>();
        const root = 'root' in step ? step.root : undefined;
        for (const input of inputs) {
          const isWhole = input === root && this.#room.sources.isContext(input);
          keys.set(input, isWhole ? await this.#wholeContext(input) : await this.#key(input));
        }
        const epoch = this.#o.epochSec === undefined ? '' : `epoch ${this.#o.epochSec} `;
        return stepKey(step, (input) => keys.get(input) ?? '', epoch + (await this.#content(id, step)));
      }
    }
  }

  /** Of a context that a stage stands on (`FROM context`): all of it counts. */
  async #wholeContext(id: StepId): Promise<string> {
    const { sources } = this.#room;
    return once(this.#contents, id, async () => selectionKey(await sources.selection(id, '/', undefined, false)));
  }

  /** What exactly a step takes from contexts and downloads. */
  #content(id: StepId, step: BuildStep): Promise<string> {
    return once(this.#contents, id, () => this.#makeContent(step));
  }

  async #makeContent(step: BuildStep): Promise<string> {
    const { sources } = this.#room;
    if (step.do === 'copy') {
      const taken = step.items.flatMap((item) => ('from' in item ? [item] : []));
      const fromContexts = taken.filter((item) => sources.isContext(item.from));
      const keys = await Promise.all(
        fromContexts.map(async (item) =>
          selectionKey(await sources.selection(item.from, item.path, step, item.unpack)),
        ),
      );
      return keys.join(' ');
    }
    if (step.do !== 'run') return '';
    const binds = step.mounts.flatMap((m) => (m.type === 'bind' && sources.isContext(m.from) ? [m] : []));
    const keys = await Promise.all(
      binds.map(async (m) => selectionKey(await sources.selection(m.from, m.source, undefined, false))),
    );
    return keys.join(' ');
  }

  // -- steps

  async #step(id: StepId): Promise<StepStack> {
    const step = this.#detail(id);
    const { cache, stepLayers, clock } = this.#node;
    const { tell } = this.#o;
    try {
      if (step.do === 'image') return this.#imageStack(step.reference, step.platform);
      if (step.do === 'context') return await this.#contextStack(id);
      const key = await this.#key(id);
      const known = this.#isStale(id) ? undefined : cache.find(key);
      const isKnown =
        known !== undefined && (await stepLayers.isHere(known.layers)) && (await this.#rootsAreKnown(step));
      if (isKnown) {
        this.#hold(known.layers);
        cache.touch(key);
        this.#tellKnown(id);
        return { layers: known.layers, own: known.own === 1, createdAtMs: known.createdAtMs };
      }
      await Promise.all(inputsOf(step).map((input) => this.#ready(input)));
      const root = await this.stack('root' in step ? step.root : undefined);
      const startedAtMs = clock.monotonic();
      const inputs = await this.#inputs(id, step);
      const earlier = this.#isStale(id) ? [] : await this.#usable(cache.equal(inputs));
      const { layer: made, files, known: equal } = await this.#make(id, step, root, earlier);
      if (equal) return this.#knownOtherwise(id, key, equal);
      const layers = made ? [...root.layers, made] : root.layers;
      this.#hold(layers);
      const result: StepResult = { title: step.title, layers, own: made ? 1 : 0, inputs, ...(files ? { files } : {}) };
      const { createdAtMs } = cache.remember(key, result, stepLayers.stored(layers));
      // The target's own layers will be wanted packed; that can begin while the next command runs.
      if (made && this.#ofTarget.has(id)) void stepLayers.packed(made, this.lease).catch(() => undefined); // told when it is wanted
      const layer = made ? { layer: made.diffId } : {};
      tell({ at: 'done', step: id, tookMs: Math.round(clock.monotonic() - startedAtMs), ...layer });
      return { layers, own: made !== undefined, createdAtMs };
    } catch (error) {
      throw this.#failure(id, step, error);
    }
  }

  /** With all that it stands on: nobody looks at those any more. */
  #tellKnown(id: StepId): void {
    const step = this.#detail(id);
    if (this.#told.has(id)) return;
    this.#told.add(id);
    for (const input of inputsOf(step)) this.#tellKnown(input);
    if (isRooted(step)) this.#o.tell({ at: 'cached', step: id });
  }

  #ready(id: StepId): Promise<unknown> {
    const { do: what } = this.#detail(id);
    if (what === 'context') return Promise.resolve(); // here since before the build; a layer of it is made on demand
    return what === 'fetch' || what === 'git' ? this.#room.sources.tree(id) : this.stack(id);
  }

  /** `--no-cache`: neither the step nor what reads from it is looked up. What they give is remembered for the next build. */
  #isStale(id: StepId): boolean {
    const known = this.#stale.get(id);
    if (known !== undefined) return known;
    const step = this.#detail(id);
    const stale = step.uncached === true || inputsOf(step).some((input) => this.#isStale(input));
    this.#stale.set(id, stale);
    return stale;
  }

  /** History tells what each step did: those below a known one have to be known as well. */
  async #rootsAreKnown(step: BuildStep): Promise<boolean> {
    const root = 'root' in step ? step.root : undefined;
    if (root === undefined || !isRooted(this.#detail(root))) return true;
    const key = await this.#key(root);
    if (!this.#node.cache.find(key)) return false;
    this.#node.cache.touch(key);
    return this.#rootsAreKnown(this.#detail(root));
  }

  /** Those whose layers are still here. */
  async #usable(records: readonly StepRecord[]): Promise<StepRecord[]> {
    const usable: StepRecord[] = [];
    for (const record of records) if (await this.#node.stepLayers.isHere(record.layers)) usable.push(record);
    return usable;
  }

  /** What the step does and to what, by layers: the key of a step that was run again does not say what came out. */
  async #inputs(id: StepId, step: BuildStep): Promise<string> {
    const { sources } = this.#room;
    const root = 'root' in step ? step.root : undefined;
    const copied = step.do === 'copy' ? copiedRoots(step, (from) => sources.isContext(from)) : [];
    const names = new Map<StepId, string>();
    for (const input of inputsOf(step)) {
      const { do: what } = this.#detail(input);
      if (input !== root && (what === 'context' || what === 'fetch' || what === 'git'))
        names.set(input, await this.#key(input));
      else if (input !== root && copied.includes(input)) names.set(input, 'compared by its files');
      else names.set(input, (await this.stack(input)).layers.map((layer) => layer.diffId).join());
    }
    const epoch = this.#o.epochSec === undefined ? '' : `epoch ${this.#o.epochSec} `;
    return stepKey(step, (input) => names.get(input) ?? '', `by layers ${epoch}${await this.#content(id, step)}`);
  }

  /** From here on it is known by this key as well. */
  #knownOtherwise(id: StepId, key: string, record: StepRecord): StepStack {
    const { cache, stepLayers } = this.#node;
    const { usedAtMs: _used, uses: _uses, ...result } = record;
    this.#hold(record.layers);
    cache.remember(key, result, stepLayers.stored(record.layers));
    this.#told.add(id);
    this.#o.tell({ at: 'cached', step: id });
    return { layers: record.layers, own: record.own === 1, createdAtMs: record.createdAtMs };
  }

  async #make(id: StepId, step: BuildStep, root: StepStack, earlier: readonly StepRecord[]): Promise<Made> {
    const { tell } = this.#o;
    const room = this.#room;
    const [known] = earlier;
    if (known && known.files === undefined) return { known };
    this.#told.add(id);
    switch (step.do) {
      case 'run':
        return ofLayer(
          await this.#commands.run(() => {
            room.signal.throwIfAborted();
            tell({ at: 'start', step: id });
            return runStep(id, step, root, room);
          }),
        );
      case 'copy':
        tell({ at: 'start', step: id });
        return copyStep(step, root, earlier, room);
      case 'workdir':
        tell({ at: 'start', step: id });
        return ofLayer(await workdirStep(step, root, room));
      default:
        throw new EstibaError('ASSERTION', `step ${step.do} has no root of its own`);
    }
  }

  async #contextStack(id: StepId): Promise<StepStack> {
    const startedAtMs = this.#node.clock.monotonic();
    this.#told.add(id);
    this.#o.tell({ at: 'start', step: id });
    const layer = await this.#room.sources.contextLayer(id);
    this.#o.tell({ at: 'done', step: id, tookMs: Math.round(this.#node.clock.monotonic() - startedAtMs) });
    return layer ? { layers: [layer], own: true, createdAtMs: undefined } : EMPTY_STACK;
  }

  #imageStack(reference: string, platform: string): StepStack {
    const image = this.#o.images.get(`${reference} ${platform}`);
    if (!image) throw new EstibaError('ASSERTION', `image ${reference} was planned and not resolved`);
    const { manifest, config } = image.platform;
    const layers = manifest.layers.map(({ mediaType, digest, size }, i): StepLayer => {
      this.lease.add(digest);
      return { diffId: config.rootfs.diff_ids[i] as Digest, blob: { mediaType, digest, size } };
    });
    this.#hold(layers);
    return { layers, own: false, createdAtMs: undefined };
  }

  #hold(layers: readonly StepLayer[]): void {
    this.#releases.push(this.#node.cache.hold(layers));
  }

  #detail(id: StepId): BuildStep {
    const step = this.#o.graph.steps[id];
    if (!step) throw new EstibaError('ASSERTION', `there is no step ${id}`);
    return step;
  }

  /** The first failure ends the others; what it says has its place in the Dockerfile. */
  #failure(id: StepId, step: BuildStep, error: unknown): unknown {
    if (error instanceof StepFailed || this.#room.signal.aborted) return error;
    this.#o.tell({ at: 'failed', step: id });
    const failure = stepFailed(this.#o.file, step, error);
    this.#abort.abort(failure);
    return failure;
  }
}

function ofLayer(layer: StepLayer | undefined): Made {
  return layer ? { layer } : {};
}

/** Steps that have a root of their own, and so are shown; downloads and images come along. */
function isRooted(step: BuildStep): boolean {
  return step.do === 'run' || step.do === 'copy' || step.do === 'workdir';
}
