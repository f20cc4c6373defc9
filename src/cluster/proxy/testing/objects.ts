import type { EndpointSlice, Service, ServiceSpec } from '#spec/kubernetes/types.gen.ts';

/** Services and slices as the API server gives them, for tests. */
export function service(name: string, spec: ServiceSpec & { ports: NonNullable<ServiceSpec['ports']> }): Service {
  return { metadata: { namespace: 'default', name }, spec: { type: 'ClusterIP', ipFamilies: ['IPv4'], ...spec } };
}

export interface EndpointWish {
  ip: string;
  ready?: boolean;
  serving?: boolean;
  terminating?: boolean;
  node?: string;
}

export function slice(
  of: string,
  endpoints: readonly EndpointWish[],
  ports: NonNullable<EndpointSlice['ports']> = [{ name: '', port: 8080, protocol: 'TCP' }],
): EndpointSlice {
  return {
    metadata: { namespace: 'default', name: `${of}-1`, labels: { 'kubernetes.io/service-name': of } },
    addressType: 'IPv4',
    ports,
    endpoints: endpoints.map(({ ip, ready = true, serving = ready, terminating = false, node = 'node-1' }) => ({
      addresses: [ip],
      conditions: { ready, serving, terminating },
      nodeName: node,
    })),
  };
}
