import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { newId, type Random } from '#base/random.ts';
import { NoFailedStep } from '#build/errors.ts';
import type { RunStep } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';

/** The root of a command that failed, as it left it. */
export interface FailedStep {
  id: string;
  snapshot: string;
  layers: StepLayer[];
  step: RunStep;
  code: number;
  /** Name of the network that it had. */
  network: string;
  atMs: number;
}

/** More than the last few are of no use, and each may hold gigabytes. */
const KEPT_MAX = 2;
const KEPT_MS = 24 * 3_600_000;

/** Keeps the roots of the last steps that failed, for `estiba debug-build`; none outlives the daemon. */
export class FailedSteps {
  readonly #snapshots: SnapshotStore;
  readonly #clock: Clock;
  readonly #random: Random;
  #kept: FailedStep[] = [];

  constructor(snapshots: SnapshotStore, clock: Clock, random: Random) {
    this.#snapshots = snapshots;
    this.#clock = clock;
    this.#random = random;
  }

  /** Takes the snapshot over. */
  async keep(failed: Omit<FailedStep, 'id' | 'atMs'>): Promise<true> {
    this.#kept.push({ ...failed, id: newId(this.#random).slice(0, 12), atMs: this.#clock.now() });
    await this.prune(KEPT_MAX);
    return true;
  }

  /** The newest first. */
  list(): FailedStep[] {
    return [...this.#kept].reverse();
  }

  find(id: string | undefined): FailedStep {
    const found = id === undefined ? this.#kept.at(-1) : this.#kept.find((failed) => failed.id.startsWith(id));
    if (!found) throw new NoFailedStep({});
    return found;
  }

  /** At most `keep` stay, and none for more than a day. */
  async prune(keep: number): Promise<void> {
    const oldest = this.#clock.now() - KEPT_MS;
    const gone = this.#kept.filter((failed, i) => i < this.#kept.length - keep || failed.atMs < oldest);
    this.#kept = this.#kept.filter((failed) => !gone.includes(failed));
    for (const { snapshot } of gone)
      await this.#snapshots.remove(snapshot).catch((error: unknown) => {
        if (!isCode(error, 'SNAPSHOT_NOT_FOUND')) throw error;
      });
  }
}
