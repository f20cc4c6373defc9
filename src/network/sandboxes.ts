import { assert } from '#base/errors.ts';
import type { Random } from '#base/random.ts';
import { formatIp, type Ip } from '#kernel/netlink/ip.ts';
import { AddressBook } from '#network/address-book.ts';
import type { EdgeEntry } from '#network/edge.ts';
import { EndpointNotFound } from '#network/errors.ts';
import { publishEndpoint, publishTarget, withGateways } from '#network/gateways.ts';
import { macFor } from '#network/ipam.ts';
import type { DnsSettings, Endpoint, Network, PublishedPort, Sandbox } from '#network/model.ts';
import { hostLinkName } from '#network/plan.ts';
import { holdsFor, type PortWish, resolvePorts } from '#network/ports.ts';

export interface EndpointRequest {
  /** Name, id or unique beginning of an id. */
  network: string;
  names: readonly string[];
  ipv4?: string;
  ipv6?: string;
  mac?: string;
  links?: Readonly<Record<string, string>>;
  linkLocal?: readonly string[];
  /** Of a sandbox's endpoints the highest has the default route (`withGateways`). Absent is 0. */
  gwPriority?: number;
}

export interface AttachRequest {
  id: string;
  name: string;
  endpoints: readonly EndpointRequest[];
  ports: readonly PortWish[];
  dns: DnsSettings;
  /** Of ids (/proc/PID/uid_map): its namespace belongs to a user namespace of its own. Absent: to the host's. */
  idMap?: string;
}

export interface SandboxesOptions {
  /** By id. */
  networks: ReadonlyMap<string, Network>;
  /** By name, id or unique beginning of an id. Throws NetworkNotFound. */
  find(ref: string): Network;
  daemon: string;
  random: Random;
  /** The host has IPv6: ports without an address are published there as well. */
  ipv6: boolean;
}

/** What sandboxes have: addresses, ports, names. All is decided here without waiting, so that two requests never get the same. */
export class Sandboxes {
  readonly #o: SandboxesOptions;
  readonly #all = new Map<string, Sandbox>();
  readonly #book = new AddressBook();
  #anyPort = 0;

  constructor(options: SandboxesOptions) {
    this.#o = options;
  }

  all(): Sandbox[] {
    return [...this.#all.values()];
  }

  get(id: string): Sandbox | undefined {
    return this.#all.get(id);
  }

  /** Throws EndpointNotFound. */
  known(id: string): Sandbox {
    const sandbox = this.#all.get(id);
    if (!sandbox) throw new EndpointNotFound({ container: id, network: 'any' });
    return sandbox;
  }

  /** In the place of what it was; addresses are reserved and released by themselves. */
  set(sandbox: Sandbox): void {
    this.#all.set(sandbox.id, sandbox);
  }

  /** As its record has it. */
  restore(sandbox: Sandbox): void {
    this.set(sandbox);
    for (const endpoint of sandbox.endpoints) this.#book.restore(endpoint);
  }

  /** Its addresses and ports belong to it from here on. Throws AddressTaken, PortTaken, NetworkNotFound, with nothing reserved. */
  reserve(request: AttachRequest, { netns, userns }: Pick<Sandbox, 'netns' | 'userns'>): Sandbox {
    assert(!this.#all.has(request.id), `sandbox ${request.id} is attached twice`);
    const plugged: Endpoint[] = [];
    try {
      for (const [n, wish] of request.endpoints.entries()) plugged.push(this.newEndpoint(request.id, wish, n));
      const endpoints = withGateways(plugged, this.#o.networks);
      const main = publishEndpoint({ endpoints }, 4);
      const first = main && this.#o.networks.get(main.network);
      const ports = first
        ? resolvePorts(request.ports, this.#heldPorts(), {
            hostBinding: first.hostBinding,
            ipv6: this.#o.ipv6,
            anyAfter: this.#anyPort,
          })
        : [];
      for (const port of ports) this.#anyPort = port.hostPort;
      const { id, name, dns } = request;
      const sandbox: Sandbox = { id, name, netns, ...(userns ? { userns } : {}), endpoints, ports, dns };
      this.#all.set(request.id, sandbox);
      return sandbox;
    } catch (error) {
      for (const endpoint of plugged) this.#book.release(endpoint);
      throw error;
    }
  }

  /** A place in one network, its addresses reserved, without a default route yet. `n`: the number of its interface. */
  newEndpoint(sandbox: string, wish: EndpointRequest, n: number): Endpoint {
    const network = this.#o.find(wish.network);
    const addresses = this.#book.reserve(network, sandbox, wish);
    const any: Ip | undefined = addresses.ipv4 ?? addresses.ipv6;
    return {
      network: network.id,
      sandbox,
      link: `eth${n}`,
      hostLink: hostLinkName(this.#o.daemon, this.#o.random),
      mac:
        wish.mac ??
        (any
          ? macFor(any)
          : `02:42:${Buffer.from(this.#o.random.bytes(4))
              .toString('hex')
              .replace(/(..)(?=.)/g, '$1:')}`),
      ipv4: addresses.ipv4 && formatIp(addresses.ipv4),
      ipv6: addresses.ipv6 && formatIp(addresses.ipv6),
      asked: {
        ...(wish.ipv4 === undefined ? {} : { ipv4: wish.ipv4 }),
        ...(wish.ipv6 === undefined ? {} : { ipv6: wish.ipv6 }),
        ...(wish.mac === undefined ? {} : { mac: wish.mac }),
      },
      names: wish.names,
      ...(wish.links ? { links: wish.links } : {}),
      ...(wish.linkLocal ? { linkLocal: wish.linkLocal } : {}),
      ...(wish.gwPriority ? { gwPriority: wish.gwPriority } : {}),
      defaultRoutes: [],
    };
  }

  /** As it stands now: it may have joined or left networks since. */
  release(sandbox: Sandbox): void {
    for (const endpoint of this.#all.get(sandbox.id)?.endpoints ?? sandbox.endpoints) this.#book.release(endpoint);
    this.#all.delete(sandbox.id);
  }

  /** Nobody finds it any more, and its ports are free; its addresses are when what is answered is called. */
  leave(sandbox: Sandbox): () => void {
    const { endpoints } = this.#all.get(sandbox.id) ?? sandbox;
    this.#all.delete(sandbox.id);
    return () => {
      for (const endpoint of endpoints) this.#book.release(endpoint);
    };
  }

  releaseEndpoint(endpoint: Endpoint): void {
    this.#book.release(endpoint);
  }

  /** How many ports of other sandboxes share the gate's key with this one. */
  sharersOf(port: PublishedPort, sandbox: Sandbox): number {
    return [...this.#all.values()]
      .filter((box) => box.id !== sandbox.id)
      .flatMap((box) => box.ports)
      .filter((other) => other.protocol === port.protocol && other.hostPort === port.hostPort).length;
  }

  /** What the edge serves for it: names and held ports. */
  edgeEntry(sandbox: Sandbox): EdgeEntry {
    const places = sandbox.endpoints.flatMap((endpoint) => {
      const network = this.#o.networks.get(endpoint.network);
      const addresses = [endpoint.ipv4, endpoint.ipv6].filter((ip) => ip !== undefined);
      if (!network?.names) return [];
      const { names, links } = endpoint;
      return [{ network: network.id, domain: network.name, names, addresses, ...(links ? { links } : {}) }];
    });
    return {
      id: sandbox.id,
      ...(places.length > 0 ? { netns: sandbox.netns } : {}),
      upstreams: sandbox.dns.servers,
      forward: sandbox.endpoints.some((e) => this.#o.networks.get(e.network)?.internal === false),
      places,
      holds: holdsFor(sandbox.ports, publishTarget(sandbox)),
    };
  }

  #heldPorts(): { port: PublishedPort; holder: string }[] {
    return [...this.#all.values()].flatMap((box) =>
      box.ports.map((port) => ({ port, holder: `container ${box.name}` })),
    );
  }
}
