import { WrongPhase } from '#engine/core/errors.ts';
import type { SandboxRecord } from '#engine/core/parts.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';

/** Where what a container shares with others is found, as it is now. */
export interface Neighbours {
  find(name: string): ContainerRecord;
  sandbox(id: string): SandboxRecord;
  /** `/dev/shm` of a container with a shareable IPC namespace. */
  memoryOf(id: string): string;
}

export type JoinedNamespaces = Partial<Record<'network' | 'pid' | 'ipc' | 'uts', string>>;

/** Namespaces of sandboxes, and those of other containers by the pid that is theirs now. */
export function joinedNamespaces(spec: ContainerSpec, neighbours: Neighbours): JoinedNamespaces {
  const join: JoinedNamespaces = {};
  for (const type of ['network', 'pid', 'ipc', 'uts'] as const) {
    const mode = spec.namespaces[type];
    if (mode.kind === 'sandbox') {
      const path = neighbours.sandbox(mode.id).namespaces[type];
      if (path !== undefined) join[type] = path;
    }
    // A shared network comes with the attachment, since its files do too.
    if (mode.kind === 'container' && type !== 'network')
      join[type] = `/proc/${donor(mode.id, type, neighbours).state.pid}/ns/${type}`;
  }
  return join;
}

/** Where `/dev/shm` comes from when it is not the container's own: POSIX shared memory goes with the IPC namespace. */
export function sharedMemory({ id, spec }: ContainerRecord, neighbours: Neighbours): { shmSource?: string } {
  const { ipc } = spec.namespaces;
  if (ipc.kind === 'host') return { shmSource: '/dev/shm' };
  if (ipc.kind === 'shareable') return { shmSource: neighbours.memoryOf(id) };
  if (ipc.kind !== 'container') return {};
  const owner = donor(ipc.id, 'ipc', neighbours);
  const { kind } = owner.spec.namespaces.ipc;
  if (kind !== 'shareable' && kind !== 'host')
    throw new WrongPhase({
      message: `cannot join IPC namespace of container ${owner.name}: non-shareable IPC`,
      hint: 'start that one with --ipc shareable',
    });
  return sharedMemory(owner, neighbours);
}

export function sharedNetwork(
  { namespaces: { network } }: ContainerSpec,
  neighbours: Neighbours,
): { sharedWith?: { id: string; pid: number } } {
  if (network.kind !== 'container') return {};
  const { id, state } = donor(network.id, 'network', neighbours);
  return { sharedWith: { id, pid: state.pid } };
}

/** The container whose namespace is to be joined; it must run. */
function donor(name: string, type: string, neighbours: Neighbours): ContainerRecord {
  const other = neighbours.find(name);
  if (!isRunning(other.state))
    throw new WrongPhase({ message: `cannot join ${type} namespace of a non running container: ${other.name}` });
  return other;
}
