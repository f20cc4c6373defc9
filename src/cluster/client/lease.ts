import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Lease } from '#spec/kubernetes/types.gen.ts';
import type { KubeClient } from './client.ts';
import { LEASES, type Live, microTimestamp, type ObjectKey, splitKey } from './resources.ts';

export interface ElectionOptions {
  client: KubeClient;
  clock: Clock;
  log: Logger;
  /** `kube-system/estiba-controllers` */
  lease: ObjectKey;
  identity: string;
  /** Runs while we lead. Called again each time we win. */
  onLead: () => void;
  /** We lead no more: stop writing before this returns. */
  onLose: () => void;
  leaseMs?: number;
  renewMs?: number;
}

const LEASE_MS = 15_000;
const RENEW_MS = 5_000;

/**
 * One of several holds a Lease object and acts; the others wait. The holder steps down by its own clock when it could not renew
 * in time, before anybody else may take over: a candidate counts the full lease time from when *it* saw the last renewal, so
 * clocks need not agree.
 */
export class LeaderElection {
  readonly #options: ElectionOptions;
  #leading = false;
  #stopped = false;
  #renewedAtMs = 0;
  #seen: { renewTime: string; atMs: number } | undefined;
  #cancel: () => void = () => undefined;
  #round: Promise<void> = Promise.resolve();

  constructor(options: ElectionOptions) {
    this.#options = options;
  }

  get leading(): boolean {
    return this.#leading;
  }

  start(): void {
    this.#round = this.#tick();
  }

  /** Steps down and gives the lease back, so that the next one need not wait. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#round;
    if (!this.#leading) return;
    this.#step(false);
    const { client, lease, identity } = this.#options;
    const held = await client.find(LEASES, lease);
    if (held?.spec?.holderIdentity !== identity) return;
    await client.update(LEASES, { ...held, spec: { ...held.spec, holderIdentity: '', leaseDurationSeconds: 1 } });
  }

  async #tick(): Promise<void> {
    const { clock, log, renewMs = RENEW_MS, leaseMs = LEASE_MS } = this.#options;
    const startedMs = clock.monotonic();
    try {
      const won = await this.#tryAcquire();
      if (won) this.#renewedAtMs = startedMs;
      else this.#step(false);
      if (won && !this.#stopped) this.#step(true);
    } catch (error) {
      log.debug('lease', () => ({ of: this.#options.lease, error: describeChain(error) }));
      const lateMs = clock.monotonic() - this.#renewedAtMs;
      if (this.#leading && lateMs + renewMs >= leaseMs) this.#step(false);
    }
    if (this.#stopped) return;
    this.#cancel = clock.after(renewMs, () => {
      this.#round = this.#tick();
    });
  }

  async #tryAcquire(): Promise<boolean> {
    const { client, clock, identity, leaseMs = LEASE_MS } = this.#options;
    const { namespace, name } = splitKey(this.#options.lease);
    const held = await client.find(LEASES, this.#options.lease);
    const nowTime = microTimestamp(clock.now());
    const spec = { holderIdentity: identity, leaseDurationSeconds: Math.ceil(leaseMs / 1000), renewTime: nowTime };
    try {
      if (!held) {
        const lease: Lease = {
          metadata: { namespace, name },
          spec: { ...spec, acquireTime: nowTime, leaseTransitions: 0 },
        };
        await client.create(LEASES, lease);
        return true;
      }
      if (!this.#mayTake(held)) return false;
      const took = held.spec?.holderIdentity !== identity;
      await client.update(LEASES, {
        ...held,
        spec: {
          ...held.spec,
          ...spec,
          ...(took ? { acquireTime: nowTime, leaseTransitions: (held.spec?.leaseTransitions ?? 0) + 1 } : {}),
        },
      });
      return true;
    } catch (error) {
      if (isCode(error, 'KUBE_CONFLICT', 'KUBE_ALREADY_EXISTS')) return false;
      throw error;
    }
  }

  #mayTake(held: Live<Lease>): boolean {
    const { clock, identity } = this.#options;
    const { holderIdentity = '', renewTime = '', leaseDurationSeconds = 0 } = held.spec ?? {};
    if (holderIdentity === identity || holderIdentity === '') return true;
    if (this.#seen?.renewTime !== renewTime) this.#seen = { renewTime, atMs: clock.monotonic() };
    return clock.monotonic() - this.#seen.atMs >= leaseDurationSeconds * 1000;
  }

  #step(lead: boolean): void {
    if (lead === this.#leading) return;
    this.#leading = lead;
    if (lead) this.#options.onLead();
    else this.#options.onLose();
  }
}
