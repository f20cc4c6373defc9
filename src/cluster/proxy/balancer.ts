import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import { DONE, type Requeue, WorkQueue } from '#cluster/client/queue.ts';
import { type Live, SERVICES } from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import type { HeldAddresses } from '#cluster/proxy/held-addresses.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import {
  bitsOf,
  type Cidr,
  contains,
  formatIp,
  lastOf,
  networkOf,
  parseIp,
  plus,
  tryParseIp,
} from '#kernel/netlink/ip.ts';
import { addAddress, deleteAddress, dumpAddresses, parseAddresses } from '#kernel/netlink/route.ts';
import { NETLINK_ROUTE } from '#kernel/netlink/wire.ts';
import type { Service } from '#spec/kubernetes/types.gen.ts';

const LOOPBACK_INDEX = 1;
/** Nobody tells when a port of the host, or its first address, comes free. */
const ASK_AGAIN_MS = 1_000;
const ENOERR = { EEXIST: 17, EADDRNOTAVAIL: 99 } as const;

export interface BalancerOptions {
  view: ClusterView;
  kernel: NetKernel;
  clock: Clock;
  log: Logger;
  events: EventRecorder;
  /** Addresses to give; undefined: Services are published at their own ports of the host. */
  pool: Cidr | undefined;
  /** Where clients reach this node, the first of them shown as the Service's address when there is no pool. */
  nodeAddresses: () => readonly string[];
  /** Whether a program of the host listens there. */
  portInUse: (protocol: string, port: number) => Promise<boolean>;
  /** Which addresses of `lo` were given by a balancer of this node, this one or an earlier. */
  held: Pick<HeldAddresses, 'read' | 'write'>;
  netns?: string;
}

export interface Assignment {
  service: Live<Service>;
  /** Undefined: it has none and should have none, or there is none for it. */
  address: string | undefined;
  /** Why it gets none though it asks. */
  refused?: string;
}

/**
 * Which Service of type LoadBalancer gets which address of the pool. Pure; who has one keeps it, who asks for a certain one gets it if
 * it is free, the others get the lowest that is.
 */
export function assign(services: readonly Live<Service>[], pool: Cidr): Assignment[] {
  const asking = services.filter(isAsking);
  const taken = new Map<string, Live<Service>>();
  for (const service of asking) {
    const has = addressOf(service);
    if (has !== undefined && inPool(pool, has) && !taken.has(has) && fitsWish(service, has)) taken.set(has, service);
  }
  return services.map((service): Assignment => {
    if (!isAsking(service)) return { service, address: undefined };
    const has = addressOf(service);
    if (has !== undefined && taken.get(has) === service) return { service, address: has };
    const wish = service.spec?.loadBalancerIP;
    if (wish && (!inPool(pool, wish) || taken.has(wish)))
      return { service, address: undefined, refused: `address ${wish} is taken, or not of the pool` };
    const address = wish || lowestFree(pool, taken);
    if (address === undefined) return { service, address, refused: 'every address of the pool is taken' };
    taken.set(address, service);
    return { service, address };
  });
}

/**
 * Without a pool: which Service is published at its own ports of the host. Pure. One Service a port, and none that `inUse`
 * (`tcp 22`) has; who is published stays so.
 */
export function assignHost(
  services: readonly Live<Service>[],
  host: string | undefined,
  inUse: ReadonlySet<string>,
): Assignment[] {
  const taken = new Map<string, string>();
  const isPublished = (service: Live<Service>): boolean => addressOf(service) === host && host !== undefined;
  for (const service of services.filter(isAsking))
    if (isPublished(service)) for (const port of portsOf(service)) taken.set(port, nameOf(service));
  return services.map((service): Assignment => {
    if (!isAsking(service)) return { service, address: undefined };
    const refuse = (refused: string): Assignment => ({ service, address: undefined, refused });
    if (host === undefined) return refuse('this node has no address yet');
    if (service.spec?.loadBalancerIP || service.spec?.loadBalancerSourceRanges?.length)
      return refuse('an address or source ranges of its own need a pool: start the daemon with --lb-pool');
    if (isPublished(service)) return { service, address: host };
    const ports = portsOf(service);
    const holder = ports.find((port) => taken.has(port));
    if (holder !== undefined) return refuse(`port ${holder} of the host serves ${taken.get(holder)}`);
    const busy = ports.find((port) => inUse.has(port));
    if (busy !== undefined) return refuse(`a program of the host listens on port ${busy}`);
    for (const port of ports) taken.set(port, nameOf(service));
    return { service, address: host };
  });
}

/** Keeps status and the host's addresses as assigned: `lo` has them, so that the host answers for them on every link. */
export class Balancer {
  readonly #o: BalancerOptions;
  readonly #queue: WorkQueue;
  #present: Set<string> | undefined;

  constructor(options: BalancerOptions) {
    this.#o = options;
    this.#queue = new WorkQueue({
      name: 'load balancer',
      clock: options.clock,
      work: () => this.#reconcile(),
      onError: (_, error) => options.log.warn('load balancer addresses', { error: describeChain(error) }),
      concurrency: 1,
    });
    options.view.of(SERVICES).informer.onChange((now, before) => {
      if ([now, before].some((s) => s && (isAsking(s) || addressOf(s) !== undefined))) this.#queue.add('all');
    });
  }

  start(): void {
    this.#queue.add('all');
    this.#queue.start();
  }

  async stop(): Promise<void> {
    await this.#queue.stop();
  }

  /** Takes the addresses off the host. */
  async remove(): Promise<void> {
    await this.stop();
    await this.#hold(new Set());
  }

  async #reconcile(): Promise<Requeue> {
    const { view, pool, events } = this.#o;
    const services = view.of(SERVICES);
    const assignments = pool ? assign(services.list(), pool) : await this.#assignHost(services.list());
    await this.#hold(new Set(pool ? assignments.flatMap(({ address }) => address ?? []) : []));
    for (const { service, address, refused } of assignments) {
      if (refused !== undefined)
        events.record(SERVICES, service, { type: 'Warning', reason: 'NoAddress', message: refused });
      const has = addressOf(service);
      // An address that somebody else's balancer gave is not ours to take.
      const foreign = has !== undefined && !(pool ? inPool(pool, has) : this.#o.nodeAddresses().includes(has));
      if (has === address || (address === undefined && (foreign || service.spec?.loadBalancerClass))) continue;
      const status = { ...service.status, loadBalancer: address === undefined ? {} : { ingress: [{ ip: address }] } };
      await services.updateStatus({ ...service, status });
    }
    return refusedSome(assignments) ? { afterMs: ASK_AGAIN_MS } : DONE;
  }

  async #assignHost(services: readonly Live<Service>[]): Promise<Assignment[]> {
    const host = this.#o.nodeAddresses()[0];
    const asked = new Set(services.filter((s) => isAsking(s) && addressOf(s) !== host).flatMap(portsOf));
    const inUse = new Set<string>();
    for (const port of asked) {
      const [protocol = '', number] = port.split(' ');
      if (await this.#o.portInUse(protocol, Number(number))) inUse.add(port);
    }
    return assignHost(services, host, inUse);
  }

  async #hold(wanted: ReadonlySet<string>): Promise<void> {
    const { held } = this.#o;
    const present = this.#present ?? (await this.#read(held.read()));
    if (present.size === wanted.size && [...wanted].every((address) => present.has(address))) {
      this.#present = present;
      return;
    }
    held.write(new Set([...present, ...wanted]));
    for (const address of present)
      if (!wanted.has(address))
        await this.#change(`take ${address} off lo`, deleteAddress, address, ENOERR.EADDRNOTAVAIL);
    for (const address of wanted)
      if (!present.has(address)) await this.#change(`give ${address} to lo`, addAddress, address, ENOERR.EEXIST);
    held.write(wanted);
    this.#present = new Set(wanted);
  }

  /** Of the pool, or given by an earlier balancer, whose pool may have been another one. */
  async #read(held: readonly string[]): Promise<Set<string>> {
    const { pool } = this.#o;
    if (!pool && held.length === 0) return new Set();
    const answer = await this.#o.kernel.netlink({
      what: 'read addresses',
      protocol: NETLINK_ROUTE,
      messages: [dumpAddresses()],
      ...(this.#o.netns === undefined ? {} : { netns: this.#o.netns }),
    });
    return new Set(
      parseAddresses(answer)
        .filter(
          ({ index, cidr: { ip } }) =>
            index === LOOPBACK_INDEX && ((pool && contains(pool, ip)) || held.includes(formatIp(ip))),
        )
        .map(({ cidr }) => formatIp(cidr.ip)),
    );
  }

  async #change(what: string, make: typeof addAddress, address: string, fine: number): Promise<void> {
    const ip = parseIp(address);
    try {
      await this.#o.kernel.netlink({
        what,
        protocol: NETLINK_ROUTE,
        messages: [make({ index: LOOPBACK_INDEX, cidr: { ip, prefix: bitsOf(ip.family) } })],
        ...(this.#o.netns === undefined ? {} : { netns: this.#o.netns }),
      });
    } catch (error) {
      if (!isCode(error, 'NETLINK_REFUSED') || error.data['errno'] !== fine) throw error;
    }
  }
}

/** `tcp 8081` */
function portsOf({ spec }: Service): string[] {
  return (spec?.ports ?? []).map(({ protocol, port }) => `${(protocol ?? 'TCP').toLowerCase()} ${port}`);
}

function nameOf({ metadata }: Live<Service>): string {
  return `Service ${metadata.namespace}/${metadata.name}`;
}

function refusedSome(assignments: readonly Assignment[]): boolean {
  return assignments.some(({ refused }) => refused !== undefined);
}

function isAsking({ spec, metadata }: Live<Service>): boolean {
  return spec?.type === 'LoadBalancer' && !spec.loadBalancerClass && metadata.deletionTimestamp === undefined;
}

function addressOf({ status }: Service): string | undefined {
  return status?.loadBalancer?.ingress?.[0]?.ip;
}

function fitsWish({ spec }: Service, address: string): boolean {
  return !spec?.loadBalancerIP || spec.loadBalancerIP === address;
}

function inPool(pool: Cidr, address: string): boolean {
  const ip = tryParseIp(address);
  return ip !== undefined && ip.family === pool.ip.family && contains(pool, ip);
}

/** The first and last address of a range are its network's own. */
function lowestFree(pool: Cidr, taken: ReadonlyMap<string, unknown>): string | undefined {
  const small = bitsOf(pool.ip.family) - pool.prefix < 2;
  const last = lastOf(pool).value - (small ? 0n : 1n);
  for (let ip = plus(networkOf(pool).ip, small ? 0n : 1n); ip.value <= last; ip = plus(ip, 1n))
    if (!taken.has(formatIp(ip))) return formatIp(ip);
  return undefined;
}
