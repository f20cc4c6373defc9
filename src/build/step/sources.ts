import { createHash } from 'node:crypto';
import { EstibaError } from '#base/errors.ts';
import { cloneGit, fetchFile } from '#build/context/remote.ts';
import { type ContextTree, type SourceTree, treeSource } from '#build/context/tree.ts';
import { EMPTY_TREE, LayerContents } from '#build/copy/layer.ts';
import { MountedTree } from '#build/copy/mounted.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { type Selection, select, selectionKey } from '#build/copy/select.ts';
import { NoSuchContext } from '#build/errors.ts';
import type { BuildStep, CopyStep, StepId } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { BuildNode } from '#build/node.ts';
import { once } from '#build/once.ts';
import { ownedByRoot } from '#build/step/copy.ts';
import type { ExecutionOptions } from '#build/step/room.ts';
import type { ContentLease } from '#image/content.ts';

export interface StepSourcesOptions {
  node: BuildNode;
  options: ExecutionOptions;
  lease: ContentLease;
  /** Ends downloads. */
  signal: AbortSignal;
  detail(id: StepId): BuildStep;
  /** The layers of a step's root. */
  layersOf(id: StepId | undefined): Promise<readonly StepLayer[]>;
  /** Those that a build stands on stay until it ends. */
  hold(layers: readonly StepLayer[]): void;
  failure(id: StepId, step: BuildStep, error: unknown): unknown;
}

/** What the steps of one build read: contexts, downloads, and other steps' roots, each fetched and mounted once. */
export class StepSources {
  readonly #o: StepSourcesOptions;
  readonly #trees = new Map<StepId, Promise<ContextTree>>();
  readonly #views = new Map<string, Promise<string>>();

  constructor(options: StepSourcesOptions) {
    this.#o = options;
  }

  /** Waits for what runs, and unmounts. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#trees.values());
    for (const mounted of this.#views.values()) {
      const path = await mounted.catch(() => undefined); // told by who asked for it
      if (path !== undefined) await this.#o.node.overlays.unmount(path);
    }
  }

  /** The layers mounted for reading, until `close`. */
  async view(layers: readonly StepLayer[], what: string): Promise<SourceTree & { root?: string }> {
    if (layers.length === 0) return EMPTY_TREE;
    return new MountedTree(what, await this.#mounted(layers), this.#o.node.readXattrs);
  }

  isContext(id: StepId | undefined): boolean {
    return id !== undefined && this.#o.detail(id).do === 'context';
  }

  /** What one source of a COPY names. */
  async selection(
    from: StepId | undefined,
    path: string,
    step: Pick<CopyStep, 'parents' | 'excludes'> | undefined,
    unpack: boolean,
  ): Promise<Selection[]> {
    const options = { parents: step?.parents ?? false, excludes: step?.excludes ?? [], unpack };
    if (from === undefined) return select(EMPTY_TREE, path, options);
    const source = this.#o.detail(from);
    if (source.do === 'context')
      return select(this.#treeSource(this.#context(source.name), contextName(source.name)), path, options);
    const layers = await this.#o.layersOf(from);
    const view = await this.view(layers, source.do === 'image' ? source.reference : 'that stage');
    if (view instanceof MountedTree) await view.loadXattrs(await attributesBelow(view, path));
    return select(view, path, options);
  }

  /** A repository's files, or the one that a URL gave: its name is no pattern. */
  async downloaded(item: { remote: StepId; name: string; unpack: boolean }, step: CopyStep): Promise<Selection[]> {
    const { name, unpack } = item;
    const contents = await this.tree(item.remote);
    const tree = this.#treeSource(contents, this.#o.detail(item.remote).title);
    const info = contents.find(name);
    if (name === '' || !info) return select(tree, '/', { ...step, unpack });
    return [{ tree, path: name, info, name, files: [{ path: '', info }], unpack }];
  }

  /** For a bind or cache mount: layers, and where in them the source is. */
  async mountLayers(
    from: StepId | undefined,
    source: string,
  ): Promise<{ layers: StepLayer[]; path: string; what: string }> {
    if (!this.isContext(from)) {
      const what = from === undefined ? 'an empty stage' : 'that stage';
      return { layers: [...(await this.#o.layersOf(from))], path: source, what };
    }
    const chosen = await this.selection(from, source, undefined, false);
    return this.#layersOfSelection(chosen);
  }

  /** A context as a root: `FROM context`. */
  async contextLayer(id: StepId): Promise<StepLayer | undefined> {
    const [layer] = (await this.#layersOfSelection(await this.selection(id, '/', undefined, false))).layers;
    return layer;
  }

  /** What a download gave. */
  tree(id: StepId): Promise<ContextTree> {
    return once(this.#trees, id, () => this.#download(id));
  }

  /** A part of a context as a layer of its own, kept in the cache like any step's. */
  async #layersOfSelection(chosen: Selection[]): Promise<{ layers: StepLayer[]; path: string; what: string }> {
    const { node, options, lease, hold } = this.#o;
    const { cache, stepLayers } = node;
    const what = 'the build context';
    const [first] = chosen;
    const path = first && first.info.type !== 'dir' ? `/${first.name}` : '/';
    const key = createHash('sha256')
      .update(`context ${await selectionKey(chosen)}`)
      .digest('hex');
    const known = cache.find(key);
    if (known && (await stepLayers.isHere(known.layers))) {
      hold(known.layers);
      return { layers: known.layers, path, what };
    }
    const placement = { destination: '/', root: EMPTY_TREE, owner: undefined, mode: undefined, parents: false };
    const contents = new LayerContents({ ...placement, newestSec: options.epochSec });
    for (const one of chosen) await contents.place(ownedByRoot(one));
    const layers = [await stepLayers.make(contents.tar(), lease)];
    hold(layers);
    cache.remember(key, { title: 'files of the build context', layers, own: 1 }, stepLayers.stored(layers));
    return { layers, path, what };
  }

  async #download(id: StepId): Promise<ContextTree> {
    const { node, options, detail, failure } = this.#o;
    const step = detail(id);
    const startedAtMs = node.clock.monotonic();
    try {
      options.tell({ at: 'start', step: id });
      const tree = await this.#fetched(step);
      options.tell({ at: 'done', step: id, tookMs: Math.round(node.clock.monotonic() - startedAtMs) });
      return tree;
    } catch (error) {
      throw failure(id, step, error);
    }
  }

  #fetched(step: BuildStep): Promise<ContextTree> {
    const { node, options, signal } = this.#o;
    if (step.do === 'git') return cloneGit(step.url, step.keepGitDir, node.files, signal);
    if (step.do !== 'fetch') throw new EstibaError('ASSERTION', `step ${step.do} is no download`);
    const name = new URL(step.url).pathname.split('/').at(-1) ?? '';
    return fetchFile(step.url, name, step.checksum, node.files, options.given.secrets, signal);
  }

  #context(name: string): ContextTree {
    const tree = this.#o.options.contexts.get(name);
    if (!tree) throw new NoSuchContext({ name });
    return tree;
  }

  #treeSource(tree: ContextTree, what: string): SourceTree {
    return treeSource(tree, what, (digest) => this.#o.node.files.open(digest));
  }

  #mounted(layers: readonly StepLayer[]): Promise<string> {
    const key = layers.map((layer) => layer.diffId).join();
    const { overlays, stepLayers } = this.#o.node;
    return once(this.#views, key, async () => overlays.view(await stepLayers.ready(layers)));
  }
}

function contextName(name: string): string {
  return name === '' ? 'the build context' : `the build context ${name}`;
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
