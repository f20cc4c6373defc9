import type { CompileOptions, SeccompProgram } from '#kernel/seccomp/compile.ts';
import { compileSeccomp } from '#kernel/seccomp/compile.ts';
import type { SeccompProfile } from '#kernel/seccomp/profile.ts';

const MOST_PROFILES = 64;

/**
 * Compiled programs by profile. A node runs thousands of containers with a handful of profiles; the one that was not used
 * for longest makes room. The daemon holds one of these. An object that was seen before is not read again: a profile never changes,
 * and who makes one for many containers shares it.
 */
export class SeccompCache {
  readonly #programs = new Map<string, SeccompProgram>();
  readonly #seen = new WeakMap<SeccompProfile, SeccompProgram>();
  readonly #compile: (profile: SeccompProfile) => SeccompProgram;

  /** `compile`: what stands behind it, the compiler when absent. */
  constructor(options: CompileOptions, compile = (profile: SeccompProfile) => compileSeccomp(profile, options)) {
    this.#compile = compile;
  }

  compile(profile: SeccompProfile): SeccompProgram {
    const program = this.#seen.get(profile) ?? this.#byContent(profile);
    this.#seen.set(profile, program);
    return program;
  }

  #byContent(profile: SeccompProfile): SeccompProgram {
    const { listenerMetadata: _, ...rest } = profile; // the agent's affair, not the program's
    const key = JSON.stringify(rest, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));
    const program = this.#programs.get(key) ?? this.#compile(profile);
    this.#programs.delete(key);
    this.#programs.set(key, program);
    const [oldest] = this.#programs.keys();
    if (this.#programs.size > MOST_PROFILES && oldest !== undefined) this.#programs.delete(oldest);
    return program;
  }
}
