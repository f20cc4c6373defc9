import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { describeChain, EstibaError } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import { newId } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import { cloneGit, fetchFile } from '#build/context/remote.ts';
import { type ContextTree, type SourceTree, treeDigest, treeSource } from '#build/context/tree.ts';
import { addedSelections } from '#build/copy/archive.ts';
import { EMPTY_TREE, LayerContents } from '#build/copy/layer.ts';
import { modeChange } from '#build/copy/mode.ts';
import { MountedTree } from '#build/copy/mounted.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { type Selection, select, selectionKey } from '#build/copy/select.ts';
import { BuildCancelled, NoSuchContext, NotAllowed, RunFailed, StepFailed } from '#build/errors.ts';
import type { Tell } from '#build/events.ts';
import type { FailedSteps } from '#build/failed.ts';
import {
  type BuildGraph,
  type BuildStep,
  type CopyStep,
  inputsOf,
  type RunStep,
  type StepId,
  stepKey,
} from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import { type Given, withMounts } from '#build/run-mounts.ts';
import { ownerIn, runInSandbox, type SandboxLimits } from '#build/sandbox.ts';
import { noteStubs, removeStubs } from '#build/stubs.ts';
import type { ContentLease } from '#image/content.ts';
import type { Image } from '#image/images.ts';
import type { Digest } from '#spec/image/digest.ts';

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

export interface StepStack {
  layers: StepLayer[];
  /** Whether the step added the uppermost. */
  own: boolean;
  /** When that was made; undefined for an image's layers. */
  createdAtMs: number | undefined;
}

/** What commands said last, for the error. */
const TAIL_BYTES = 16 * 1024;
const EMPTY_STACK: StepStack = { layers: [], own: false, createdAtMs: undefined };

/**
 * Carries a graph out, from the target backwards: a step whose key is known gives what it gave before, and nothing it stands on
 * is looked at. The others run as soon as what they read is there, independent ones at once.
 */
export class Execution {
  readonly #node: BuildNode;
  readonly #o: ExecutionOptions;
  readonly #keys = new Map<StepId, Promise<string>>();
  readonly #stacks = new Map<StepId, Promise<StepStack>>();
  readonly #trees = new Map<StepId, Promise<ContextTree>>();
  readonly #views = new Map<string, Promise<string>>();
  readonly #commands: Limiter;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #lease: ContentLease;
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
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
    this.#lease = node.content.lease('a build');
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

  /** The layers mounted for reading, until `close`. */
  async view(layers: readonly StepLayer[], what: string): Promise<SourceTree & { root?: string }> {
    if (layers.length === 0) return EMPTY_TREE;
    return new MountedTree(what, await this.#mounted(layers), this.#node.readXattrs);
  }

  get lease(): ContentLease {
    return this.#lease;
  }

  /** Ends what still runs, waits for it, and lets everything go. */
  async close(): Promise<void> {
    this.#abort.abort(new BuildCancelled({}));
    await Promise.allSettled([...this.#stacks.values(), ...this.#trees.values(), ...this.#keys.values()]);
    for (const mounted of this.#views.values()) {
      const path = await mounted.catch(() => undefined); // told by who asked for it
      if (path !== undefined) await this.#node.overlays.unmount(path);
    }
    for (const release of this.#releases) release();
    this.#lease.release();
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
        return treeDigest(await this.#tree(id));
      default: {
        const inputs = inputsOf(step);
        const keys = new Map<StepId, string>();
        for (const input of inputs) keys.set(input, await this.#key(input));
        const epoch = this.#o.epochSec === undefined ? '' : `epoch ${this.#o.epochSec} `;
        return stepKey(step, (input) => keys.get(input) ?? '', epoch + (await this.#content(step)));
      }
    }
  }

  /** What exactly a step takes from contexts and downloads. */
  async #content(step: BuildStep): Promise<string> {
    if (step.do === 'copy') {
      const taken = step.items.flatMap((item) => ('from' in item ? [item] : []));
      const fromContexts = taken.filter((item) => this.#isContext(item.from));
      const keys = await Promise.all(
        fromContexts.map(async (item) => selectionKey(await this.#selection(item.from, item.path, step, item.unpack))),
      );
      return keys.join(' ');
    }
    if (step.do !== 'run') return '';
    const binds = step.mounts.flatMap((m) => (m.type === 'bind' && this.#isContext(m.from) ? [m] : []));
    const keys = await Promise.all(
      binds.map(async (m) => selectionKey(await this.#selection(m.from, m.source, undefined, false))),
    );
    return keys.join(' ');
  }

  #isContext(id: StepId | undefined): boolean {
    return id !== undefined && this.#detail(id).do === 'context';
  }

  // -- steps

  async #step(id: StepId): Promise<StepStack> {
    const step = this.#detail(id);
    const { cache, stepLayers, clock } = this.#node;
    const { tell } = this.#o;
    try {
      if (step.do === 'image') return this.#imageStack(step.reference, step.platform);
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
      const made = await this.#make(id, step, root);
      const layers = made ? [...root.layers, made] : root.layers;
      this.#hold(layers);
      const { createdAtMs } = await cache.remember(key, { title: step.title, layers, own: made !== undefined });
      // The target's own layers will be wanted packed; that can begin while the next command runs.
      if (made && this.#ofTarget.has(id)) void stepLayers.packed(made, this.#lease).catch(() => undefined); // told when it is wanted
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
    return what === 'fetch' || what === 'git' ? this.#tree(id) : this.stack(id);
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

  #make(id: StepId, step: BuildStep, root: StepStack): Promise<StepLayer | undefined> {
    const { tell } = this.#o;
    this.#told.add(id);
    switch (step.do) {
      case 'run':
        return this.#commands.run(() => {
          this.#signal.throwIfAborted();
          tell({ at: 'start', step: id });
          return this.#run(id, step, root);
        });
      case 'copy':
        tell({ at: 'start', step: id });
        return this.#copy(step, root);
      case 'workdir':
        tell({ at: 'start', step: id });
        return this.#workdir(step.path, step.user, root);
      case 'context':
        tell({ at: 'start', step: id });
        return this.#contextLayer(id);
      default:
        throw new EstibaError('ASSERTION', `step ${step.do} has no root of its own`);
    }
  }

  #imageStack(reference: string, platform: string): StepStack {
    const image = this.#o.images.get(`${reference} ${platform}`);
    if (!image) throw new EstibaError('ASSERTION', `image ${reference} was planned and not resolved`);
    const { manifest, config } = image.platform;
    const layers = manifest.layers.map(({ mediaType, digest, size }, i): StepLayer => {
      this.#lease.add(digest);
      return { diffId: config.rootfs.diff_ids[i] as Digest, blob: { mediaType, digest, size } };
    });
    this.#hold(layers);
    return { layers, own: false, createdAtMs: undefined };
  }

  async #copy(step: CopyStep, root: StepStack): Promise<StepLayer | undefined> {
    const below = await this.view(root.layers, 'the image');
    const owner = step.chown === undefined ? undefined : await this.#owner(step.chown, below);
    const contents = new LayerContents({
      destination: step.destination,
      root: step.link ? EMPTY_TREE : below,
      owner,
      mode: step.chmod === undefined ? undefined : modeChange(step.chmod),
      parents: step.parents,
      newestSec: this.#o.epochSec,
    });
    for (const item of step.items) {
      if ('inline' in item) await contents.place(inlineSelection(item.inline.name, item.inline.text, this.#newSec()));
      else if ('remote' in item) {
        for (const one of await this.#downloaded(item, step)) await this.#place(contents, one);
      } else {
        for (const one of await this.#selection(item.from, item.path, step, item.unpack))
          await this.#place(contents, this.#isContext(item.from) ? ownedByRoot(one) : one);
      }
      this.#signal.throwIfAborted();
    }
    return contents.isEmpty ? undefined : this.#node.stepLayers.make(contents.tar(), this.#lease);
  }

  /** A repository's files, or the one that a URL gave: its name is no pattern. */
  async #downloaded(item: { remote: StepId; name: string; unpack: boolean }, step: CopyStep): Promise<Selection[]> {
    const { name, unpack } = item;
    const contents = await this.#tree(item.remote);
    const tree = this.#treeSource(contents, this.#detail(item.remote).title);
    const info = contents.find(name);
    if (name === '' || !info) return select(tree, '/', { ...step, unpack });
    return [{ tree, path: name, info, name, files: [{ path: '', info }], unpack }];
  }

  async #place(contents: LayerContents, selection: Selection): Promise<void> {
    for (const one of await addedSelections(selection, this.#node.files)) await contents.place(one);
  }

  async #workdir(path: string, user: string, root: StepStack): Promise<StepLayer | undefined> {
    const below = await this.view(root.layers, 'the image');
    if (await isDirectory(below, path)) return undefined;
    const owner = user === '' ? undefined : await this.#owner(user, below);
    const newestSec = this.#o.epochSec;
    const contents = new LayerContents({
      destination: path,
      root: below,
      owner,
      mode: undefined,
      parents: false,
      newestSec,
    });
    await contents.makeDirectory(path, this.#newSec());
    return contents.isEmpty ? undefined : this.#node.stepLayers.make(contents.tar(), this.#lease);
  }

  /** A context as a root: `FROM context`. */
  async #contextLayer(id: StepId): Promise<StepLayer | undefined> {
    const [layer] = (await this.#layersOfSelection(await this.#selection(id, '/', undefined, false))).layers;
    return layer;
  }

  async #run(id: StepId, step: RunStep, root: StepStack): Promise<StepLayer | undefined> {
    const { limits, allow, epochSec } = this.#o;
    if (step.security === 'insecure')
      throw new NotAllowed({ what: 'RUN --security=insecure', entitlement: 'security.insecure' });
    if (step.network === 'host' && limits.network !== 'host' && !allow.has('network.host'))
      throw new NotAllowed({ what: 'RUN --network=host', entitlement: 'network.host' });
    await using undo = new Undo((what, error) =>
      this.#node.log.error('undo of a build step failed', { what, error: describeChain(error) }),
    );
    const { snapshots, overlays, stepLayers } = this.#node;
    const sandboxId = newId(this.#node.random);
    const snapshot = `build-${sandboxId}`;
    await snapshots.prepare(snapshot, await stepLayers.ready(root.layers));
    let keep = false;
    undo.add('snapshot', () => (keep ? undefined : snapshots.remove(snapshot)));
    const mounted = await overlays.mount(snapshot);
    undo.add('root', () => overlays.unmount(mounted));
    const tree = new MountedTree('the image', mounted, this.#node.readXattrs);
    const stubs = await noteStubs(
      tree,
      step.mounts.flatMap((m) => ('target' in m && m.target !== undefined ? [m.target] : [])),
    );
    const tail = new Tail(TAIL_BYTES);
    const sources = { layers: this.#mountLayers.bind(this) };
    const code = await withMounts(this.#node, sandboxId, step.mounts, this.#o.given, sources, undo, (prepared) =>
      runInSandbox(
        this.#node.sandbox,
        {
          id: sandboxId,
          root: tree,
          argv: step.argv,
          env: [...step.env, ...this.#o.proxies, ...prepared.env],
          cwd: step.cwd,
          user: step.user,
          mounts: prepared.mounts,
          network: step.network,
          limits,
          output: (stream, source) => this.#output(id, stream, source, tail),
        },
        this.#signal,
      ),
    );
    await overlays.unmount(mounted);
    const { upper } = await snapshots.rootfs(snapshot);
    await removeStubs(upper, stubs);
    if (code !== 0) {
      keep = await this.#o.failed.keep({ snapshot, layers: root.layers, step, code });
      throw new RunFailed({ command: step.argv.join(' '), code, tail: tail.text() });
    }
    const changes = snapshots.diff(snapshot, epochSec === undefined ? {} : { newestSec: epochSec });
    return await stepLayers.make(changes, this.#lease); // before the snapshot goes
  }

  async #output(id: StepId, stream: 'stdout' | 'stderr', source: Readable, tail: Tail): Promise<void> {
    for await (const chunk of source) {
      tail.push(chunk);
      this.#o.tell({ at: 'output', step: id, stream, text: chunk });
    }
  }

  // -- what steps read

  async #selection(
    from: StepId | undefined,
    path: string,
    step: Pick<CopyStep, 'parents' | 'excludes'> | undefined,
    unpack: boolean,
  ): Promise<Selection[]> {
    const options = { parents: step?.parents ?? false, excludes: step?.excludes ?? [], unpack };
    if (from === undefined) return select(EMPTY_TREE, path, options);
    const source = this.#detail(from);
    if (source.do === 'context')
      return select(this.#treeSource(this.#context(source.name), contextName(source.name)), path, options);
    const { layers } = await this.stack(from);
    const view = await this.view(layers, source.do === 'image' ? source.reference : 'that stage');
    if (view instanceof MountedTree) await view.loadXattrs(await attributesBelow(view, path));
    return select(view, path, options);
  }

  /** For a bind or cache mount: layers, and where in them the source is. */
  async #mountLayers(
    from: StepId | undefined,
    source: string,
  ): Promise<{ layers: StepLayer[]; path: string; what: string }> {
    if (!this.#isContext(from)) {
      const what = from === undefined ? 'an empty stage' : 'that stage';
      return { layers: (await this.stack(from)).layers, path: source, what };
    }
    const chosen = await this.#selection(from, source, undefined, false);
    return this.#layersOfSelection(chosen);
  }

  /** A part of a context as a layer of its own, kept in the cache like any step's. */
  async #layersOfSelection(chosen: Selection[]): Promise<{ layers: StepLayer[]; path: string; what: string }> {
    const { cache, stepLayers } = this.#node;
    const what = 'the build context';
    const [first] = chosen;
    const path = first && first.info.type !== 'dir' ? `/${first.name}` : '/';
    const key = createHash('sha256')
      .update(`context ${await selectionKey(chosen)}`)
      .digest('hex');
    const known = cache.find(key);
    if (known && (await stepLayers.isHere(known.layers))) {
      this.#hold(known.layers);
      return { layers: known.layers, path, what };
    }
    const placement = { destination: '/', root: EMPTY_TREE, owner: undefined, mode: undefined, parents: false };
    const contents = new LayerContents({ ...placement, newestSec: this.#o.epochSec });
    for (const one of chosen) await contents.place(ownedByRoot(one));
    const layers = [await stepLayers.make(contents.tar(), this.#lease)];
    this.#hold(layers);
    await cache.remember(key, { title: 'files of the build context', layers, own: true });
    return { layers, path, what };
  }

  #tree(id: StepId): Promise<ContextTree> {
    return once(this.#trees, id, () => this.#download(id));
  }

  async #download(id: StepId): Promise<ContextTree> {
    const step = this.#detail(id);
    const { tell } = this.#o;
    const startedAtMs = this.#node.clock.monotonic();
    try {
      tell({ at: 'start', step: id });
      const tree = await this.#fetched(step);
      tell({ at: 'done', step: id, tookMs: Math.round(this.#node.clock.monotonic() - startedAtMs) });
      return tree;
    } catch (error) {
      throw this.#failure(id, step, error);
    }
  }

  #fetched(step: BuildStep): Promise<ContextTree> {
    const { files } = this.#node;
    if (step.do === 'git') return cloneGit(step.url, step.keepGitDir, files, this.#signal);
    if (step.do !== 'fetch') throw new EstibaError('ASSERTION', `step ${step.do} is no download`);
    const name = new URL(step.url).pathname.split('/').at(-1) ?? '';
    return fetchFile(step.url, name, step.checksum, files, this.#o.given.secrets, this.#signal);
  }

  #context(name: string): ContextTree {
    const tree = this.#o.contexts.get(name);
    if (!tree) throw new NoSuchContext({ name });
    return tree;
  }

  #treeSource(tree: ContextTree, what: string): SourceTree {
    return treeSource(tree, what, (digest) => this.#node.files.open(digest));
  }

  async #owner(wish: string, root: SourceTree): Promise<{ uid: number; gid: number }> {
    const [user = '', group] = wish.split(':', 2);
    const { uid, gid } = await ownerIn(root, wish);
    // Without a group, COPY takes the user's number for it where that is a number (Dockerfile reference, "COPY --chown").
    return group === undefined && /^\d+$/.test(user) ? { uid, gid: uid } : { uid, gid };
  }

  #mounted(layers: readonly StepLayer[]): Promise<string> {
    const key = layers.map((layer) => layer.diffId).join();
    const { overlays, stepLayers } = this.#node;
    return once(this.#views, key, async () => overlays.view(await stepLayers.ready(layers)));
  }

  /** The time of what a step makes of nothing. */
  #newSec(): number {
    return this.#o.epochSec ?? Math.floor(this.#node.clock.now() / 1000);
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
    if (error instanceof StepFailed || this.#signal.aborted) return error;
    this.#o.tell({ at: 'failed', step: id });
    const { name, text } = this.#o.file;
    const failure = new StepFailed(
      {
        file: name,
        ...(step.lines ? { lines: step.lines } : {}),
        title: step.title,
        excerpt: step.lines ? excerptOf(text, step.lines) : '',
        reason: describeChain(error),
        ...(error instanceof EstibaError && error.hint !== undefined ? { hint: error.hint } : {}),
      },
      { cause: error },
    );
    this.#abort.abort(failure);
    return failure;
  }
}

/** Work that several wait for is done once. Its failure goes to each of them, and to nobody when none waits any more. */
function once<K, T>(known: Map<K, Promise<T>>, key: K, start: () => Promise<T>): Promise<T> {
  const running = known.get(key) ?? start();
  known.set(key, running);
  running.catch(() => undefined);
  return running;
}

/** Steps that have a root of their own, and so are shown; downloads and images come along. */
function isRooted(step: BuildStep): boolean {
  return step.do === 'run' || step.do === 'copy' || step.do === 'workdir';
}

function contextName(name: string): string {
  return name === '' ? 'the build context' : `the build context ${name}`;
}

async function isDirectory(tree: SourceTree, path: string): Promise<boolean> {
  return (await resolveIn(tree, path)).info?.type === 'dir';
}

/** Files of a context belong to nobody here: whoever sent them has other users. */
function ownedByRoot(selection: Selection): Selection {
  if (selection.unpack) return selection;
  const mine = <T extends { uid: number; gid: number }>(info: T): T => ({ ...info, uid: 0, gid: 0 });
  return {
    ...selection,
    info: mine(selection.info),
    files: selection.files.map((file) => ({ ...file, info: mine(file.info) })),
  };
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

/** Attributes are read for a directory: the path's own, or the one before its first wildcard. */
async function attributesBelow(tree: SourceTree, path: string): Promise<string> {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  const wild = parts.findIndex((part) => /[*?[\\]/.test(part));
  for (let length = wild < 0 ? parts.length : wild; length > 0; length--) {
    const found = await resolveIn(tree, parts.slice(0, length).join('/'));
    if (found.info?.type === 'dir') return found.path;
  }
  return '';
}

const CONTEXT_LINES = 2;

/** Lines of the Dockerfile around a step, those of the step marked. */
export function excerptOf(text: string, lines: { start: number; end: number }): string {
  const all = text.split('\n');
  const from = Math.max(1, lines.start - CONTEXT_LINES);
  const to = Math.min(all.length, lines.end + CONTEXT_LINES);
  const width = String(to).length;
  const shown: string[] = [];
  for (let n = from; n <= to; n++) {
    const mark = n >= lines.start && n <= lines.end ? '>>>' : '   ';
    shown.push(`${String(n).padStart(width)} | ${mark} ${all[n - 1] ?? ''}`.trimEnd());
  }
  return shown.join('\n');
}

/** The last bytes of an output. */
class Tail {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#chunks.length > 1 && this.#bytes - (this.#chunks[0]?.length ?? 0) > this.#limit)
      this.#bytes -= this.#chunks.shift()?.length ?? 0;
  }

  text(): string {
    return Buffer.concat(this.#chunks).subarray(-this.#limit).toString();
  }
}
