import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { ForeignCannot, NoSuchRuntime } from '#engine/core/errors.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { LANDLOCK_PREFIX } from '#kernel/landlock.ts';

/** What a container that names no runtime, or this one, runs on: no program, but our own plans and shims. */
export const OUR_RUNTIME = 'estiba';

/** A program with runc's command line, by which a container is made instead of by our own plan. */
export interface ForeignRuntime {
  name: string;
  /** Absolute. */
  path: string;
  /** Before its verb. */
  args: readonly string[];
}

/** As the daemon was told: `--add-runtime NAME=PATH`, or `runtimes` of Docker's daemon.json. */
export interface RuntimeSettings {
  named: readonly ForeignRuntime[];
  /** What containers run on that name none. */
  fallback: string;
  /** `PATH`: where others are looked for, and what they find their own helpers by. */
  searchPath: string;
}

export const OUR_RUNTIME_ALONE: RuntimeSettings = { named: [], fallback: OUR_RUNTIME, searchPath: '' };

/** Looked for on PATH. All have runc's command line; others are told to the daemon by name. */
const KNOWN = ['crun', 'runc', 'runsc', 'youki'];

/** The OCI runtimes of this node beside ours. Looked for when somebody asks: a start of the daemon does not, and one installed later is there. */
export class Runtimes {
  readonly #o: RuntimeSettings;
  readonly #runs: (path: string) => boolean;

  constructor(settings: RuntimeSettings, runs: (path: string) => boolean = isProgram) {
    this.#o = settings;
    this.#runs = runs;
  }

  get fallback(): string {
    return this.#o.fallback;
  }

  /** What its helpers are found by (criu, newuidmap). */
  get searchPath(): string {
    return this.#o.searchPath;
  }

  /** Undefined for ours. Throws NoSuchRuntime. */
  find(name: string): ForeignRuntime | undefined {
    if (name === OUR_RUNTIME) return undefined;
    const found = this.#o.named.find((runtime) => runtime.name === name) ?? this.#onPath(name);
    if (!found) throw new NoSuchRuntime({ runtime: name, known: [OUR_RUNTIME, ...this.list().map((r) => r.name)] });
    return found;
  }

  list(): ForeignRuntime[] {
    const found = KNOWN.flatMap((name) => this.#onPath(name) ?? []);
    return [...found.filter(({ name }) => !this.#o.named.some((n) => n.name === name)), ...this.#o.named];
  }

  /** The wish with its runtime named, or without one where that is ours; refuses what the named one would leave undone. */
  settle(spec: ContainerSpec): ContainerSpec {
    const { runtime: wished = this.#o.fallback, ...rest } = spec;
    const foreign = this.find(wished);
    if (!foreign) return spec.runtime === undefined ? spec : rest;
    refuseWhatItCannot(spec, foreign.name);
    return { ...spec, runtime: foreign.name };
  }

  #onPath(name: string): ForeignRuntime | undefined {
    if (!KNOWN.includes(name)) return undefined;
    const path = this.#o.searchPath
      .split(':')
      .filter((dir) => dir.startsWith('/'))
      .map((dir) => join(dir, name))
      .find((candidate) => this.#runs(candidate));
    return path === undefined ? undefined : { name, path, args: [] };
  }
}

/** What no field of config.json says, or not every runtime of these names looks at: taken without a word, it would be believed. */
function refuseWhatItCannot({ annotations, mounts, namespaces }: ContainerSpec, runtime: string): void {
  const landlock = Object.keys(annotations).find((name) => name.startsWith(LANDLOCK_PREFIX));
  if (landlock !== undefined) throw new ForeignCannot({ runtime, what: `annotation ${landlock}` });
  const owned = mounts.find((mount) => mount.type !== 'tmpfs' && mount.owner !== undefined);
  if (owned) throw new ForeignCannot({ runtime, what: `another owner of the files at ${owned.target}` });
  if (namespaces.user.kind === 'private') throw new ForeignCannot({ runtime, what: 'a user namespace of its own' });
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false; // whatever the reason, it cannot be run
  }
}
