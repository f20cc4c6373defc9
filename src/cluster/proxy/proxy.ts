import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import { ENDPOINT_SLICES, keyIn, keyOf, type Live, type ObjectKey, SERVICES } from '#cluster/client/resources.ts';
import type { ClusterView, Collection } from '#cluster/client/view.ts';
import { forgetDatagrams } from '#cluster/proxy/datagrams.ts';
import { type Compiled, compileService, type DatagramFront, datagramFronts } from '#cluster/proxy/elements.ts';
import { Changes, Mirror } from '#cluster/proxy/mirror.ts';
import { planService, type ServicePlan } from '#cluster/proxy/plan.ts';
import { createPick, createTable, pickChain, removeTable, type TableSettings, tableOf } from '#cluster/proxy/table.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { type Message, NETLINK_NETFILTER } from '#kernel/netlink/wire.ts';
import { batch } from '#kernel/nft/message.ts';
import { SERVICE_NAME_LABEL } from '#spec/kubernetes/endpoints.ts';
import type { EndpointSlice, Service } from '#spec/kubernetes/types.gen.ts';

export interface ProxyOptions {
  view: ClusterView;
  kernel: NetKernel;
  clock: Clock;
  log: Logger;
  events: EventRecorder;
  nodeName: string;
  /** There is no pool of addresses for load balancers: see `PlanFor`. */
  hostPublishes?: boolean;
  table: TableSettings;
  /** Namespace whose packets are led; absent: the host's. */
  netns?: string;
  /** More of the table, made anew with it (network policies). */
  others?: readonly TablePart[];
}

/** Another writer of the table, told when the table was made anew and its part is gone. */
export interface TablePart {
  rebuild(): Message[];
}
/** A kernel that refuses is asked again, with all of the table, a while later. */
const RETRY_MS = 1_000;

/**
 * Keeps the kernel's maps as Services and endpoints wish.
 *
 *     change ─▶ dirty keys ─▶ plan ─▶ elements ─▶ mirror says what differs ─▶ one transaction ─▶ drains resolve
 *
 * The table stays when this process ends, so that Services are served through a restart; the next start replaces it whole.
 */
export class Proxy {
  readonly #o: ProxyOptions;
  readonly #services: Collection<Service>;
  readonly #slices: Collection<EndpointSlice>;
  readonly #dirty = new Set<ObjectKey>();
  readonly #pools = new Map<ObjectKey, Compiled['pools']>();
  /** Where each Service leads to in the kernel, now. */
  readonly #applied = new Map<ObjectKey, ServicePlan>();
  readonly #drains = new Set<Drain>();
  #mirror = new Mirror();
  #chains = new Set<string>();
  #whole = true;
  readonly #serial = new Serial('services');
  #queued = false;
  #started = false;
  #stopped = false;
  #cancelRetry: (() => void) | undefined;

  constructor(options: ProxyOptions) {
    this.#o = options;
    this.#services = options.view.of(SERVICES);
    this.#slices = options.view.of(ENDPOINT_SLICES);
    this.#slices.informer.addIndex('service', (slice) => [serviceOf(slice)]);
    this.#services.informer.onChange((now, before) => this.#touch(keyOf((now ?? before) as Live<Service>)));
    this.#slices.informer.onChange((now, before) => {
      for (const slice of [now, before]) if (slice) this.#touch(serviceOf(slice));
    });
  }

  /** After the view's first lists. Resolves when the kernel serves what they say. */
  async start(): Promise<void> {
    this.#started = true;
    for (const service of this.#services.list()) this.#dirty.add(keyOf(service));
    await this.sync();
  }

  /** The table stays. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelRetry?.();
    await this.#serial.run(() => undefined);
  }

  /** Takes the table away: for uninstalling, and for tests. */
  async remove(): Promise<void> {
    await this.stop();
    await this.#send('remove the table of Services', removeTable(this.#o.table.daemon));
  }

  /** Resolves when all that is known by now is in the kernel, or a try to put it there has failed. */
  async sync(): Promise<void> {
    this.#kick();
    await this.#serial.run(() => undefined);
  }

  /**
   * Resolves when no new connection is led to this address any more: true when the kernel has confirmed it, false when
   * `boundMs` passed first. Targets that serve only because all others are gone too are not waited for.
   */
  async drained(ip: string, boundMs: number): Promise<boolean> {
    await Promise.resolve(); // what this very turn brought is noted as dirty first
    if (this.#serial.waiting === 0 && !this.#leadsTo(ip)) return true;
    return new Promise((resolve) => {
      const cancel = this.#o.clock.after(boundMs, () => {
        this.#drains.delete(drain);
        resolve(false);
      });
      const drain: Drain = {
        ip,
        done: () => {
          cancel();
          resolve(true);
        },
      };
      this.#drains.add(drain);
    });
  }

  /** Elements in the kernel, for metrics. */
  get elements(): number {
    return this.#mirror.size;
  }

  #touch(key: ObjectKey): void {
    this.#dirty.add(key);
    if (this.#started) this.#kick();
  }

  // The queue starts in a microtask: a burst of changes is one transaction.
  #kick(): void {
    if (this.#queued || this.#stopped || this.#cancelRetry) return;
    this.#queued = true;
    const run = this.#serial.run(() => {
      this.#queued = false;
      return this.#apply();
    });
    run.catch((error: unknown) => this.#o.log.error('services', { error: describeChain(error) }));
  }

  async #apply(): Promise<void> {
    const { log, clock } = this.#o;
    const startedMs = clock.monotonic();
    try {
      const messages = this.#whole ? this.#rebuild() : this.#change();
      if (messages.length > 0) await this.#send('lead Services to their endpoints', messages);
      this.#whole = false;
      this.#settleDrains();
      log.debug('services', () => ({ messages: messages.length, ms: Math.round(clock.monotonic() - startedMs) }));
      await this.#forgetDatagrams();
    } catch (error) {
      // What the kernel holds now is not known for certain: all of it is made anew.
      this.#whole = true;
      if (this.#stopped) return;
      log.error('services are not in the kernel', { error: describeChain(error) });
      this.#cancelRetry = clock.after(RETRY_MS, () => {
        this.#cancelRetry = undefined;
        this.#kick();
      });
    }
  }

  #rebuild(): Message[] {
    this.#mirror = new Mirror();
    this.#chains = new Set();
    this.#applied.clear();
    for (const service of this.#services.list()) this.#dirty.add(keyOf(service));
    const parts = (this.#o.others ?? []).flatMap((part) => part.rebuild());
    return [...createTable(this.#o.table), ...parts, ...this.#change()];
  }

  /** Notes what the dirty Services wish, and says what is to be sent for it. */
  #change(): Message[] {
    const { daemon } = this.#o.table;
    const changes = new Changes();
    const chains: Message[] = [];
    const keys = [...this.#dirty];
    this.#dirty.clear();
    for (let key = keys.shift(); key !== undefined; key = keys.shift()) {
      const service = this.#services.get(key);
      const plan = service
        ? planService(service, this.#slices.informer.by('service', key), {
            nodeName: this.#o.nodeName,
            hostPublishes: this.#o.hostPublishes ?? false,
          })
        : { key, pools: [], frontends: [] };
      const compiled = compileService(plan, this.#pools.get(key) ?? new Map());
      for (const pick of compiled.picks) {
        if (this.#chains.has(pickChain(pick))) continue;
        this.#chains.add(pickChain(pick));
        chains.push(...createPick(daemon, pick));
      }
      const waiting = this.#mirror.waitingFor(key);
      const inTheWay = this.#mirror.wish(key, compiled.elements, changes);
      if (service && inTheWay.size > 0) this.#complain(service, inTheWay);
      keys.push(...waiting.filter((other) => !keys.includes(other)));
      if (plan.frontends.length > 0) {
        this.#pools.set(key, compiled.pools);
        this.#noteDatagrams(key, plan);
        this.#applied.set(key, plan);
      } else {
        this.#pools.delete(key);
        this.#applied.delete(key);
      }
    }
    return [...chains, ...changes.messages(tableOf(daemon))];
  }

  #complain(service: Live<Service>, holders: ReadonlySet<string>): void {
    this.#o.events.record(SERVICES, service, {
      type: 'Warning',
      reason: 'AddressTaken',
      message: `an address or port of this Service is served by ${[...holders].join(', ')} already`,
    });
  }

  #leadsTo(ip: string): boolean {
    for (const plan of this.#applied.values())
      for (const pool of plan.pools) if (!pool.leaving && pool.targets.some((target) => target.ip === ip)) return true;
    return false;
  }

  #settleDrains(): void {
    for (const drain of this.#drains) {
      if (this.#leadsTo(drain.ip)) continue;
      this.#drains.delete(drain);
      drain.done();
    }
  }

  // -- UDP: a flow that goes on never meets the NAT chains again, so it would follow an endpoint that is gone for ever ---------

  #datagramFronts: DatagramFront[] = [];

  #noteDatagrams(key: ObjectKey, plan: ServicePlan): void {
    const before = this.#applied.get(key);
    if (before && JSON.stringify(before.pools) === JSON.stringify(plan.pools)) return;
    this.#datagramFronts.push(...datagramFronts(plan));
  }

  async #forgetDatagrams(): Promise<void> {
    const fronts = this.#datagramFronts.splice(0);
    if (fronts.length > 0) await forgetDatagrams(this.#o.kernel, fronts, this.#o.netns);
  }

  async #send(what: string, messages: readonly Message[]): Promise<void> {
    const { kernel, netns } = this.#o;
    await kernel.netlink({
      what,
      protocol: NETLINK_NETFILTER,
      messages: batch(messages),
      ...(netns === undefined ? {} : { netns }),
    });
  }
}

interface Drain {
  ip: string;
  done: () => void;
}

function serviceOf(slice: EndpointSlice): ObjectKey {
  return keyIn(slice.metadata.namespace, slice.metadata.labels?.[SERVICE_NAME_LABEL] ?? '');
}
