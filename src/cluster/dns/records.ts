import { isIP } from 'node:net';
import { array, boolean, integer, type Out, object, oneOf, optional, type Shape, string } from '#base/shape.ts';
import type { EndpointSlice, Service } from '#spec/kubernetes/types.gen.ts';

/**
 * What the name server knows of one Service: all it needs to answer, nothing more. Made from objects by the side that watches
 * the API, and sent to the process that answers (base/feed.ts); key `namespace/name`.
 */
const portShape = object({ name: string(), protocol: oneOf('tcp', 'udp', 'sctp'), port: integer() });
const endpointShape = object({ ip: string(), hostname: optional(string()), ports: array(portShape) });

export const serviceNamesShape = object({
  namespace: string(),
  name: string(),
  /** Addresses of the Service itself; none for headless ones. */
  addresses: array(string()),
  headless: boolean(),
  ports: array(portShape),
  /** Of headless Services: who stands behind. */
  endpoints: array(endpointShape),
  /** ExternalName: an alias of that name. */
  alias: optional(string()),
});
export type ServiceNames = Out<typeof serviceNamesShape>;
export type NamedPort = Out<typeof portShape>;
export type NamedEndpoint = Out<typeof endpointShape>;

export const dnsSettingsShape: Shape<DnsSettings> = object({
  domain: string({ nonEmpty: true }),
  listen: array(object({ ip: string(), port: integer({ min: 1, max: 65535 }) })),
  upstreams: array(string()),
});

export interface DnsSettings {
  /** `cluster.local` */
  domain: string;
  listen: readonly { ip: string; port: number }[];
  /** Who is asked for names outside the cluster; empty: the host's resolvers. */
  upstreams: readonly string[];
}

/** Undefined: the Service has no name yet (its address is not chosen). */
export function namesOf(service: Service, slices: readonly EndpointSlice[]): ServiceNames | undefined {
  const { namespace = '', name = '' } = service.metadata;
  const { type, clusterIP = '', clusterIPs, externalName } = service.spec ?? {};
  const base = { namespace, name, addresses: [], headless: false, ports: [], endpoints: [] };
  if (type === 'ExternalName') return externalName ? { ...base, alias: plain(externalName) } : undefined;
  if (clusterIP === '') return undefined;
  const ports = (service.spec?.ports ?? []).map((p) => namedPort(p.name, p.protocol, p.port));
  if (clusterIP !== 'None')
    return { ...base, ports, addresses: (clusterIPs ?? [clusterIP]).filter((ip) => isIP(ip) > 0) };
  return { ...base, headless: true, ports, endpoints: endpointsOf(slices) };
}

function endpointsOf(slices: readonly EndpointSlice[]): NamedEndpoint[] {
  const out = new Map<string, NamedEndpoint>();
  for (const slice of slices) {
    if (slice.addressType === 'FQDN') continue;
    const ports = (slice.ports ?? []).map((p) => namedPort(p.name, p.protocol, p.port));
    for (const { addresses, conditions, hostname } of slice.endpoints ?? []) {
      if (conditions?.ready === false) continue; // publishNotReadyAddresses makes them ready in the slice
      for (const ip of addresses) {
        const known = out.get(ip);
        out.set(ip, {
          ip,
          ...(hostname ? { hostname } : {}),
          ports: known ? [...known.ports, ...ports] : ports,
        });
      }
    }
  }
  return [...out.values()];
}

function namedPort(name: string | undefined, protocol: string | undefined, port: number | undefined): NamedPort {
  return { name: name ?? '', protocol: (protocol ?? 'TCP').toLowerCase() as NamedPort['protocol'], port: port ?? 0 };
}

function plain(name: string): string {
  return name.toLowerCase().replace(/\.$/, '');
}
