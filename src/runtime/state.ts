import { posix } from 'node:path';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import type { Int64 } from '#spec/oci/json.ts';

/**
 * What is kept of a container on disk, below `--root` (`/run/estiba-oci`):
 *
 *     ROOT/ID/               made first, with mkdir(2): two creates of one id cannot both win
 *       state.json           the record below, written before anything exists: the intent
 *       pid                  "PID STARTTIME\n", renamed into place by the executor once the process exists
 *       exec.fifo            init waits here; gone once it was started
 *       lock                 "PID STARTTIME\n" of the command that changes the container now
 */
export function paths(root: string, id: string) {
  const dir = posix.join(root, id);
  return {
    dir,
    record: posix.join(dir, 'state.json'),
    pid: posix.join(dir, 'pid'),
    fifo: posix.join(dir, 'exec.fifo'),
    lock: posix.join(dir, 'lock'),
  };
}

export const RECORD_VERSION = 1;

/** Everything later commands need; the configuration as it was at create ("later changes MUST NOT have an effect"). */
export interface ContainerRecord {
  version: number;
  id: string;
  bundle: string;
  rootfs: string;
  /** RFC 3339. */
  created: string;
  /** Who created it, for `list`. */
  owner: { uid: number; name: string };
  /** The command that creates; the container is `creating` as long as it lives and has written no pid. */
  creator?: ProcessIdentity;
  rootless: boolean;
  /** The container's place in each hierarchy. */
  cgroups: readonly CgroupPlace[];
  /** The root is a mount of the host's own namespace, to be unmounted with the container. */
  ownsRootMount: boolean;
  /** config.json, parsed. */
  config: unknown;
  noNewKeyring: boolean;
}

/** A process that cannot be mistaken for a later one with the same pid: start time in clock ticks since boot. */
export interface ProcessIdentity {
  pid: number;
  startTime: Int64;
}

export function parseIdentity(text: string): ProcessIdentity | undefined {
  const match = /^(\d+) (\d+)\s*$/.exec(text);
  return match ? { pid: Number(match[1]), startTime: BigInt(match[2] ?? 0) } : undefined;
}
