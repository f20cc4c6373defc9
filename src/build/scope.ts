import { envMap } from '#build/settings.ts';
import type { Variables } from '#spec/dockerfile/expand.ts';

/** Docker's arguments that need no ARG line: seen by RUN, never part of a cache key or of history. */
export const PROXY_ARGS: ReadonlySet<string> = new Set(
  ['HTTP_PROXY', 'HTTPS_PROXY', 'FTP_PROXY', 'NO_PROXY', 'ALL_PROXY'].flatMap((name) => [name, name.toLowerCase()]),
);

/** `TARGETPLATFORM` and its relatives, from `os/arch[/variant]` (Dockerfile reference, "Automatic platform ARGs"). */
export function platformArgs(target: string, build: string, stageName: string): Map<string, string> {
  const args = new Map<string, string>();
  for (const [prefix, platform] of [
    ['TARGET', target],
    ['BUILD', build],
  ] as const) {
    const [os = '', arch = '', variant = ''] = platform.split('/');
    args
      .set(`${prefix}PLATFORM`, platform)
      .set(`${prefix}OS`, os)
      .set(`${prefix}ARCH`, arch)
      .set(`${prefix}VARIANT`, variant);
  }
  return args.set('TARGETSTAGE', stageName);
}

/**
 * The variables at one point of a stage. ENV wins over ARG, whatever the order; an ARG takes its value from the command
 * line, else its own default, else the global ARG of that name.
 */
export class Scope implements Variables {
  #env: Map<string, string>;
  readonly #args = new Map<string, string>();
  /** Declared with ARG, set or not: they may be looked up without a warning. */
  readonly #declared = new Set<string>();
  readonly #given: ReadonlyMap<string, string>;
  readonly #global: ReadonlyMap<string, string>;

  constructor(options: {
    env: readonly string[];
    given: ReadonlyMap<string, string>;
    global: ReadonlyMap<string, string>;
  }) {
    this.#env = envMap(options.env);
    this.#given = options.given;
    this.#global = options.global;
  }

  get(name: string): string | undefined {
    return this.#env.get(name) ?? this.#args.get(name);
  }

  isDeclared(name: string): boolean {
    return this.#declared.has(name) || this.#env.has(name);
  }

  setEnv(env: readonly string[]): void {
    this.#env = envMap(env);
  }

  declare(name: string, ownDefault: string | undefined): void {
    this.#declared.add(name);
    const value = this.#given.get(name) ?? ownDefault ?? this.#global.get(name);
    if (value !== undefined) this.#args.set(name, value);
  }

  /** Arguments that a command sees as environment variables, in order of their names; ENV hides them. */
  args(): [string, string][] {
    return [...this.#args].filter(([name]) => !this.#env.has(name)).sort(([a], [b]) => (a < b ? -1 : 1));
  }
}
