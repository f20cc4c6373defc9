import { createHash } from 'node:crypto';
import { constants, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { idsOf } from '#engine/core/id-ranges.ts';
import { parseLink } from '#engine/core/links.ts';
import type { Attachment, AttachWish, NetworkSource } from '#engine/core/parts.ts';
import type { EndpointRecord, PortRecord } from '#engine/core/record.ts';
import type { ContainerSpec, EndpointSpec } from '#engine/core/spec.ts';
import { formatIdMap } from '#kernel/idmap.ts';
import { formatIp } from '#kernel/netlink/ip.ts';
import { MKDIR_MAY_EXIST, MKDIR_PARENTS } from '#kernel/plan/ops.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { EndpointNotFound } from '#network/errors.ts';
import { hostsFile, parseResolv, resolvFile } from '#network/files.ts';
import type { DnsSettings, Endpoint, Network, Protocol, Sandbox } from '#network/model.ts';
import type { Networks } from '#network/networks.ts';
import type { PortWish } from '#network/ports.ts';
import type { AttachRequest, EndpointRequest } from '#network/sandboxes.ts';
import type { NetStep } from '#network/steps.ts';

const HOST_RESOLV = '/etc/resolv.conf';
const HOST_GATEWAY = 'host-gateway';
const NONE = 'none';
const FILES = ['hosts', 'resolv.conf', 'hostname'] as const;
const OF_FILES = { where: 'host', because: 'names and resolvers, as the container sees them' } as const;
/** In place: a container that runs has the very file mounted. */
const REWRITE = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC;

/** The part of the network layer that containers have to do with. */
type NetworksOfSource = Pick<Networks, 'find' | 'beginAttach' | 'foresee' | 'beginDetach' | 'sandbox' | 'sandboxesOn'>;

/**
 * A container's wishes in the network layer's words, and its answers in the container's record. The files a container sees as
 * `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` are written below `filesDir`, one directory a container: by a plan, one
 * request where each file would take three turns through threads.
 */
export class NodeNetworkSource implements NetworkSource {
  readonly #networks: NetworksOfSource;
  readonly #filesDir: string;
  readonly #runPlan: (plan: Plan) => Promise<unknown>;
  readonly #tell: (action: 'connect' | 'disconnect', networkId: string, containerId: string) => void;
  readonly #hostResolv: string;

  constructor(options: {
    networks: NetworksOfSource;
    filesDir: string;
    runPlan: (plan: Plan) => Promise<unknown>;
    hostResolv?: string;
    /** Hears of containers that join networks and leave them, as runs begin and end. */
    tell?: (action: 'connect' | 'disconnect', networkId: string, containerId: string) => void;
  }) {
    this.#networks = options.networks;
    this.#filesDir = options.filesDir;
    this.#runPlan = options.runPlan;
    this.#tell = options.tell ?? (() => undefined);
    this.#hostResolv = options.hostResolv ?? HOST_RESOLV;
  }

  async reserve(_id: string, spec: ContainerSpec): Promise<Record<string, EndpointRecord>> {
    return Object.fromEntries(
      ownEndpoints(spec).map((wish) => {
        const network = this.#networks.find(wish.network);
        return [network.name, endpointRecord(wish, network, undefined)];
      }),
    );
  }

  async attach(id: string, wish: AttachWish): Promise<Attachment> {
    const { spec } = wish;
    const mode = spec.namespaces.network.kind;
    const plug = (): Promise<void> => Promise.resolve();
    // One network, one set of its files: a name that one of them learns is known to both.
    if (wish.sharedWith)
      return {
        namespace: `/proc/${wish.sharedWith.pid}/ns/net`,
        endpoints: {},
        ports: [],
        files: this.filesOf(wish.sharedWith.id),
        plug,
      };
    // The sandbox's network stands already, and its owner knows its addresses.
    if (mode === 'sandbox') return { namespace: undefined, endpoints: wish.endpoints, ports: [], files: [], plug };
    if (mode === 'host') {
      const files = await this.#writeFiles(id, wish, undefined);
      return { namespace: undefined, endpoints: {}, ports: portRecords(undefined, wish.exposedPorts), files, plug };
    }
    const begun = await this.#networks.beginAttach(this.#requestOf(id, wish));
    try {
      const files = await this.#writeFiles(id, wish, begun.sandbox);
      const { netns: namespace, userns: userNamespace } = begun.sandbox;
      const endpoints = this.#endpointRecords(spec, begun.sandbox);
      const ports = portRecords(begun.sandbox, wish.exposedPorts);
      return { namespace, userNamespace, endpoints, ports, files, plug: this.#telling(begun) };
    } catch (error) {
      await Promise.allSettled([begun.plug()]);
      await this.#networks.beginDetach(id);
      throw error;
    }
  }

  #endpointRecords(spec: ContainerSpec, sandbox: Sandbox): Record<string, EndpointRecord> {
    return Object.fromEntries(
      ownEndpoints(spec).map((wish) => {
        const network = this.#networks.find(wish.network);
        const got = sandbox.endpoints.find((endpoint) => endpoint.network === network.id);
        return [network.name, endpointRecord(wish, network, got)];
      }),
    );
  }

  #telling({ sandbox, plug }: { sandbox: Sandbox; plug: () => Promise<void> }): () => Promise<void> {
    let told: Promise<void> | undefined;
    return () => {
      told ??= plug().then(() => {
        for (const endpoint of sandbox.endpoints) this.#tell('connect', endpoint.network, sandbox.id);
      });
      told.catch(() => undefined); // told to whoever awaits it, who may be busy until then
      return told;
    };
  }

  /** What `attach` would do now, with nothing made. */
  foresee(
    id: string,
    wish: AttachWish,
  ): { network: Pick<Attachment, 'namespace' | 'userNamespace' | 'files'>; steps: NetStep[] } {
    const { spec, sharedWith } = wish;
    const mode = spec.namespaces.network.kind;
    if (sharedWith)
      return {
        network: { namespace: `/proc/${sharedWith.pid}/ns/net`, files: this.filesOf(sharedWith.id) },
        steps: [],
      };
    if (mode === 'sandbox') return { network: { namespace: undefined, files: [] }, steps: [] };
    if (mode === 'host') return { network: { namespace: undefined, files: this.filesOf(id) }, steps: [] };
    const { netns, userns, steps } = this.#networks.foresee(this.#requestOf(id, wish));
    return { network: { namespace: netns, userNamespace: userns, files: this.filesOf(id) }, steps };
  }

  async detach(id: string): Promise<void> {
    const left = this.#networks.sandbox(id)?.endpoints ?? [];
    await this.#networks.beginDetach(id);
    for (const endpoint of left) this.#tell('disconnect', endpoint.network, id);
  }

  /** After a container has joined or left a network while it runs: its names and resolvers are others now. */
  async refresh(id: string, wish: AttachWish): Promise<void> {
    await this.#writeFiles(id, wish, this.#networks.sandbox(id));
  }

  async release(id: string): Promise<void> {
    await this.detach(id);
    await this.#runPlan({ steps: this.leavings(id) });
  }

  leavings(id: string): Step[] {
    return [{ op: 'removeTree', ...OF_FILES, path: join(this.#filesDir, id) }];
  }

  #requestOf(id: string, wish: AttachWish): AttachRequest {
    const ids = idsOf(wish.spec);
    return {
      id,
      name: wish.name,
      endpoints: ownEndpoints(wish.spec).map((e) => requestOf(id, wish, e)),
      ports: portWishes(wish.spec, wish.exposedPorts),
      dns: dnsOf(wish.spec),
      ...(ids ? { idMap: Buffer.from(formatIdMap(ids)).toString() } : {}),
    };
  }

  async #writeFiles(id: string, wish: AttachWish, sandbox: Sandbox | undefined): Promise<Attachment['files']> {
    const dir = join(this.#filesDir, id);
    const networks = sandbox?.endpoints.map((e) => this.#networks.find(e.network)) ?? [];
    const embedded = networks.some((network) => network.names);
    const host = parseResolv(readFileSync(this.#hostResolv, 'utf8'));
    const addresses = sandbox?.endpoints.flatMap((e) => [e.ipv4, e.ipv6].filter((ip) => ip !== undefined)) ?? [];
    const texts: Record<(typeof FILES)[number], string> = {
      hosts: hostsFile({
        hostname: wish.hostname,
        ...(wish.spec.domainname ? { domain: wish.spec.domainname } : {}),
        addresses,
        extra: [...this.#extraHosts(wish.spec), ...this.#links(wish)],
      }),
      'resolv.conf': resolvFile(dnsOf(wish.spec), host, embedded),
      hostname: `${wish.hostname}\n`,
    };
    await this.#runPlan({
      steps: [
        { op: 'mkdir', ...OF_FILES, path: dir, mode: 0o711, flags: MKDIR_PARENTS | MKDIR_MAY_EXIST },
        ...FILES.map((name) => {
          const data = Buffer.from(texts[name]);
          return { op: 'write' as const, ...OF_FILES, path: join(dir, name), data, flags: REWRITE, mode: 0o644 };
        }),
      ],
    });
    return this.filesOf(id);
  }

  /** Where a container's own `/etc/hosts` and its like are, once it has started. */
  filesOf(id: string): Attachment['files'] {
    return FILES.map((name) => ({ path: `/etc/${name}`, source: join(this.#filesDir, id, name) }));
  }

  #extraHosts(spec: ContainerSpec): { names: string[]; address: string }[] {
    return spec.network.extraHosts.map((line) => {
      const colon = line.indexOf(':'); // the address may be IPv6 and have colons of its own
      const address = line.slice(colon + 1).replace(/^\[(.*)\]$/, '$1');
      return { names: [line.slice(0, colon)], address: address === HOST_GATEWAY ? this.#hostGateway() : address };
    });
  }

  /** `container:alias`: the other's address in a network both stand in, written once, as Docker does. */
  #links(wish: AttachWish): { names: string[]; address: string }[] {
    return ownEndpoints(wish.spec).flatMap((endpoint, n) => {
      const network = this.#networks.find(endpoint.network);
      return [...(n === 0 ? wish.spec.network.links : []), ...endpoint.links].flatMap((link) => {
        const { target, alias } = parseLink(link);
        const box = this.#networks.sandboxesOn(network.id).find((b) => b.name === target || b.id.startsWith(target));
        const address = box?.endpoints.find((e) => e.network === network.id)?.ipv4;
        // Where names are served a link may wait for its target; the old bridge has the hosts file alone.
        if (!address && network.names) return [];
        if (!address) throw new EndpointNotFound({ container: target, network: network.name });
        return [{ names: [...new Set([alias, target])], address }];
      });
    });
  }

  #hostGateway(): string {
    const [subnet] = this.#networks.find('bridge').subnets;
    return subnet ? formatIp(subnet.gateway) : '127.0.0.1';
  }
}

function ownEndpoints(spec: ContainerSpec): EndpointSpec[] {
  if (spec.namespaces.network.kind !== 'private') return [];
  return spec.network.endpoints.filter((e) => e.network !== NONE);
}

export function requestOf(
  id: string,
  wish: Pick<AttachWish, 'name' | 'spec'>,
  endpoint: EndpointSpec,
): EndpointRequest {
  const mac = endpoint.mac ?? wish.spec.network.mac;
  return {
    network: endpoint.network,
    names: [...new Set([wish.name, ...endpoint.aliases, id.slice(0, 12)])],
    ...(endpoint.ipv4 === undefined ? {} : { ipv4: endpoint.ipv4 }),
    ...(endpoint.ipv6 === undefined ? {} : { ipv6: endpoint.ipv6 }),
    ...(mac === undefined ? {} : { mac }),
    ...privateNames(wish.spec, endpoint),
    ...(endpoint.linkLocal ? { linkLocal: endpoint.linkLocal } : {}),
    ...(endpoint.gwPriority ? { gwPriority: endpoint.gwPriority } : {}),
  };
}

/** Links of a network with names: what its DNS answers this container alone. */
function privateNames(spec: ContainerSpec, { network, links }: EndpointSpec): Pick<EndpointRequest, 'links'> {
  const own = spec.network.endpoints[0]?.network === network ? spec.network.links : [];
  const all = [...own, ...links].map(parseLink);
  return all.length === 0 ? {} : { links: Object.fromEntries(all.map((l) => [l.alias.toLowerCase(), l.target])) };
}

function portWishes(spec: ContainerSpec, exposed: readonly string[]): PortWish[] {
  const bound = Object.entries(spec.network.ports).flatMap(([key, bindings]) =>
    bindings.map((b): PortWish => ({ ...parsePort(key), hostIp: b.hostIp, hostPort: b.hostPort })),
  );
  if (!spec.network.publishAll) return bound;
  const rest = exposed.filter((key) => (spec.network.ports[key] ?? []).length === 0);
  return [...bound, ...rest.map((key): PortWish => ({ ...parsePort(key), hostIp: '', hostPort: '' }))];
}

function portRecords(sandbox: Sandbox | undefined, exposed: readonly string[]): PortRecord[] {
  const published: PortRecord[] = (sandbox?.ports ?? []).map((port) => ({ ...port }));
  const silent = exposed
    .map(parsePort)
    .filter((e) => !published.some((p) => p.containerPort === e.containerPort && p.protocol === e.protocol));
  return [...published, ...silent];
}

function parsePort(key: string): { containerPort: number; protocol: Protocol } {
  const [number = '', protocol = 'tcp'] = key.split('/');
  return { containerPort: Number(number), protocol: protocol as Protocol }; // checked where the wish was parsed
}

function dnsOf(spec: ContainerSpec): DnsSettings {
  return { servers: spec.network.dns, search: spec.network.dnsSearch, options: spec.network.dnsOptions };
}

export function endpointIdOf({ sandbox, network }: Pick<Endpoint, 'sandbox' | 'network'>): string {
  return createHash('sha256').update(`${sandbox} ${network}`).digest('hex');
}

function askedOf({ ipv4, ipv6, mac, linkLocal }: EndpointSpec): Pick<EndpointRecord, 'asked'> {
  const asked = {
    ...(ipv4 ? { ipv4 } : {}),
    ...(ipv6 ? { ipv6 } : {}),
    ...(mac ? { mac } : {}),
    ...(linkLocal ? { linkLocal } : {}),
  };
  return Object.keys(asked).length === 0 ? {} : { asked };
}

/** What a container has in a network; `got` is what it holds there while it is plugged. */
export function endpointRecord(wish: EndpointSpec, network: Network, got: Endpoint | undefined): EndpointRecord {
  const v4 = network.subnets.find((s) => s.subnet.ip.family === 4);
  const v6 = network.subnets.find((s) => s.subnet.ip.family === 6);
  return {
    networkId: network.id,
    // The same at each start of the container; none while it is not plugged.
    endpointId: got ? endpointIdOf(got) : '',
    ...(got?.ipv4 && v4 ? { ipv4: got.ipv4, prefix4: v4.subnet.prefix, gateway4: formatIp(v4.gateway) } : {}),
    ...(got?.ipv6 && v6 ? { ipv6: got.ipv6, prefix6: v6.subnet.prefix, gateway6: formatIp(v6.gateway) } : {}),
    mac: got?.mac ?? '',
    aliases: wish.aliases,
    links: wish.links,
    ...askedOf(wish),
    ...(wish.gwPriority ? { gwPriority: wish.gwPriority } : {}),
    driverOptions: wish.driverOptions,
  };
}
