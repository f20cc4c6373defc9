import {
  array,
  boolean,
  integer,
  type Out,
  object,
  oneOf,
  optional,
  record,
  string,
  withDefault,
} from '#base/shape.ts';
import { formatCidr, formatIp, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import type { Endpoint, Network, Sandbox } from '#network/model.ts';
import { prefix, type Store, type TxnOp } from '#storage/store.ts';

/**
 * On disk, in the node's store, as JSON:
 *
 *   network/net/<network id>      a network
 *   network/box/<sandbox id>      a sandbox with its endpoints and ports: written before any of it exists in the kernel
 */
const NETWORKS = 'network/net/';
const SANDBOXES = 'network/box/';

const networkShape = object({
  id: string(),
  name: string(),
  driver: oneOf('bridge', 'host', 'none'),
  createdAtMs: integer(),
  subnets: array(
    object({ subnet: string(), range: optional(string()), gateway: string(), auxiliary: record(string()) }),
  ),
  internal: boolean(),
  ipv6: boolean(),
  icc: boolean(),
  routed: withDefault(boolean(), false),
  masquerade: boolean(),
  mtuBytes: integer({ min: 68, max: 65535 }),
  bridge: string(),
  hostBinding: string(),
  labels: record(string()),
  options: record(string()),
  ipamOptions: optional(record(string())),
  attachable: boolean(),
  predefined: boolean(),
  names: boolean(),
});

const sandboxShape = object({
  id: string(),
  name: string(),
  netns: string(),
  userns: optional(string()),
  endpoints: array(
    object({
      network: string(),
      sandbox: string(),
      link: string(),
      hostLink: string(),
      mac: string(),
      ipv4: optional(string()),
      ipv6: optional(string()),
      asked: object({ ipv4: optional(string()), ipv6: optional(string()), mac: optional(string()) }),
      names: array(string()),
      links: optional(record(string())),
      linkLocal: optional(array(string())),
      gwPriority: optional(integer()),
      defaultRoutes: optional(array(oneOf(4, 6))),
      defaultRoute: optional(boolean()),
    }),
  ),
  ports: array(
    object({
      protocol: oneOf('tcp', 'udp', 'sctp'),
      containerPort: integer({ min: 1, max: 65535 }),
      hostIp: string(),
      hostPort: integer({ min: 1, max: 65535 }),
    }),
  ),
  dns: object({ servers: array(string()), search: array(string()), options: array(string()) }),
});

export function putNetwork(network: Network): TxnOp {
  const { ipamOptions, ...rest } = network;
  const json: Out<typeof networkShape> = {
    ...rest,
    ...(ipamOptions ? { ipamOptions: { ...ipamOptions } } : {}),
    labels: { ...network.labels },
    options: { ...network.options },
    subnets: network.subnets.map((s) => ({
      subnet: formatCidr(s.subnet),
      ...(s.range ? { range: formatCidr(s.range) } : {}),
      gateway: formatIp(s.gateway),
      auxiliary: Object.fromEntries(Object.entries(s.auxiliary).map(([name, ip]) => [name, formatIp(ip)])),
    })),
  };
  return { do: 'put', key: `${NETWORKS}${network.id}`, value: bytes(json) };
}

export function deleteNetwork(id: string): TxnOp {
  return { do: 'delete', key: `${NETWORKS}${id}` };
}

export function putSandbox(sandbox: Sandbox): TxnOp {
  return { do: 'put', key: `${SANDBOXES}${sandbox.id}`, value: bytes(sandbox) };
}

export function deleteSandbox(id: string): TxnOp {
  return { do: 'delete', key: `${SANDBOXES}${id}` };
}

export async function loadNetworks(store: Store): Promise<Network[]> {
  const { items } = await store.range(prefix(NETWORKS));
  return items.map((item) => {
    const json = networkShape(parse(item.value), '$');
    return {
      ...json,
      subnets: json.subnets.map((s) => ({
        subnet: parseCidr(s.subnet),
        range: s.range === undefined ? undefined : parseCidr(s.range),
        gateway: parseIp(s.gateway),
        auxiliary: Object.fromEntries(Object.entries(s.auxiliary).map(([name, ip]) => [name, parseIp(ip)])),
      })),
    };
  });
}

export async function loadSandboxes(store: Store): Promise<Sandbox[]> {
  const { items } = await store.range(prefix(SANDBOXES));
  return items.map((item) => {
    const json = sandboxShape(parse(item.value), '$');
    return { ...json, endpoints: json.endpoints.map(endpointOf) };
  });
}

/** Records from before November 2026 say of an endpoint that it has the default routes, all or none. */
function endpointOf({ defaultRoute, ...e }: Out<typeof sandboxShape>['endpoints'][number]): Endpoint {
  const both = [...(e.ipv4 === undefined ? [] : [4 as const]), ...(e.ipv6 === undefined ? [] : [6 as const])];
  return { ...e, ipv4: e.ipv4, ipv6: e.ipv6, defaultRoutes: e.defaultRoutes ?? (defaultRoute ? both : []) };
}

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function parse(value: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(value));
}
