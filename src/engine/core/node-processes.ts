import type { ForeignProcesses } from '#engine/core/foreign.ts';
import type {
  CgroupWish,
  CreatedProcess,
  ExitStatus,
  IoWish,
  ProcessSource,
  RunningProcess,
} from '#engine/core/parts.ts';
import type { ShimProcesses } from '#engine/core/processes.ts';
import { OUR_RUNTIME, type Runtimes } from '#engine/core/runtimes.ts';
import type { CgroupPlan } from '#kernel/cgroup/plan.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { OciConfig } from '#spec/oci/config.ts';

/** Each container by the runtime that it names: ours, or another of this node. */
export class NodeProcesses implements ProcessSource {
  readonly #own: ShimProcesses;
  readonly #foreign: ForeignProcesses;
  readonly #runtimes: Runtimes;

  constructor(own: ShimProcesses, foreign: ForeignProcesses, runtimes: Runtimes) {
    this.#own = own;
    this.#foreign = foreign;
    this.#runtimes = runtimes;
  }

  async create(
    id: string,
    config: OciConfig,
    io: IoWish,
    { runtime: name = OUR_RUNTIME, cgroups }: { runtime?: string; cgroups?: CgroupPlan } = {},
  ): Promise<CreatedProcess> {
    const runtime = this.#runtimes.find(name);
    if (runtime) return this.#foreign.create(id, config, io, runtime);
    return this.#own.create(id, config, io, cgroups ? { cgroups } : {});
  }

  /** Ours; another runtime makes its own. */
  planCgroups(id: string, wish: CgroupWish): CgroupPlan {
    return this.#own.planCgroups(id, wish);
  }

  find(id: string): Promise<RunningProcess | undefined> {
    return this.#of(id).find(id);
  }

  /** A foreign one may have been cut off before its shim was there. */
  async list(): Promise<string[]> {
    return [...new Set([...(await this.#own.list()), ...this.#foreign.list()])];
  }

  /** By its shim's directory, whoever made it. */
  execExit(id: string, exec: string): Promise<ExitStatus | undefined> {
    return this.#own.execExit(id, exec);
  }

  end(id: string): Promise<void> {
    return this.#of(id).end(id);
  }

  remove(id: string): Promise<void> {
    return this.#of(id).remove(id);
  }

  plan(id: string): Plan | undefined {
    return this.#of(id).plan(id);
  }

  foresee(id: string, config: OciConfig, seen: Parameters<ShimProcesses['foresee']>[2], name = OUR_RUNTIME): Plan {
    const runtime = this.#runtimes.find(name);
    return runtime ? this.#foreign.foresee(id, config, runtime) : this.#own.foresee(id, config, seen);
  }

  #of(id: string): ShimProcesses | ForeignProcesses {
    return this.#foreign.has(id) ? this.#foreign : this.#own;
  }
}
