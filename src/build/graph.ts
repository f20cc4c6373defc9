import { createHash } from 'node:crypto';
import type { ImageSettings } from '#build/settings.ts';
import type { LineRange } from '#spec/dockerfile/errors.ts';
import type { InlineFile } from '#spec/dockerfile/instructions.ts';

/**
 * A build as data: steps in an order in which each stands after all it needs. A step is named by its place in the list; two
 * steps that ask for the same are one. Nothing here has been run, fetched or read.
 */
export interface BuildGraph {
  steps: BuildStep[];
  /** The stages that the target needs, in the order of the Dockerfile. */
  stages: PlannedStage[];
  target: PlannedStage;
}

export type StepId = number;

export interface PlannedStage {
  index: number;
  name?: string;
  /** The file system of the stage; undefined is an empty one. */
  root: StepId | undefined;
  settings: ImageSettings;
  author?: string;
  history: HistoryLine[];
  /** FROM and all that follows it, ONBUILD lines of the base included, as progress shows it. */
  instructions: { text: string; step?: StepId }[];
  /** The image that the stage stands on, whose own history and layers come first. */
  base?: { reference: string; digest: string };
}

/** One line of the image's history. `step` made a layer, or the line changed settings alone. */
export interface HistoryLine {
  createdBy: string;
  step?: StepId;
  comment?: string;
}

export type BuildStep = StepDetail & {
  /** `build 3/7`, as progress shows it, with the instruction. */
  title: string;
  lines?: LineRange;
  /** Set by `--no-cache`: it is run whatever the cache has, and so is what reads from it. */
  uncached?: true;
};

export type StepDetail =
  | { do: 'image'; reference: string; digest: string; platform: string }
  | { do: 'context'; name: string }
  | { do: 'fetch'; url: string; checksum?: string }
  | { do: 'git'; url: string; keepGitDir: boolean }
  | { do: 'workdir'; root: StepId | undefined; path: string; user: string }
  | CopyStep
  | RunStep;

export interface CopyStep {
  do: 'copy';
  root: StepId | undefined;
  items: CopyItem[];
  destination: string;
  chown?: string;
  chmod?: string;
  /** The layer does not look at what stands below: links in the destination are not followed. */
  link: boolean;
  parents: boolean;
  excludes: string[];
}

/** `from` undefined: an empty stage. `unpack`: ADD takes local archives apart. */
export type CopyItem =
  | { from: StepId | undefined; path: string; unpack: boolean }
  | { inline: Omit<InlineFile, 'expand'> }
  | { remote: StepId; name: string; unpack: boolean };

export interface RunStep {
  do: 'run';
  root: StepId | undefined;
  argv: string[];
  /** What the command sees; build arguments included. Proxies are added at run time and belong to no key. */
  env: string[];
  cwd: string;
  user: string;
  mounts: PlannedMount[];
  network: 'default' | 'none' | 'host';
  security: 'sandbox' | 'insecure';
}

export type PlannedMount =
  | { type: 'bind'; from: StepId | undefined; source: string; target: string; readonly: boolean }
  | {
      type: 'cache';
      id: string;
      from?: StepId | undefined;
      source: string;
      target: string;
      readonly: boolean;
      sharing: string;
      owner: object;
    }
  | { type: 'tmpfs'; target: string; sizeBytes?: number }
  | { type: 'secret'; id: string; target?: string; env?: string; required: boolean; owner: object }
  | { type: 'ssh'; id: string; target: string; required: boolean; owner: object };

/** The steps that `step` reads from. */
export function inputsOf(step: StepDetail): StepId[] {
  const ids: (StepId | undefined)[] = [];
  switch (step.do) {
    case 'run':
      ids.push(step.root, ...step.mounts.map((m) => (m.type === 'bind' || m.type === 'cache' ? m.from : undefined)));
      break;
    case 'copy':
      ids.push(
        step.root,
        ...step.items.map((item) => ('from' in item ? item.from : 'remote' in item ? item.remote : undefined)),
      );
      break;
    case 'workdir':
      ids.push(step.root);
      break;
    case 'image':
    case 'context':
    case 'fetch':
    case 'git':
      break;
  }
  return [...new Set(ids.filter((id) => id !== undefined))];
}

/**
 * The cache key of a step: what it does, the keys of what it reads, and `content`, the digest of what exactly it takes from
 * a context, a download or another stage (names, bytes, modes, owners; never times). Same key, same result: a step whose key
 * is known is not run.
 */
export function stepKey(step: BuildStep, keyOf: (id: StepId) => string, content = ''): string {
  const { title: _title, lines: _lines, uncached: _uncached, ...detail } = step;
  const named = JSON.stringify(detail, (key, value) => (isStepReference(key, value) ? keyOf(value) : value));
  return createHash('sha256').update(named).update('\0').update(content).digest('hex');
}

/** The steps whose files a copy takes: images and stages. */
export function copiedRoots(step: CopyStep, isContext: (id: StepId) => boolean): StepId[] {
  return step.items.flatMap((item) =>
    'from' in item && item.from !== undefined && !isContext(item.from) ? [item.from] : [],
  );
}

function isStepReference(key: string, value: unknown): value is StepId {
  return typeof value === 'number' && (key === 'root' || key === 'from' || key === 'remote');
}

/** The graph as people and golden files read it: a line a step, what it reads by number. */
export function printGraph(graph: BuildGraph): string {
  const lines = graph.steps.map((step, id) => `${id}  ${step.title}\n${printDetail(step)}`);
  const stages = graph.stages.map((stage) => {
    const root = stage.root === undefined ? 'scratch' : String(stage.root);
    const mark = stage === graph.target ? '  (target)' : '';
    const settings = Object.entries(stage.settings).map(([k, v]) => `     ${k} ${JSON.stringify(v)}`);
    const author = stage.author === undefined ? [] : [`     author ${stage.author}`];
    return [`stage ${stage.name ?? stage.index} = ${root}${mark}`, ...settings, ...author].join('\n');
  });
  return `${[...lines, ...stages].join('\n')}\n`;
}

function printDetail(step: BuildStep): string {
  const { title: _title, lines: _lines, ...detail } = step;
  return Object.entries(detail)
    .filter(
      ([key, value]) =>
        key !== 'do' && value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0),
    )
    .map(([key, value]) => `     ${key} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join('\n');
}
