import type { Containers } from '#engine/core/containers.ts';
import { WrongPhase } from '#engine/core/errors.ts';
import type { Events } from '#engine/core/events.ts';
import { endpointIdOf, endpointRecord, type NodeNetworkSource, requestOf } from '#engine/core/network-source.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { EndpointSpec } from '#engine/core/spec.ts';
import { formatCidr, formatIp } from '#kernel/netlink/ip.ts';
import type { CreateRequest } from '#network/create.ts';
import { EndpointExists, EndpointNotFound } from '#network/errors.ts';
import type { Network, Subnet } from '#network/model.ts';
import type { Networks } from '#network/networks.ts';

export { type CreateRequest, formatCidr, formatIp, type Network, type Subnet };

/** A container as a network shows it. */
export interface Member {
  id: string;
  name: string;
  endpointId: string;
  mac: string;
  /** With the prefix: `172.17.0.2/16`; '' for a family the network does not have. */
  ipv4: string;
  ipv6: string;
}

/** The node's networks for every front end, with the containers that stand in them, running or not. */
export class NodeNetworks {
  readonly #networks: Networks;
  readonly #source: NodeNetworkSource;
  readonly #containers: Containers;
  readonly #events: Events;

  constructor(o: { networks: Networks; source: NodeNetworkSource; containers: Containers; events: Events }) {
    this.#networks = o.networks;
    this.#source = o.source;
    this.#containers = o.containers;
    this.#events = o.events;
  }

  list(): Network[] {
    return this.#networks.list();
  }

  find(wish: string): Network {
    return this.#networks.find(wish);
  }

  members(network: Network): Member[] {
    const prefix = (family: 4 | 6): number =>
      network.subnets.find((s) => s.subnet.ip.family === family)?.subnet.prefix ?? 0;
    return this.#networks.sandboxesOn(network.id).flatMap((box) => {
      const endpoint = box.endpoints.find((e) => e.network === network.id);
      if (!endpoint) return [];
      return {
        id: box.id,
        name: box.name,
        endpointId: endpointIdOf(endpoint),
        mac: endpoint.mac,
        ipv4: endpoint.ipv4 ? `${endpoint.ipv4}/${prefix(4)}` : '',
        ipv6: endpoint.ipv6 ? `${endpoint.ipv6}/${prefix(6)}` : '',
      };
    });
  }

  async create(request: CreateRequest): Promise<Network> {
    const network = await this.#networks.create(request);
    this.#tell(network, 'create');
    return network;
  }

  /** Containers that do not run do not hold it: their next start says that it is gone. */
  async remove(wish: string): Promise<void> {
    this.#tell(await this.#networks.remove(wish), 'destroy');
  }

  /** Networks that no container has, running or not; answers names. */
  async prune(wanted: (network: Network) => boolean): Promise<string[]> {
    const gone: string[] = [];
    for (const network of this.list()) {
      if (network.predefined || !wanted(network) || this.#usersOf(network).length > 0) continue;
      await this.remove(network.id);
      gone.push(network.name);
    }
    this.#events.publish({ type: 'network', action: 'prune', id: '', attributes: { reclaimed: '0' } });
    return gone;
  }

  /** At once when it runs, from its next start when it does not. */
  async connect(wish: string, container: string, endpoint: Omit<EndpointSpec, 'network'>): Promise<void> {
    const network = this.find(wish);
    await this.#containers.change(container, async (record) => {
      checkConnectable(record, network);
      const spec: EndpointSpec = { ...endpoint, network: network.name };
      const after = withEndpoints(record, [...endpointsOf(record), spec]);
      const got = isRunning(record.state)
        ? await this.#networks.connect(record.id, requestOf(record.id, after, spec))
        : undefined;
      const changed = {
        ...after,
        endpoints: { ...record.endpoints, [network.name]: endpointRecord(spec, network, got) },
      };
      if (got) await this.#refresh(changed);
      this.#tell(network, 'connect', { container: record.id });
      return changed;
    });
  }

  /** `force`: also where the container is gone, and only its place in the network is left. */
  async disconnect(wish: string, container: string, how: { force: boolean }): Promise<void> {
    const network = this.find(wish);
    if (how.force && !this.#containers.list().some((r) => r.id.startsWith(container) || r.name === container)) {
      const left = this.members(network).find((m) => m.id.startsWith(container) || m.name === container);
      if (left) return this.#networks.disconnect(left.id, network.id);
    }
    await this.#containers.change(container, async (record) => {
      const { [network.name]: endpoint, ...rest } = record.endpoints;
      if (!endpoint) throw new EndpointNotFound({ container: record.name, network: network.name });
      const running = isRunning(record.state);
      if (running) await this.#networks.disconnect(record.id, network.id);
      const others = endpointsOf(record).filter((e) => this.find(e.network).id !== network.id);
      const changed = { ...withEndpoints(record, others), endpoints: rest };
      if (running) await this.#refresh(changed);
      this.#tell(network, 'disconnect', { container: record.id });
      return changed;
    });
  }

  async #refresh(record: ContainerRecord): Promise<void> {
    await this.#source.refresh(record.id, { ...record, exposedPorts: record.process.exposedPorts });
  }

  #usersOf(network: Network): ContainerRecord[] {
    return this.#containers.list().filter((r) => Object.values(r.endpoints).some((e) => e.networkId === network.id));
  }

  #tell({ id, name, driver }: Network, action: string, more: Record<string, string> = {}): void {
    this.#events.publish({ type: 'network', action, id, attributes: { name, type: driver, ...more } });
  }
}

function checkConnectable(record: ContainerRecord, network: Network): void {
  if (record.endpoints[network.name]) throw new EndpointExists({ container: record.name, network: network.name });
  if (record.spec.namespaces.network.kind !== 'private' || network.driver === 'host')
    throw new WrongPhase({
      message:
        'container sharing network namespace with another container or host cannot be connected to any other network',
    });
  if (network.driver === 'none')
    throw new WrongPhase({
      message: 'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    });
}

function endpointsOf(record: ContainerRecord): EndpointSpec[] {
  return record.spec.network.endpoints;
}

function withEndpoints(record: ContainerRecord, endpoints: EndpointSpec[]): ContainerRecord {
  return { ...record, spec: { ...record.spec, network: { ...record.spec.network, endpoints } } };
}
