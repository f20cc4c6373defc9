import type { EngineClient } from '#engine/client/client.ts';

export type FlagType = 'bool' | 'text' | 'int' | 'list' | 'duration';

/** One option of a verb: a row of the table that parsing, help and completion read. */
export interface Flag {
  name: string;
  short?: string;
  type: FlagType;
  /** What stands for the value in help. */
  value?: string;
  summary: string;
  /** Shown in help; what is used is up to the command. */
  fallback?: string;
  /** What a shell may offer for the value. */
  complete?: ArgumentKind;
  /** Valid values; others are refused. */
  values?: readonly string[];
}

/** What an argument names, for completion. */
export type ArgumentKind = 'container' | 'running' | 'image' | 'network' | 'volume' | 'file' | 'app' | 'none';

export interface Verb {
  /** Words after `estiba`: `container ls`. */
  name: string;
  /** Other words for the same: `ps`. */
  aliases?: readonly string[];
  summary: string;
  /** As in help: `CONTAINER [CONTAINER...]`. */
  usage: string;
  args: { min: number; max: number; kind: ArgumentKind };
  flags: readonly Flag[];
  /** Flags end at the first argument: what follows belongs to the container's command. */
  stopAtArgument?: boolean;
  /** Reads its own words: a process of its own, or a command older than this table. */
  raw?: boolean;
  load: () => Promise<Command>;
}

export type Command = (call: Invocation) => Promise<number | undefined>;

export interface Invocation {
  verb: Verb;
  flags: Flags;
  args: readonly string[];
  io: Io;
  /** The daemon that is meant. */
  engine: EngineClient;
  /** Flags before the verb. */
  global: GlobalFlags;
}

export interface GlobalFlags {
  host?: string;
  runRoot?: string;
}

/** The world of a command: tests bring their own. */
export interface Io {
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  version: { version: string; commit: string };
  now: () => number;
}

/** Parsed flags. Asking for one that the verb's row does not have is a mistake of ours. */
export class Flags {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  on(name: string): boolean {
    return this.text(name) === 'true';
  }

  /** The last value given. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  list(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  int(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : Number(text);
  }
}

export const MANY_ARGS = { min: 0, max: Number.POSITIVE_INFINITY, kind: 'none' as const };
