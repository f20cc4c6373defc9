import type { Clock } from '#base/clock.ts';
import type { Live } from '#cluster/client/resources.ts';
import { podCgroup, qosClass } from '#cluster/node/pod/resources.ts';
import { LABEL } from '#cluster/node/pod/runs.ts';
import type { NodeEngine, NodeHost, NodeSettings, Usage } from '#cluster/node/seams.ts';
import { isRunning } from '#engine/core/record.ts';
import type { Pod } from '#spec/kubernetes/types.gen.ts';

export interface ContainerUsage {
  name: string;
  cpuNanoCores: number;
  memoryBytes: number;
}

export interface PodUsage {
  namespace: string;
  name: string;
  atMs: number;
  windowMs: number;
  containers: ContainerUsage[];
}

interface Sample {
  atMs: number;
  cpuNs: number;
  rate: number;
  windowMs: number;
}

/** A figure is over at least this long, and no older than the oldest sample that is kept. */
const WINDOW_MS = 1_000;

/** What pods and node use, measured when somebody asks: at rest it costs nothing. */
export class UsageMeter {
  readonly #o: { clock: Clock; engine: NodeEngine; host: NodeHost; settings: NodeSettings; pods: () => Live<Pod>[] };
  readonly #samples = new Map<string, Sample>();

  constructor(options: {
    clock: Clock;
    engine: NodeEngine;
    host: NodeHost;
    settings: NodeSettings;
    pods: () => Live<Pod>[];
  }) {
    this.#o = options;
  }

  podUsage(): PodUsage[] {
    const { engine, settings, clock } = this.#o;
    const running = engine.containers
      .list()
      .filter((r) => isRunning(r.state) && r.spec.labels[LABEL.uid] !== undefined);
    const pods = this.#o.pods().flatMap((pod): PodUsage[] => {
      const { uid, name, namespace = '' } = pod.metadata;
      const parent = podCgroup(settings.cgroupParent, qosClass(pod.spec), uid);
      let windowMs = WINDOW_MS;
      const containers = running
        .filter((r) => r.spec.labels[LABEL.uid] === uid)
        .flatMap((r): ContainerUsage[] => {
          const measured = this.#measure(`${parent}/${r.id}`);
          if (!measured) return [];
          windowMs = measured.sample.windowMs;
          const cpuNanoCores = Math.round(measured.sample.rate);
          return [
            { name: r.spec.labels[LABEL.container] ?? '', cpuNanoCores, memoryBytes: measured.usage.workingSetBytes },
          ];
        });
      return containers.length === 0 ? [] : [{ namespace, name, atMs: clock.now(), windowMs, containers }];
    });
    this.#forgetOld();
    return pods;
  }

  /** The whole machine. */
  nodeUsage(): { name: string; atMs: number; windowMs: number; cpuNanoCores: number; memoryBytes: number } {
    const measured = this.#measure('/');
    return {
      name: this.#o.settings.name,
      atMs: this.#o.clock.now(),
      windowMs: measured?.sample.windowMs ?? WINDOW_MS,
      cpuNanoCores: Math.round(measured?.sample.rate ?? 0),
      memoryBytes: measured?.usage.workingSetBytes ?? 0,
    };
  }

  #measure(path: string): { usage: Usage; sample: Sample } | undefined {
    const { clock, host } = this.#o;
    const usage = host.usage(path);
    if (!usage) return undefined;
    const atMs = clock.monotonic();
    const before = this.#samples.get(path);
    if (before && atMs - before.atMs < WINDOW_MS) return { usage, sample: before };
    const windowMs = before ? atMs - before.atMs : 0;
    const rate = before && windowMs > 0 ? (Math.max(0, usage.cpuNs - before.cpuNs) / windowMs) * 1000 : 0;
    const sample = { atMs, cpuNs: usage.cpuNs, rate, windowMs: windowMs || WINDOW_MS };
    this.#samples.set(path, sample);
    return { usage, sample };
  }

  #forgetOld(): void {
    const oldestMs = this.#o.clock.monotonic() - 600_000;
    for (const [path, sample] of this.#samples) if (sample.atMs < oldestMs) this.#samples.delete(path);
  }
}
