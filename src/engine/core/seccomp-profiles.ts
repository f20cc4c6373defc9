import type { SecuritySpec } from '#engine/core/spec.ts';
import { dockerDefaultProfile, type Machine, resolveProfile } from '#kernel/seccomp/docker.ts';
import { type LinuxSeccomp, Seccomp } from '#spec/oci/linux.ts';

/** Sets of capabilities that containers of one node run with; a few in practice. */
const MOST_KNOWN = 64;

/**
 * Seccomp profiles as they stand for a container: resolved for its capabilities, and checked against the specification. Docker's default
 * is resolved once for each set of capabilities, and all containers with that set share the object: it is most of a configuration (four
 * hundred names), and what is derived from it (`SeccompCache`) is found again by its identity.
 */
export class SeccompProfiles {
  readonly #machine: Machine;
  readonly #defaults = new Map<string, LinuxSeccomp>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** `capabilities`: the bounding set. Undefined: unconfined. */
  resolve(security: SecuritySpec, capabilities: readonly string[]): LinuxSeccomp | undefined {
    if (security.seccomp === 'unconfined' || (security.privileged && security.seccomp === 'default')) return undefined;
    if (security.seccomp !== 'default')
      return Seccomp(resolveProfile(security.seccomp.profile, capabilities, this.#machine), '$.linux.seccomp');
    const key = capabilities.join(' ');
    const known =
      this.#defaults.get(key) ??
      Seccomp(resolveProfile(dockerDefaultProfile(), capabilities, this.#machine), '$.linux.seccomp');
    if (this.#defaults.size >= MOST_KNOWN) this.#defaults.clear();
    this.#defaults.set(key, known);
    return known;
  }
}
