import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Live } from '#cluster/client/resources.ts';
import { LABEL } from '#cluster/node/pod/runs.ts';
import type { NodeEngine, NodeHost } from '#cluster/node/seams.ts';
import { logNames } from '#engine/core/log-files.ts';
import { formatQuantity, nanoOf, unitsOf } from '#spec/kubernetes/quantity.ts';
import type { Container, Pod, PodSpec, Volume } from '#spec/kubernetes/types.gen.ts';

/** Bytes on the node's disk, by name. */
export interface DiskUse {
  /** emptyDirs that are not in memory. */
  volumes: ReadonlyMap<string, number>;
  /** What the container's runs wrote, logs among it. */
  containers: ReadonlyMap<string, number>;
}

const limitOf = ({ resources }: Container): string | undefined => resources?.limits?.['ephemeral-storage'];
const onDisk = ({ emptyDir }: Volume): boolean => emptyDir !== undefined && emptyDir.medium !== 'Memory';

/** Whether anything of the pod's use of the disk has a limit: only such pods are measured. */
export function hasDiskLimit(spec: PodSpec): boolean {
  return (
    (spec.volumes ?? []).some((v) => onDisk(v) && v.emptyDir?.sizeLimit !== undefined) || spec.containers.some(limitOf)
  );
}

/** Why the pod has to go, in the kubelet's words; undefined while it keeps its limits. Pure. */
export function overuse(spec: PodSpec, use: DiskUse): string | undefined {
  for (const volume of spec.volumes ?? []) {
    const limit = onDisk(volume) ? volume.emptyDir?.sizeLimit : undefined;
    if (limit !== undefined && (use.volumes.get(volume.name) ?? 0) > unitsOf(limit))
      return `Usage of EmptyDir volume "${volume.name}" exceeds the limit "${limit}". `;
  }
  // The pod has a limit when each of its containers has one.
  const limits = spec.containers.map(limitOf);
  const total = limits.reduce((sum, limit) => sum + nanoOf(limit), 0n);
  const used = [...use.volumes.values(), ...use.containers.values()].reduce((sum, bytes) => sum + bytes, 0);
  if (limits.every((limit) => limit !== undefined) && BigInt(used) * 1_000_000_000n > total)
    return `Pod ephemeral local storage usage exceeds the total limit of containers ${formatQuantity({ nano: total, format: 'binary' })}. `;
  for (const container of spec.containers) {
    const limit = limitOf(container);
    if (limit !== undefined && (use.containers.get(container.name) ?? 0) > unitsOf(limit))
      return `Container ${container.name} exceeded its local ephemeral storage limit "${limit}". `;
  }
  return undefined;
}

export interface DiskWatchOptions {
  clock: Clock;
  log: Logger;
  engine: Pick<NodeEngine, 'containers' | 'logPath' | 'logFiles' | 'writtenBytes'>;
  host: Pick<NodeHost, 'diskBytes'>;
  pods(): Live<Pod>[];
  /** Where an emptyDir of a pod is. */
  volumePath(uid: string, volume: string): string;
  evict(uid: string, message: string): void;
}

/** As the kubelet's local storage monitoring. */
const PERIOD_MS = 10_000;
/** Measuring takes at most about one part in this many of the time, however large the trees are. */
const REST = 20;

/** Looks at the disk that limited pods use, from time to time, and has those evicted that use more. */
export class DiskWatch {
  readonly #o: DiskWatchOptions;
  #cancel: () => void = () => undefined;
  #stopped = false;

  constructor(options: DiskWatchOptions) {
    this.#o = options;
  }

  start(): void {
    this.#schedule(PERIOD_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  #schedule(ms: number): void {
    if (this.#stopped) return;
    this.#cancel = this.#o.clock.after(ms, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { clock, log, evict, pods } = this.#o;
    const beginMs = clock.monotonic();
    for (const pod of pods().filter((p) => p.status?.phase === 'Running' && hasDiskLimit(p.spec))) {
      try {
        const message = overuse(pod.spec, await this.#useOf(pod));
        if (message !== undefined) evict(pod.metadata.uid, message);
      } catch (error) {
        log.warn('what a pod uses of the disk could not be measured', {
          pod: pod.metadata.name,
          error: describeChain(error),
        });
      }
    }
    this.#schedule(Math.max(PERIOD_MS, REST * (clock.monotonic() - beginMs)));
  }

  async #useOf({ metadata: { uid }, spec }: Live<Pod>): Promise<DiskUse> {
    const { engine, host, volumePath } = this.#o;
    const volumes = new Map<string, number>();
    for (const volume of (spec.volumes ?? []).filter(onDisk))
      volumes.set(volume.name, await host.diskBytes(volumePath(uid, volume.name)));
    const containers = new Map<string, number>();
    for (const { id, spec: run } of engine.containers.list()) {
      const name = run.labels[LABEL.container];
      if (run.labels[LABEL.uid] !== uid || name === undefined) continue;
      let bytes = await engine.writtenBytes(id);
      const places = { path: engine.logPath(id), maxFiles: engine.logFiles };
      for (const file of await logNames(places)) bytes += await host.diskBytes(file.path);
      containers.set(name, (containers.get(name) ?? 0) + bytes);
    }
    return { volumes, containers };
  }
}
