import { defineError } from '#base/errors.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';

/**
 * Landlock as annotations of ours, since OCI has no field for it:
 *
 *     estiba.landlock.ro     /usr:/etc        read and list
 *     estiba.landlock.rx     /usr/bin:/lib    read, list and execute
 *     estiba.landlock.rw     /tmp:/var/lib    everything but execute
 *     estiba.landlock.rwx    /work            everything
 *     estiba.landlock.scope  signal:abstract-unix     no signals, no abstract sockets to the outside (Linux 6.12)
 *
 * Paths are the container's. As soon as one path is named, what no path covers is closed: Landlock only takes away.
 */
export const LANDLOCK_PREFIX = 'estiba.landlock.';

export const BadLandlock = defineError(
  'BAD_LANDLOCK',
  (d: { key: string; value: string; rule: string; hint: string }) => ({
    message: `$.annotations[${JSON.stringify(d.key)}]: ${JSON.stringify(d.value)} ${d.rule}`,
    hint: d.hint,
  }),
);

// LANDLOCK_ACCESS_FS_* (linux/landlock.h), with the ABI that brought them.
const EXECUTE = 1 << 0;
const READ_FILE = 1 << 2;
const READ_DIR = 1 << 3;
const REFER = 1 << 13; // ABI 2
const TRUNCATE = 1 << 14; // ABI 3
const IOCTL_DEV = 1 << 15; // ABI 5
const FIRST_ABI = (1 << 13) - 1;

const SCOPES: Readonly<Record<string, bigint>> = { 'abstract-unix': 1n, signal: 2n }; // ABI 6

/** The ABI of mainline kernels. Asking takes a system call that Node has not; distributions do not backport Landlock. */
const ABIS: readonly (readonly [release: string, abi: number])[] = [
  ['6.15', 7],
  ['6.12', 6],
  ['6.10', 5],
  ['6.7', 4],
  ['6.2', 3],
  ['5.19', 2],
  ['5.13', 1],
];

/** 0: none. `lsm` is /sys/kernel/security/lsm where it can be read: Landlock may be built in and switched off. */
export function landlockAbi(kernelRelease: string, lsm?: string): number {
  if (lsm !== undefined && !lsm.trim().split(',').includes('landlock')) return 0;
  return ABIS.find(([release]) => kernelAtLeast(kernelRelease, release))?.[1] ?? 0;
}

/** The operation that the annotations ask for, or undefined when they ask for none. */
export function landlockOp(annotations: Readonly<Record<string, string>>, abi: number): Op<'landlock'> | undefined {
  const wishes = Object.entries(annotations).filter(([key]) => key.startsWith(LANDLOCK_PREFIX));
  if (wishes.length === 0) return undefined;
  const handled = handledBy(abi);
  const paths: string[] = [];
  const access: number[] = [];
  let scoped = 0n;
  for (const [key, value] of wishes) {
    const bad = (rule: string, hint: string): never => {
      throw new BadLandlock({ key, value, rule, hint });
    };
    if (abi === 0) bad('asks for Landlock, which this kernel has not', 'Linux 5.13 with lsm=…,landlock has it');
    const kind = key.slice(LANDLOCK_PREFIX.length);
    const words = value.split(':').filter(Boolean);
    if (kind === 'scope') {
      if (abi < 6) bad('asks for a scope, which this kernel has not', 'Linux 6.12 has it');
      for (const word of words) scoped |= SCOPES[word] ?? bad(`names no scope with ${word}`, 'abstract-unix, signal');
      continue;
    }
    const rights = rightsOf(kind, handled) ?? bad('is for no kind of access', 'ro, rx, rw, rwx or scope');
    for (const path of words) {
      if (!path.startsWith('/')) bad(`has a relative path, ${path}`, 'paths are the container’s, from its root');
      paths.push(path);
      access.push(rights);
    }
  }
  return { op: 'landlock', attr: rulesetAttr(paths.length > 0 ? handled : 0, scoped, abi), paths, access };
}

function handledBy(abi: number): number {
  return FIRST_ABI | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0) | (abi >= 5 ? IOCTL_DEV : 0);
}

function rightsOf(kind: string, handled: number): number | undefined {
  const rights: Partial<Record<string, number>> = {
    ro: READ_FILE | READ_DIR,
    rx: READ_FILE | READ_DIR | EXECUTE,
    rw: handled & ~EXECUTE,
    rwx: handled,
  };
  return rights[kind];
}

/** struct landlock_ruleset_attr: as long as the ABI knows it, since an older kernel takes no longer one. */
function rulesetAttr(fs: number, scoped: bigint, abi: number): Uint8Array {
  const length = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const view = new DataView(new ArrayBuffer(length));
  view.setBigUint64(0, BigInt(fs), true);
  if (length === 24) view.setBigUint64(16, scoped, true);
  return new Uint8Array(view.buffer);
}
