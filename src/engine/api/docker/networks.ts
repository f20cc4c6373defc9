import { fail } from '#base/shape.ts';
import { endpointOf } from '#engine/api/docker/create.ts';
import { timeOf } from '#engine/api/docker/image-list.ts';
import { textOf } from '#engine/api/docker/query.ts';
import { dockerTime } from '#engine/api/docker/time.ts';
import { NotSupported } from '#engine/api/errors.ts';
import { empty, json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import {
  type CreateRequest,
  formatCidr,
  formatIp,
  type Network,
  type NodeNetworks,
} from '#engine/core/node-networks.ts';
import { checkBody } from '#spec/docker/body.ts';
import { type Filters, labelMatches, parseFilters } from '#spec/docker/filters.ts';
import type { Bodies, Network as NetworkJson } from '#spec/docker/types.gen.ts';

/** Networks' operations of the Docker API, by operation id. */
export function networkHandlers(networks: NodeNetworks, now: () => number): Handlers {
  return {
    NetworkList: ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters'));
      filters.allow('dangling', 'driver', 'id', 'label', 'name', 'scope', 'type');
      const used = (network: Network): boolean => networks.members(network).length > 0;
      const selected = networks.list().filter((network) => isSelected(network, filters, used));
      return json(selected.map((network) => networkJson(network)));
    },

    NetworkInspect: ({ params, query }) => {
      const scope = textOf(query, 'scope');
      const network = networks.find(params['id'] ?? '');
      if (scope !== undefined && scope !== 'local') fail('query scope', scope, 'is not local: there is no swarm here');
      const containers = Object.fromEntries(
        networks
          .members(network)
          .map((m) => [
            m.id,
            { Name: m.name, EndpointID: m.endpointId, MacAddress: m.mac, IPv4Address: m.ipv4, IPv6Address: m.ipv6 },
          ]),
      );
      return json({ ...networkJson(network), Containers: containers });
    },

    NetworkCreate: async (request) => {
      const network = await networks.create(createOf(checkBody('NetworkCreate', await request.json())));
      return json({ Id: network.id, Warning: '' }, 201);
    },

    NetworkDelete: async ({ params }) => {
      await networks.remove(params['id'] ?? '');
      return empty();
    },

    NetworkConnect: async (request) => {
      const body = checkBody('NetworkConnect', await request.json());
      await networks.connect(
        request.params['id'] ?? '',
        body.Container || fail('$.Container', body.Container, 'must name a container'),
        endpointOf(body.EndpointConfig ?? {}, '$.EndpointConfig'),
      );
      return empty(200);
    },

    NetworkDisconnect: async (request) => {
      const body = checkBody('NetworkDisconnect', await request.json());
      const container = body.Container || fail('$.Container', body.Container, 'must name a container');
      await networks.disconnect(request.params['id'] ?? '', container, { force: body.Force ?? false });
      return empty(200);
    },

    NetworkPrune: async ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters')).allow('label', 'label!', 'until');
      const until = filters.get('until')[0];
      const untilMs = until === undefined ? Number.POSITIVE_INFINITY : timeOf(until, now());
      const gone = await networks.prune(
        (network) =>
          network.createdAtMs < untilMs &&
          filters.every('label', (label) => labelMatches(network.labels, label)) &&
          filters.every('label!', (label) => !labelMatches(network.labels, label)),
      );
      return json({ NetworksDeleted: gone });
    },
  };
}

function createOf(body: Bodies['NetworkCreate']): CreateRequest {
  if (body.ConfigOnly || body.ConfigFrom?.Network)
    throw new NotSupported({
      what: 'a network that is only a configuration',
      instead: 'give the options with the network itself',
    });
  if (body.Ingress)
    throw new NotSupported({ what: 'an ingress network', instead: 'it is for swarms; leave --ingress away' });
  if (body.EnableIPv4 === false)
    throw new NotSupported({ what: 'a network without IPv4', instead: 'leave --ipv4 away' });
  if (body.Scope && body.Scope !== 'local') fail('$.Scope', body.Scope, 'is not local: there is no swarm here');
  const ipam = body.IPAM ?? {};
  if (ipam.Driver && ipam.Driver !== 'default') fail('$.IPAM.Driver', ipam.Driver, 'is not default');
  return {
    name: body.Name || fail('$.Name', body.Name, 'must name the network'),
    driver: body.Driver || 'bridge',
    internal: body.Internal ?? false,
    attachable: body.Attachable ?? false,
    ipv6: body.EnableIPv6 ?? false,
    subnets: (ipam.Config ?? []).map((pool) => ({
      ...(pool.Subnet ? { subnet: pool.Subnet } : {}),
      ...(pool.IPRange ? { range: pool.IPRange } : {}),
      ...(pool.Gateway ? { gateway: pool.Gateway } : {}),
      ...(pool.AuxiliaryAddresses ? { auxiliary: pool.AuxiliaryAddresses } : {}),
    })),
    ipamOptions: ipam.Options ?? {},
    options: body.Options ?? {},
    labels: body.Labels ?? {},
  };
}

export function networkJson(network: Network): NetworkJson {
  return {
    Name: network.name,
    Id: network.id,
    Created: dockerTime(network.createdAtMs),
    Scope: 'local',
    Driver: network.driver === 'none' ? 'null' : network.driver,
    EnableIPv4: true,
    EnableIPv6: network.ipv6,
    IPAM: {
      Driver: 'default',
      Options: network.ipamOptions ? { ...network.ipamOptions } : null,
      Config: network.subnets.map(({ subnet, range, gateway, auxiliary }) => ({
        Subnet: formatCidr(subnet),
        ...(range ? { IPRange: formatCidr(range) } : {}),
        Gateway: formatIp(gateway),
        ...(Object.keys(auxiliary).length > 0
          ? {
              AuxiliaryAddresses: Object.fromEntries(
                Object.entries(auxiliary).map(([name, ip]) => [name, formatIp(ip)]),
              ),
            }
          : {}),
      })),
    },
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: {},
    Options: network.options,
    Labels: network.labels,
  };
}

function isSelected(network: Network, filters: Filters, used: (network: Network) => boolean): boolean {
  const dangling = filters.flag('dangling');
  return (
    filters.any('name', (name) => network.name.includes(name)) &&
    filters.any('id', (id) => network.id.startsWith(id)) &&
    filters.any('driver', (driver) => networkJson(network).Driver === driver) &&
    filters.any('scope', (scope) => scope === 'local') &&
    filters.any('type', (type) =>
      type === 'builtin' || type === 'custom'
        ? (type === 'builtin') === network.predefined
        : fail('filters.type', type, 'is neither builtin nor custom'),
    ) &&
    filters.every('label', (label) => labelMatches(network.labels, label)) &&
    (dangling === undefined || dangling === (!network.predefined && !used(network)))
  );
}
