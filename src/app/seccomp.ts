import { join } from 'node:path';
import { SECCOMP_BUILD } from '#app/version.ts';
import { archOfNode } from '#kernel/linux/syscalls.ts';
import type { SeccompProgram } from '#kernel/seccomp/compile.ts';
import type { SeccompProfile } from '#kernel/seccomp/profile.ts';
import { SeccompStore } from '#kernel/seccomp/store.ts';

/** Where `estiba-oci` keeps compiled profiles: below /run, or the user's own of it. Undefined where there is no such place. */
export function seccompStore(
  uid: number,
  env: Readonly<Record<string, string | undefined>>,
  run: string | undefined = uid === 0 ? '/run' : env['XDG_RUNTIME_DIR'],
): ((profile: SeccompProfile) => SeccompProgram) | undefined {
  const native = archOfNode(process.arch);
  if (!run || !native || SECCOMP_BUILD === undefined) return undefined;
  const store = new SeccompStore({ dir: join(run, 'estiba/seccomp'), uid, build: SECCOMP_BUILD, native });
  return (profile) => store.compile(profile);
}
