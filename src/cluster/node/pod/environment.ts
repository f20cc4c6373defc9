import { BadContainerConfig } from '#cluster/node/errors.ts';
import { expand } from '#cluster/node/pod/expand.ts';
import { fieldValue, resourceValue, type Self } from '#cluster/node/pod/fields.ts';
import type { ConfigMap, Container, EnvVar, Secret, Service } from '#spec/kubernetes/types.gen.ts';

/** Objects of the pod's namespace that its environment names; undefined when there is none of that name. */
export interface EnvObjects {
  configMap(name: string): ConfigMap | undefined;
  secret(name: string): Secret | undefined;
  services: readonly Service[];
}

/** The container's environment, in the order of their coming: services, then `envFrom`, then `env`; a later one wins. */
export function environment(container: Container, self: Self, objects: EnvObjects): Map<string, string> {
  const links = serviceEnvironment(self, objects.services);
  const result = new Map<string, string>();
  for (const from of container.envFrom ?? []) {
    const [kind, ref] = from.configMapRef
      ? (['configmap', from.configMapRef] as const)
      : (['secret', from.secretRef] as const);
    if (!ref) continue;
    const data = dataOf(objects, kind, ref.name ?? '');
    if (!data) {
      if (ref.optional) continue;
      throw new BadContainerConfig({ message: `${kind} "${ref.name ?? ''}" not found` });
    }
    for (const [key, value] of Object.entries(data)) result.set(`${from.prefix ?? ''}${key}`, value);
  }
  for (const entry of container.env ?? []) {
    // A reference means what stands above it; services may be named too.
    const known = new Map([...links, ...result]);
    const value = entry.valueFrom ? valueFrom(entry, container, self, objects) : expand(entry.value ?? '', known);
    if (value !== undefined) result.set(entry.name, value);
  }
  for (const [name, value] of links) if (!result.has(name)) result.set(name, value);
  return result;
}

/** Undefined: optional and not there. */
function valueFrom(entry: EnvVar, container: Container, self: Self, objects: EnvObjects): string | undefined {
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = entry.valueFrom ?? {};
  if (fieldRef) return fieldValue(self, fieldRef);
  if (resourceFieldRef) return resourceValue(self, resourceFieldRef, container);
  const [kind, ref] = configMapKeyRef ? (['configmap', configMapKeyRef] as const) : (['secret', secretKeyRef] as const);
  if (!ref) throw new BadContainerConfig({ message: `env ${entry.name}: valueFrom names no source this node knows` });
  const data = dataOf(objects, kind, ref.name ?? '');
  const value = data?.[ref.key];
  if (value !== undefined) return value;
  if (ref.optional) return undefined;
  const place = `${self.pod.metadata.namespace ?? ''}/${ref.name ?? ''}`;
  throw new BadContainerConfig({
    message: data
      ? `couldn't find key ${ref.key} in ${kind === 'configmap' ? 'ConfigMap' : 'Secret'} ${place}`
      : `${kind} "${ref.name ?? ''}" not found`,
  });
}

function dataOf(objects: EnvObjects, kind: 'configmap' | 'secret', name: string): Record<string, string> | undefined {
  if (kind === 'configmap') {
    const map = objects.configMap(name);
    return map && (map.data ?? {});
  }
  const secret = objects.secret(name);
  if (!secret) return undefined;
  return Object.fromEntries(
    Object.entries(secret.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );
}

/** `NAME_SERVICE_HOST` and Docker's old link variables; always for `kubernetes`, for the namespace's own if `enableServiceLinks`. */
function serviceEnvironment(self: Self, services: readonly Service[]): Map<string, string> {
  const { metadata, spec } = self.pod;
  const result = new Map<string, string>();
  const isMaster = (s: Service): boolean => s.metadata.name === 'kubernetes' && s.metadata.namespace === 'default';
  const links = spec.enableServiceLinks ?? true;
  const mine = services.filter((s) => isMaster(s) || (links && s.metadata.namespace === metadata.namespace));
  // The namespace's own service of that name hides the master's.
  for (const service of mine.sort((a, b) => Number(isMaster(b)) - Number(isMaster(a)))) {
    const ip = service.spec?.clusterIP ?? '';
    const ports = service.spec?.ports ?? [];
    const [first] = ports;
    if (ip === '' || ip === 'None' || !first) continue;
    const name = (service.metadata.name ?? '').toUpperCase().replaceAll('-', '_');
    result.set(`${name}_SERVICE_HOST`, ip);
    result.set(`${name}_SERVICE_PORT`, String(first.port));
    for (const port of ports)
      if (port.name)
        result.set(`${name}_SERVICE_PORT_${port.name.toUpperCase().replaceAll('-', '_')}`, String(port.port));
    const url = (port: { port: number; protocol?: string }): string =>
      `${(port.protocol ?? 'TCP').toLowerCase()}://${ip}:${port.port}`;
    result.set(`${name}_PORT`, url(first));
    for (const port of ports) {
      const prefix = `${name}_PORT_${port.port}_${port.protocol ?? 'TCP'}`;
      result.set(prefix, url(port));
      result.set(`${prefix}_PROTO`, (port.protocol ?? 'TCP').toLowerCase());
      result.set(`${prefix}_PORT`, String(port.port));
      result.set(`${prefix}_ADDR`, ip);
    }
  }
  return result;
}
