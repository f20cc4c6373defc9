import type { Clock } from '#base/clock.ts';
import type { Files } from '#kernel/files.ts';
import type { PlanResult } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { SeccompProgram } from '#kernel/seccomp/compile.ts';
import type { SeccompProfile } from '#kernel/seccomp/profile.ts';
import type { FlagValues } from '#runtime/cli/flags.ts';
import type { CliLog } from '#runtime/cli/log.ts';
import type { Host } from '#runtime/host.ts';

/**
 * Everything a command may touch, as arguments: so it runs in the process of `bin/estiba-oci` and, unchanged, inside a
 * resident planner that serves many of them. No command reads `process`, writes a stream of its own, or exits.
 */
export interface CliContext {
  /** Where relative paths start; absolute. */
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  uid: number;
  gid: number;
  userName: string;
  /** The process that called: locks are taken in its name. */
  pid: number;
  clock: Clock;
  files: Files;
  stdout(text: string): void;
  stderr(text: string): void;
  /** All of stdin, for `-r -` and the like. */
  readStdin(): Promise<string>;
  /** A file that the user names; absolute. May be a pipe. */
  readFile(path: string): Promise<string>;
  /** Carries a plan out. The seam of the native front: it gets the bytes, executes, and answers. */
  execute(plan: Plan, options?: ExecuteOptions): Promise<PlanResult>;
  /** Runs another program to its end (ps, criu). */
  run(command: string, args: readonly string[]): Promise<{ code: number; output: string }>;
  /** What compiles a seccomp profile: one that remembers, since a profile is compiled more often than it changes. */
  seccomp?: (profile: SeccompProfile) => SeccompProgram;
  version: { version: string; commit: string };
  criuAvailable?: boolean;
}

export interface ExecuteOptions {
  /** Keep stdio, forward signals and wait: the plan ends with `waitInit`. */
  foreground?: boolean;
  preserveFds?: number;
  onReady?: (pid: number) => void;
}

/** What a command sees: the context with the command line read. */
export interface Command extends CliContext {
  /** `--root`, absolute. */
  root: string;
  rootless: boolean;
  /** Print plans instead of carrying them out. */
  plan: 'run' | 'text' | 'json';
  criu: string;
  debug: boolean;
  log: CliLog;
  flags: FlagValues;
  args: readonly string[];
  host(): Host;
}

/** The exit code. What was printed went through the context's streams. */
export type Outcome = number;
