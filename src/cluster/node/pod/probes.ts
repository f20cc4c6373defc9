import { type Live, PODS } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { askContainer } from '#cluster/node/pod/hooks.ts';
import type { Run } from '#cluster/node/pod/runs.ts';
import { ProbeWatch } from '#cluster/node/probe/watch.ts';
import type { Container, Pod } from '#spec/kubernetes/types.gen.ts';

/** The pod as it is now: both change while its probes go on. */
export interface ProbedPod {
  pod: () => Live<Pod>;
  ip: () => string;
}

/** The probes of one pod: a watch for each container of which a run goes on. */
export class PodProbes {
  readonly #deps: AgentDeps;
  readonly #probed: ProbedPod;
  readonly #watches = new Map<string, { runId: string; watch: ProbeWatch }>();

  constructor(deps: AgentDeps, probed: ProbedPod) {
    this.#deps = deps;
    this.#probed = probed;
  }

  /** Of a container by name; undefined: none of its runs is watched. */
  of(name: string): ProbeWatch | undefined {
    return this.#watches.get(name)?.watch;
  }

  /**
   * Each run that goes on has its probes; after a restart of ours they go on from what was reported. `busy`: containers that something is
   * being done to, which is what has them watched in the end.
   */
  keep(runs: ReadonlyMap<string, readonly Run[]>, busy: ReadonlySet<string>): void {
    const { spec, status } = this.#probed.pod();
    for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
      const run = runs.get(container.name)?.at(-1);
      const known = this.#watches.get(container.name);
      if (known && known.runId !== run?.id) {
        known.watch.close();
        this.#watches.delete(container.name);
      }
      if (run?.state === 'ended') known?.watch.close();
      if (run?.state !== 'running' || this.#watches.has(container.name) || busy.has(container.name)) continue;
      const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
      const reported = statuses.find((s) => s.name === container.name && s.containerID?.endsWith(run.id));
      const adopted = reported && { started: reported.started ?? false, ready: reported.ready };
      this.watch(container, run.id, run.startedAtMs, adopted);
    }
  }

  watch(
    container: Container,
    runId: string,
    startedAtMs: number,
    adopted?: { started: boolean; ready: boolean },
  ): void {
    this.of(container.name)?.close();
    const watch = new ProbeWatch({
      container,
      clock: this.#deps.clock,
      startedAtMs,
      adopted,
      run: (probe, kind) => {
        const target = { id: runId, container, ip: this.#probed.ip(), name: kind };
        return askContainer(this.#deps, target, probe, (probe.timeoutSeconds ?? 1) * 1000);
      },
      changed: () => this.#deps.wake(this.#probed.pod().metadata.uid),
      failed: (kind, { output }) => {
        const title = kind[0]?.toUpperCase() + kind.slice(1);
        const message = `${title} probe failed: ${output}`;
        this.#deps.events.record(PODS, this.#probed.pod(), { type: 'Warning', reason: 'Unhealthy', message });
      },
    });
    this.#watches.set(container.name, { runId, watch });
  }

  close(): void {
    for (const { watch } of this.#watches.values()) watch.close();
  }
}
