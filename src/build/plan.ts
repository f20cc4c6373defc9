import { isCode, messageOf } from '#base/errors.ts';
import { BuildPlanFailed, UnknownTarget } from '#build/errors.ts';
import type { BuildGraph, BuildStep, HistoryLine, PlannedStage, StepDetail, StepId } from '#build/graph.ts';
import { platformArgs, Scope } from '#build/scope.ts';
import type { ImageSettings } from '#build/settings.ts';
import { StageBuilder } from '#build/stage.ts';
import type { BuildWarning, LineRange } from '#spec/dockerfile/errors.ts';
import { expandWord } from '#spec/dockerfile/expand.ts';
import type { Dockerfile, Stage } from '#spec/dockerfile/instructions.ts';
import { parseTrigger } from '#spec/dockerfile/instructions.ts';
import { parsePlatform } from '#spec/image/platform.ts';
import { parseReference } from '#spec/image/reference.ts';

/** What a build is asked for, besides the Dockerfile and its files. */
export interface BuildOptions {
  target?: string;
  args: ReadonlyMap<string, string>;
  /** `os/arch[/variant]` of the result and of this machine. */
  targetPlatform: string;
  buildPlatform: string;
  /** Named contexts (`--build-context name=…`): they win over stages and images of that name. */
  contexts: ReadonlySet<string>;
  /** Named contexts that are images (`docker-image://…`), by their name. */
  imageContexts?: ReadonlyMap<string, string>;
  labels: Readonly<Record<string, string>>;
  /** All stages, or those named. */
  noCache: boolean | ReadonlySet<string>;
}

export interface ResolvedImage {
  /** Of the platform's manifest. */
  digest: string;
  settings: ImageSettings;
}

/** An image the plan cannot go on without: resolve it, add it to `images`, plan again. */
export interface WantedImage {
  reference: string;
  platform: string;
}

export type BuildPlan =
  | { done: true; graph: BuildGraph; warnings: BuildWarning[] }
  | { done: false; wanted: WantedImage[] };

export function imageKey(image: WantedImage): string {
  return `${image.reference} ${image.platform}`;
}

/**
 * Dockerfile → graph. Pure: images are resolved by the caller, who calls again with what `wanted` asked for until the plan is
 * done (ONBUILD lines of a base image can name more images).
 */
export function planBuild(
  file: Dockerfile,
  options: BuildOptions,
  images: ReadonlyMap<string, ResolvedImage>,
): BuildPlan {
  const planner = new Planner(file, options, images);
  const target = planner.plan(targetStage(file, options.target));
  if (planner.wanted.size > 0 || !target) return { done: false, wanted: [...planner.wanted.values()] };
  const stages = [...planner.planned.values()].sort((a, b) => a.index - b.index);
  return {
    done: true,
    graph: { steps: planner.steps, stages, target: withLabels(target, options.labels, stages) },
    warnings: planner.warnings,
  };
}

function targetStage(file: Dockerfile, target: string | undefined): Stage {
  const stages = file.stages;
  const found =
    target === undefined || target === ''
      ? stages.at(-1)
      : (stages.findLast((s) => s.name === target.toLowerCase()) ??
        (/^\d+$/.test(target) ? stages[Number(target)] : undefined));
  if (!found) throw new UnknownTarget({ target: target ?? '', known: stages.flatMap((s) => s.name ?? []) });
  return found;
}

/** `--label` belongs to the result alone, after all that the Dockerfile says. */
function withLabels(
  target: PlannedStage,
  labels: Readonly<Record<string, string>>,
  stages: PlannedStage[],
): PlannedStage {
  if (Object.keys(labels).length === 0) return target;
  target.settings = { ...target.settings, Labels: { ...target.settings.Labels, ...labels } };
  return stages.find((s) => s === target) ?? target;
}

/** Plans stages on demand: only what the target needs becomes steps. */
export class Planner {
  readonly file: Dockerfile;
  readonly options: BuildOptions;
  readonly steps: BuildStep[] = [];
  readonly planned = new Map<number, PlannedStage>();
  readonly wanted = new Map<string, WantedImage>();
  readonly warnings: BuildWarning[] = [];
  readonly #images: ReadonlyMap<string, ResolvedImage>;
  readonly #global: ReadonlyMap<string, string>;
  readonly #ids = new Map<string, StepId>();

  constructor(file: Dockerfile, options: BuildOptions, images: ReadonlyMap<string, ResolvedImage>) {
    this.file = file;
    this.options = options;
    this.#images = images;
    this.#global = this.#globalArgs();
  }

  /** Undefined when an image has to be resolved first. */
  plan(stage: Stage): PlannedStage | undefined {
    const present = this.planned.get(stage.index);
    if (present) return present;
    const base = this.#base(stage);
    if (!base) return undefined;
    const builder = new StageBuilder(this, stage, base, this.#scope(stage, base.settings));
    const triggers = base.triggers.flatMap((t) => parseTrigger(t, stage.base));
    const complete = builder.run([...triggers, ...stage.instructions]);
    if (!complete) return undefined;
    const planned: PlannedStage = {
      index: stage.index,
      ...(stage.name === undefined ? {} : { name: stage.name }),
      root: builder.root,
      settings: builder.settings,
      ...(builder.author === undefined ? {} : { author: builder.author }),
      history: [...base.history, ...builder.history],
      instructions: builder.instructions,
      ...(base.image === undefined ? {} : { base: base.image }),
    };
    this.planned.set(stage.index, planned);
    return planned;
  }

  /** What `COPY --from=name` and `RUN --mount=from=name` mean, seen from `stage`. */
  source(name: string, stage: Stage, lines: LineRange): { root: StepId | undefined } | undefined {
    if (this.options.contexts.has(name)) return { root: this.add({ do: 'context', name }, `context ${name}`) };
    const given = this.options.imageContexts?.get(name);
    if (given !== undefined) return this.image(given, this.options.targetPlatform);
    const lower = name.toLowerCase();
    const other = /^\d+$/.test(name)
      ? this.file.stages[Number(name)]
      : this.file.stages.findLast((s) => s.name === lower && s.index < stage.index);
    const later = this.file.stages.find((s) => s.name === lower && s.index >= stage.index);
    if ((other && other.index >= stage.index) || (!other && later)) {
      return this.fail(
        lines,
        `stage ${name} is ${(other ?? later)?.index === stage.index ? 'this stage itself' : 'built later'}`,
        'a stage can use only those above it',
      );
    }
    if (other) return this.plan(other);
    if (/^\d+$/.test(name))
      this.fail(lines, `there is no stage ${name}`, `the file has ${this.file.stages.length} stages, counted from 0`);
    this.#checkReference(name, lines);
    const image = this.image(name, this.options.targetPlatform);
    return image && { root: image.root };
  }

  /** An image as a step, or undefined and remembered as wanted. `scratch` is the empty root. */
  image(reference: string, platform: string): { root: StepId | undefined; resolved?: ResolvedImage } | undefined {
    if (reference === 'scratch') return { root: undefined };
    const wanted = { reference, platform };
    const resolved = this.#images.get(imageKey(wanted));
    if (!resolved) {
      this.wanted.set(imageKey(wanted), wanted);
      return undefined;
    }
    return {
      root: this.add({ do: 'image', reference, digest: resolved.digest, platform }, `FROM ${reference}`),
      resolved,
    };
  }

  /** Adds a step, or finds the one that does the same. */
  add(detail: StepDetail, title: string, lines?: LineRange, uncached = false): StepId {
    const key = JSON.stringify([detail, uncached]);
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.steps.length;
    this.steps.push({
      ...detail,
      title,
      ...(lines ? { lines } : {}),
      ...(uncached ? { uncached: true as const } : {}),
    });
    this.#ids.set(key, id);
    return id;
  }

  isUncached(stage: Stage): boolean {
    const { noCache } = this.options;
    return typeof noCache === 'boolean' ? noCache : noCache.has(stage.name ?? String(stage.index));
  }

  warn(check: string, lines: LineRange, message: string): void {
    this.warnings.push({ check, lines, message });
  }

  fail(lines: LineRange, problem: string, rule: string): never {
    throw new BuildPlanFailed({ file: this.file.file, lines, problem, rule });
  }

  #base(stage: Stage): StageBase | undefined {
    const scope = new Map([
      ...platformArgs(this.options.targetPlatform, this.options.buildPlatform, ''),
      ...this.#global,
    ]);
    const unset: string[] = [];
    const reference = expandWord(stage.base, scope, {
      escape: this.file.directives.escape,
      onUnset: (name) => unset.push(name),
    });
    for (const name of unset)
      this.warn('UndefinedArgInFrom', stage.node.lines, `FROM uses $${name}, which no ARG before it declares`);
    if (reference === '')
      this.fail(
        stage.node.lines,
        `${stage.base} is empty once expanded`,
        'give the ARG a default, or set it with --build-arg',
      );
    const platform = stage.platform === undefined ? this.options.targetPlatform : expandWord(stage.platform, scope);
    this.#checked(stage.node.lines, PLATFORM_RULE, 'PLATFORM_INVALID', () =>
      parsePlatform(platform, { os: 'linux', architecture: 'amd64' }),
    );
    const given = this.options.imageContexts?.get(reference);
    const parent =
      this.options.contexts.has(reference) || given !== undefined
        ? undefined
        : this.file.stages.findLast((s) => s.name === reference.toLowerCase() && s.index < stage.index);
    if (this.options.contexts.has(reference)) {
      return {
        root: this.add({ do: 'context', name: reference }, `context ${reference}`),
        settings: {},
        history: [],
        triggers: [],
        platform,
      };
    }
    if (parent) {
      const planned = this.plan(parent);
      if (!planned) return undefined;
      const { OnBuild: triggers = [], ...settings } = planned.settings;
      return {
        root: planned.root,
        settings,
        history: planned.history,
        triggers,
        platform,
        ...(planned.author === undefined ? {} : { author: planned.author }),
        ...(planned.base ? { image: planned.base } : {}),
      };
    }
    if (given === undefined) this.#checkReference(reference, stage.node.lines);
    const image = this.image(given ?? reference, platform);
    if (!image) return undefined;
    const { OnBuild: triggers = [], ...settings } = image.resolved?.settings ?? {};
    const origin = image.resolved ? { image: { reference, digest: image.resolved.digest } } : {};
    return { root: image.root, settings, history: [], triggers, platform, ...origin };
  }

  /** An image by its id is none of the names that a registry would take. */
  #checkReference(reference: string, lines: LineRange): void {
    if (/^[a-f0-9]{12,64}$/.test(reference)) return;
    this.#checked(lines, REFERENCE_RULE, 'REFERENCE_INVALID', () => parseReference(reference));
  }

  /** What another part refuses has its line here. */
  #checked(lines: LineRange, rule: string, code: string, parse: () => unknown): void {
    try {
      parse();
    } catch (error) {
      if (!isCode(error, code)) throw error;
      this.fail(lines, messageOf(error), rule);
    }
  }

  #scope(stage: Stage, settings: ImageSettings): Scope {
    const platform = platformArgs(this.options.targetPlatform, this.options.buildPlatform, stage.name ?? '');
    const global = new Map([...platform, ...this.#global]);
    return new Scope({ env: settings.Env ?? [], given: this.options.args, global });
  }

  /** ARG lines before the first FROM; each may use those above it. */
  #globalArgs(): ReadonlyMap<string, string> {
    const values = new Map<string, string>();
    const scope = { get: (name: string) => values.get(name) ?? platform.get(name) };
    const platform = platformArgs(this.options.targetPlatform, this.options.buildPlatform, '');
    for (const { args } of this.file.metaArgs) {
      for (const { name, value } of args) {
        const own = value === undefined ? undefined : expandWord(value, scope, { escape: this.file.directives.escape });
        const result = this.options.args.get(name) ?? own;
        if (result !== undefined) values.set(name, result);
      }
    }
    return values;
  }
}

const REFERENCE_RULE = 'an image is [REGISTRY/]NAME[:TAG][@DIGEST], the name in lower case';
const PLATFORM_RULE = 'a platform is OS/ARCHITECTURE[/VARIANT], such as linux/amd64';

/** What a stage starts from. */
export interface StageBase {
  root: StepId | undefined;
  settings: ImageSettings;
  history: HistoryLine[];
  /** ONBUILD lines of the base, run first and not handed on. */
  triggers: string[];
  platform: string;
  author?: string;
  image?: { reference: string; digest: string };
}
