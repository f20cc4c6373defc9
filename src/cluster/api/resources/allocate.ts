import { isIP } from 'node:net';
import type { KubeObject, StoredObject } from '#cluster/store/objects.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { type FieldError, invalid, invalidObject } from '../status.ts';

/**
 * Cluster IPs and node ports of Services. What is taken is read from the Services themselves, so there is no second book to keep in
 * step; writers of Services are serialized by the registry while they choose.
 */
export interface Allocators {
  allocateService(service: KubeObject, old: KubeObject | undefined): void;
}

export interface AllocatorOptions {
  serviceCidr: string;
  nodePorts: { first: number; last: number };
  /** All Services now. */
  services: () => Iterable<StoredObject>;
  /** 0 ≤ x < 1 */
  random: () => number;
}

const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);

export function allocators(options: AllocatorOptions): Allocators {
  const range = parseRange(options.serviceCidr);
  return {
    allocateService(service, old) {
      const taken = used(options.services(), service);
      const errors = [
        ...allocateAddress(service, old, range, taken.addresses, options.random),
        ...allocatePorts(service, old, options, taken.ports),
      ];
      if (errors.length > 0)
        throw invalidObject({ group: '', resource: 'Service', name: service.metadata.name }, errors);
    },
  };
}

interface Range {
  base: number;
  size: number;
  text: string;
}

export function parseRange(cidr: string): Range {
  const [address = '', bits = '24'] = cidr.split('/');
  if (isIP(address) !== 4 || !/^\d+$/.test(bits) || Number(bits) > 30)
    throw new RangeError(`${cidr} is not an IPv4 range for services`);
  const size = 2 ** (32 - Number(bits));
  const whole = toNumber(address);
  return { base: whole - (whole % size), size, text: cidr };
}

/** The `n`th address of a range: 1 is the API server's, 10 the cluster DNS's, by custom. */
export function addressAt(cidr: string, n: number): string {
  return toAddress(parseRange(cidr).base + n);
}

function toNumber(address: string): number {
  return address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
}

function toAddress(n: number): string {
  return [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join('.');
}

function used(services: Iterable<StoredObject>, except: KubeObject): { addresses: Set<string>; ports: Set<string> } {
  const addresses = new Set<string>();
  const ports = new Set<string>();
  for (const { object } of services) {
    if (object.metadata.name === except.metadata.name && object.metadata.namespace === except.metadata.namespace)
      continue;
    const spec = part(object, 'spec');
    if (typeof spec['clusterIP'] === 'string') addresses.add(spec['clusterIP']);
    for (const port of list(spec['ports']))
      if (port['nodePort']) ports.add(`${String(port['nodePort'])}/${String(port['protocol'])}`);
    if (spec['healthCheckNodePort']) ports.add(`${String(spec['healthCheckNodePort'])}/TCP`);
  }
  return { addresses, ports };
}

function allocateAddress(
  service: KubeObject,
  old: KubeObject | undefined,
  range: Range,
  taken: ReadonlySet<string>,
  random: () => number,
): FieldError[] {
  const spec = part(service, 'spec');
  if (spec['type'] === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy', 'internalTrafficPolicy'])
      delete spec[field];
    return [];
  }
  const before = old ? part(old, 'spec') : {};
  // A client that leaves the address out of an update means to keep it.
  let address = String(
    spec['clusterIP'] ||
      (Array.isArray(spec['clusterIPs']) ? (spec['clusterIPs'][0] ?? '') : '') ||
      (before['clusterIP'] ?? ''),
  );
  if (address === '') {
    const free = freeAddress(range, taken, random);
    if (free === undefined)
      return [invalid('spec.clusterIPs', [], `failed to allocate IP: range ${range.text} is full`)];
    address = free;
  } else if (address !== 'None' && address !== before['clusterIP'] && isIP(address) === 4) {
    const offset = toNumber(address) - range.base;
    if (offset <= 0 || offset >= range.size - 1)
      return [
        invalid(
          'spec.clusterIPs',
          [address],
          `failed to allocate IP ${address}: the provided IP (${address}) is not in the valid range. The range of valid IPs is ${range.text}`,
        ),
      ];
    if (taken.has(address))
      return [
        invalid('spec.clusterIPs', [address], `failed to allocate IP ${address}: provided IP is already allocated`),
      ];
  }
  Object.assign(spec, { clusterIP: address, clusterIPs: [address] });
  spec['ipFamilies'] ??= ['IPv4'];
  spec['ipFamilyPolicy'] ??= 'SingleStack';
  return [];
}

function freeAddress(range: Range, taken: ReadonlySet<string>, random: () => number): string | undefined {
  // The low addresses are left to those who ask for one by number, as upstream does.
  const low = Math.min(Math.max(16, Math.floor(range.size / 16)), 256, Math.floor(range.size / 2));
  const count = range.size - 1 - low;
  const start = Math.floor(random() * count);
  for (let i = 0; i < count; i++) {
    const address = toAddress(range.base + low + ((start + i) % count));
    if (!taken.has(address)) return address;
  }
  for (let n = 1; n < low; n++) if (!taken.has(toAddress(range.base + n))) return toAddress(range.base + n);
  return undefined;
}

function allocatePorts(
  service: KubeObject,
  old: KubeObject | undefined,
  options: AllocatorOptions,
  taken: Set<string>,
): FieldError[] {
  const spec = part(service, 'spec');
  const wanted =
    spec['type'] === 'NodePort' || (spec['type'] === 'LoadBalancer' && spec['allocateLoadBalancerNodePorts'] !== false);
  const ports = list(spec['ports']);
  const before = list(old ? part(old, 'spec')['ports'] : []);
  if (!wanted) {
    // A change of type gives back the ports that the old type got, unless the client insists on them.
    for (const port of ports) if (before.some((b) => b['nodePort'] === port['nodePort'])) delete port['nodePort'];
    return [];
  }
  const { first, last } = options.nodePorts;
  const errors: FieldError[] = [];
  ports.forEach((port, i) => {
    const id = (n: unknown): string => `${String(n)}/${String(port['protocol'])}`;
    const kept = before.find((b) => b['port'] === port['port'] && b['protocol'] === port['protocol'])?.['nodePort'];
    port['nodePort'] ??= kept;
    const asked = port['nodePort'];
    if (asked) {
      if (Number(asked) < first || Number(asked) > last)
        errors.push(
          invalid(
            `spec.ports[${i}].nodePort`,
            asked,
            `provided port is not in the valid range. The range of valid ports is ${first}-${last}`,
          ),
        );
      else if (taken.has(id(asked)))
        errors.push(invalid(`spec.ports[${i}].nodePort`, asked, 'provided port is already allocated'));
    } else {
      const free = freePort(first, last, (n) => taken.has(id(n)), options.random);
      if (free === undefined)
        errors.push(invalid(`spec.ports[${i}].nodePort`, 0, 'failed to allocate a nodePort: range is full'));
      else port['nodePort'] = free;
    }
    taken.add(id(port['nodePort']));
  });
  return errors;
}

function freePort(
  first: number,
  last: number,
  isTaken: (n: number) => boolean,
  random: () => number,
): number | undefined {
  const count = last - first + 1;
  const start = Math.floor(random() * count);
  for (let i = 0; i < count; i++) {
    const port = first + ((start + i) % count);
    if (!isTaken(port)) return port;
  }
  return undefined;
}
