import { isIP } from 'node:net';
import type { Endpoint, EndpointSlice } from './types.gen.ts';

/** One endpoint of a Service with the number its port has there. */
export interface Behind {
  endpoint: Endpoint;
  number: number;
}

/** Label that says whose slice it is. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';

/** All endpoints that have the Service's port, ready or not. */
export function endpointsBehind(
  slices: readonly EndpointSlice[],
  port: { name?: string; protocol?: string },
  family: 4 | 6,
): Behind[] {
  return slices
    .filter((slice) => slice.addressType === (family === 4 ? 'IPv4' : 'IPv6'))
    .flatMap((slice) => {
      const found = slice.ports?.find(
        (p) => (p.name ?? '') === (port.name ?? '') && (p.protocol ?? 'TCP') === (port.protocol ?? 'TCP'),
      );
      const number = found?.port;
      if (number === undefined) return [];
      return (slice.endpoints ?? []).map((endpoint) => ({ endpoint, number }));
    })
    .filter(({ endpoint }) => isIP(endpoint.addresses[0] ?? '') === family);
}

/**
 * Who should get traffic: the ready ones; when there are none, those that end but still serve, which is better than nobody
 * (KEP-1669). `leaving` says it is these.
 */
export function serving(found: readonly Behind[]): { chosen: Behind[]; leaving: boolean } {
  const ready = found.filter(({ endpoint: { conditions } }) => (conditions?.ready ?? true) && !conditions?.terminating);
  if (ready.length > 0) return { chosen: ready, leaving: false };
  const last = found.filter(({ endpoint: { conditions } }) => conditions?.serving && conditions.terminating);
  return { chosen: last, leaving: true };
}
