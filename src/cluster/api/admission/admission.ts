import type { KubeObject } from '#cluster/store/objects.ts';
import type { Context } from '../registry/context.ts';
import type { Resource } from '../resources/table.ts';

/** A write on its way. `mutate` plugins may change `object`; `old` is undefined for a create. */
export interface AdmissionRequest {
  resource: Resource;
  object: KubeObject;
  old: KubeObject | undefined;
  context: Context;
}

/** What a validating plugin holds until the write is in the cache, so that two writes cannot both take the last of something. */
export interface Reservation {
  /** The write was stored with this revision. */
  settled(revision: number): Promise<void>;
  /** The write has ended, one way or the other. */
  done(): void;
}

export interface MutatingPlugin {
  name: string;
  mutate(request: AdmissionRequest): void | Promise<void>;
}

/** A delete on its way: nothing to change, but it may be refused. */
export interface DeleteRequest {
  resource: Resource;
  object: KubeObject;
  context: Context;
}

export interface DeletePlugin {
  name: string;
  checkDelete(request: DeleteRequest): void;
}

export interface ValidatingPlugin {
  name: string;
  validate(request: AdmissionRequest): void | Reservation | Promise<void | Reservation>;
}

/** Plugins in order; the first that throws a StatusError refuses the write. */
export class Admission {
  readonly #mutating: readonly MutatingPlugin[];
  readonly #validating: readonly ValidatingPlugin[];
  readonly #deleting: readonly DeletePlugin[];

  constructor(plugins: {
    mutating: readonly MutatingPlugin[];
    validating: readonly ValidatingPlugin[];
    deleting: readonly DeletePlugin[];
  }) {
    this.#mutating = plugins.mutating;
    this.#validating = plugins.validating;
    this.#deleting = plugins.deleting;
  }

  checkDelete(request: DeleteRequest): void {
    for (const plugin of this.#deleting) plugin.checkDelete(request);
  }

  async mutate(request: AdmissionRequest): Promise<void> {
    for (const plugin of this.#mutating) await plugin.mutate(request);
  }

  async validate(request: AdmissionRequest): Promise<Reservation> {
    const held: Reservation[] = [];
    const all: Reservation = {
      settled: async (revision) => {
        for (const reservation of held) await reservation.settled(revision);
      },
      done: () => {
        for (const reservation of held) reservation.done();
      },
    };
    try {
      for (const plugin of this.#validating) {
        const reservation = await plugin.validate(request);
        if (reservation) held.push(reservation);
      }
      return all;
    } catch (error) {
      all.done();
      throw error;
    }
  }
}
