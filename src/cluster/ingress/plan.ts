import { type BackendEntry, type IngressEntry, KEY } from '#cluster/ingress/model.ts';
import { endpointsBehind, serving } from '#spec/kubernetes/endpoints.ts';
import type {
  EndpointSlice,
  Ingress,
  IngressBackend,
  IngressClass,
  Secret,
  Service,
  ServicePort,
} from '#spec/kubernetes/types.gen.ts';

/** Name of the controller in IngressClass objects that are ours. */
export const CONTROLLER = 'estiba.dev/ingress';
const LEGACY_CLASS = 'kubernetes.io/ingress.class';

/** Pure: objects become what the proxy knows, and what is wrong with them becomes words. */
export interface IngressPlan {
  entry: IngressEntry;
  /** Keys of backends, without `be/`. */
  backends: string[];
  secrets: string[];
  /** Hosts that need a certificate of our own, as long as their secret cannot be used. */
  tlsHosts: { host: string; secret: string | undefined }[];
  complaints: { reason: string; message: string }[];
}

/** Without any class it is nobody's: admission has put the default class there. */
export function isOurs(ingress: Ingress, classes: (name: string) => IngressClass | undefined): boolean {
  const name = ingress.spec?.ingressClassName ?? ingress.metadata.annotations?.[LEGACY_CLASS];
  return name !== undefined && classes(name)?.spec?.controller === CONTROLLER;
}

export function planIngress(ingress: Ingress): IngressPlan {
  const { namespace = '', name = '', creationTimestamp } = ingress.metadata;
  const backends = new Set<string>();
  const complaints: IngressPlan['complaints'] = [];
  const keyOf = (backend: IngressBackend | undefined, where: string): string | undefined => {
    const service = backend?.service;
    if (!service) {
      if (backend?.resource)
        complaints.push({
          reason: 'BackendNotSupported',
          message: `${where}: a resource as backend is not served; name a Service`,
        });
      return undefined;
    }
    const key = `${namespace}/${service.name}:${service.port?.name ?? service.port?.number ?? ''}`;
    backends.add(key);
    return key;
  };
  const rules = (ingress.spec?.rules ?? []).flatMap(({ host = '', http }, n) =>
    (http?.paths ?? []).flatMap(({ path, pathType, backend }, m) => {
      const key = keyOf(backend, `spec.rules[${n}].http.paths[${m}].backend`);
      const type = pathType === 'Exact' ? ('Exact' as const) : ('Prefix' as const);
      return key === undefined ? [] : [{ host, path: path || '/', type, backend: key }];
    }),
  );
  const defaultBackend = keyOf(ingress.spec?.defaultBackend, 'spec.defaultBackend');
  const ruleHosts = [...new Set(rules.map((rule) => rule.host).filter((host) => host !== ''))];
  const tls = (ingress.spec?.tls ?? []).map(({ hosts, secretName }) => ({
    // Without hosts the secret is for all the rules' hosts.
    hosts: hosts?.length ? hosts : ruleHosts,
    ...(secretName ? { secret: secretName } : {}),
  }));
  return {
    entry: {
      namespace,
      name,
      createdAtMs: creationTimestamp ? Date.parse(creationTimestamp) : 0,
      rules,
      ...(defaultBackend === undefined ? {} : { defaultBackend }),
      tls,
    },
    backends: [...backends],
    secrets: [...new Set(tls.flatMap(({ secret }) => (secret === undefined ? [] : [`${namespace}/${secret}`])))],
    // Every host is served over TLS too: who does not ask for it is not bothered.
    tlsHosts: [
      ...new Map(
        [
          ...ruleHosts.map((host) => ({ host, secret: undefined })),
          ...tls.flatMap(({ hosts, secret }) =>
            hosts.map((host) => ({ host, secret: secret === undefined ? undefined : `${namespace}/${secret}` })),
          ),
        ].map((each): [string, IngressPlan['tlsHosts'][number]] => [each.host, each]),
      ).values(),
    ],
    complaints,
  };
}

/** `namespace/service:port` → who answers there. */
export function planBackend(
  key: string,
  service: Service | undefined,
  slices: readonly EndpointSlice[],
): { entry: BackendEntry; leaving: boolean } {
  const name = key.slice(0, key.lastIndexOf(':'));
  const wanted = key.slice(key.lastIndexOf(':') + 1);
  const none = (says: string) => ({
    entry: { targets: [], why: says, protocol: 'http' as const },
    leaving: false,
  });
  if (!service) return none(`Service ${name} does not exist`);
  if (service.spec?.type === 'ExternalName')
    return none(`Service ${name} is an ExternalName, which has no endpoints to send requests to`);
  const port = service.spec?.ports?.find((p) => p.name === wanted || String(p.port) === wanted);
  if (!port) return none(`Service ${name} has no port ${wanted}`);
  const families = (service.spec?.ipFamilies ?? ['IPv4']).map((f): 4 | 6 => (f === 'IPv6' ? 6 : 4));
  const found = families.flatMap((family) => endpointsBehind(slices, port, family));
  const { chosen, leaving } = serving(found);
  const targets = chosen.map(({ endpoint, number }) => ({ ip: endpoint.addresses[0] ?? '', port: number }));
  const why =
    found.length === 0
      ? `Service ${name} selects no pod that has the port`
      : `none of the ${found.length} pods of Service ${name} is ready`;
  return { entry: { targets, protocol: protocolOf(port), ...(targets.length === 0 ? { why } : {}) }, leaving };
}

/** Kubernetes' own names; `grpc` and `https` are custom. */
function protocolOf({ appProtocol, name }: ServicePort): BackendEntry['protocol'] {
  if (appProtocol === 'kubernetes.io/h2c' || appProtocol === 'grpc') return 'h2c';
  return appProtocol === 'https' || appProtocol === 'HTTPS' || (appProtocol === undefined && name === 'https')
    ? 'https'
    : 'http';
}

/** A kubernetes.io/tls secret, if it holds what it should. */
export function certificateOf(secret: Secret | undefined): { certificate: string; key: string } | undefined {
  const [certificate, key] = [secret?.data?.['tls.crt'], secret?.data?.['tls.key']];
  if (!certificate || !key) return undefined;
  const text = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');
  return { certificate: text(certificate), key: text(key) };
}

export const backendKey = (key: string): string => `${KEY.backend}${key}`;
