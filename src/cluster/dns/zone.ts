import { isIP } from 'node:net';
import type { NamedEndpoint, ServiceNames } from '#cluster/dns/records.ts';

/**
 * Names of the cluster (Kubernetes DNS-based service discovery 1.1.0). Pure: Services in, answers out.
 *
 *     web.shop.svc.<domain>                 A, AAAA   address of the Service; of headless ones: of every endpoint
 *     db-0.db.shop.svc.<domain>             A, AAAA   one endpoint of a headless Service, by hostname or dashed address
 *     _http._tcp.web.shop.svc.<domain>      SRV       port and name
 *     10-0-0-7.shop.pod.<domain>            A, AAAA   the address that the name spells
 *     5.0.96.10.in-addr.arpa                PTR       Services and endpoints of headless ones
 */
export type Data =
  | { type: 'A' | 'AAAA' | 'PTR' | 'CNAME'; data: string }
  | { type: 'SRV'; data: { priority: number; weight: number; port: number; target: string } }
  | { type: 'TXT'; data: string };

export type ZoneAnswer =
  | { kind: 'records'; records: Data[] }
  /** ExternalName: `records` holds the alias; the client wants to know the rest as well. */
  | { kind: 'alias'; target: string }
  /** The name exists, the type does not: NODATA keeps clients from asking elsewhere. */
  | { kind: 'nothing' }
  | { kind: 'noSuchName' }
  | { kind: 'notOurs' };

const SCHEMA_VERSION = '1.1.0';

export class ClusterZone {
  readonly domain: string;
  readonly #services = new Map<string, ServiceNames>();
  /** How many Services a namespace has: its name exists while there is one. */
  readonly #namespaces = new Map<string, number>();
  /** Address → who has it: Services first, then endpoints of headless ones by Service. */
  readonly #reverse = new Map<string, Map<string, string>>();

  constructor(domain: string) {
    this.domain = domain.toLowerCase();
  }

  set(key: string, names: ServiceNames): void {
    this.drop(key);
    this.#services.set(key, names);
    this.#namespaces.set(names.namespace, (this.#namespaces.get(names.namespace) ?? 0) + 1);
    for (const [address, name] of this.#reverseOf(names)) {
      const there = this.#reverse.get(address) ?? new Map<string, string>();
      there.set(key, name);
      this.#reverse.set(address, there);
    }
  }

  drop(key: string): void {
    const names = this.#services.get(key);
    if (!names) return;
    this.#services.delete(key);
    const left = (this.#namespaces.get(names.namespace) ?? 1) - 1;
    if (left > 0) this.#namespaces.set(names.namespace, left);
    else this.#namespaces.delete(names.namespace);
    for (const [address] of this.#reverseOf(names)) {
      this.#reverse.get(address)?.delete(key);
      if (this.#reverse.get(address)?.size === 0) this.#reverse.delete(address);
    }
  }

  get size(): number {
    return this.#services.size;
  }

  /** `name` in any case, with or without the last dot. */
  answer(name: string, type: string): ZoneAnswer {
    const asked = name.toLowerCase().replace(/\.$/, '');
    if (asked.endsWith('.arpa')) return this.#backwards(asked, type);
    if (asked === this.domain) return NOTHING;
    if (!asked.endsWith(`.${this.domain}`)) return { kind: 'notOurs' };
    const labels = asked.slice(0, -this.domain.length - 1).split('.');
    const root = labels.pop();
    if (root === 'dns-version' && labels.length === 0)
      return type === 'TXT' ? records([{ type: 'TXT', data: SCHEMA_VERSION }]) : NOTHING;
    if (root === 'svc') return this.#service(labels, type);
    if (root === 'pod') return this.#pod(labels, type);
    return NO_SUCH_NAME;
  }

  #service(labels: string[], type: string): ZoneAnswer {
    const namespace = labels.pop();
    if (namespace === undefined) return NOTHING;
    const name = labels.pop();
    if (name === undefined) return this.#namespaces.has(namespace) ? NOTHING : NO_SUCH_NAME;
    const service = this.#services.get(`${namespace}/${name}`);
    if (!service) return NO_SUCH_NAME;
    if (service.alias !== undefined)
      return labels.length === 0 ? { kind: 'alias', target: service.alias } : NO_SUCH_NAME;
    if (labels.length === 0) {
      if (type === 'SRV') return some(this.#portsOf(service, undefined, undefined));
      return some(addressesOf(service, type));
    }
    const [first = '', second] = labels;
    if (labels.length === 1 && first.startsWith('_')) return NO_SUCH_NAME;
    if (labels.length === 1) {
      const found = service.endpoints.filter((endpoint) => labelOf(endpoint) === first);
      return found.length === 0 ? NO_SUCH_NAME : some(found.flatMap((e) => address(e.ip, type)));
    }
    if (labels.length !== 2 || !first.startsWith('_') || !second?.startsWith('_')) return NO_SUCH_NAME;
    const srv = this.#portsOf(service, first.slice(1), second.slice(1));
    if (srv.length === 0) return NO_SUCH_NAME;
    return type === 'SRV' ? records(srv) : NOTHING;
  }

  #portsOf(service: ServiceNames, port: string | undefined, protocol: string | undefined): Data[] {
    const wanted = (p: { name: string; protocol: string }): boolean =>
      p.name !== '' && (port === undefined || p.name === port) && (protocol === undefined || p.protocol === protocol);
    const full = this.#nameOf(service);
    const srv = (number: number, target: string, weight: number): Data => ({
      type: 'SRV',
      data: { priority: 0, weight, port: number, target },
    });
    if (!service.headless) return service.ports.filter(wanted).map((p) => srv(p.port, full, 100));
    const found = service.endpoints.flatMap((endpoint) =>
      endpoint.ports.filter(wanted).map((p) => ({ number: p.port, target: `${labelOf(endpoint)}.${full}` })),
    );
    return found.map(({ number, target }) => srv(number, target, Math.max(1, Math.floor(100 / found.length))));
  }

  /** `a-b-c-d.namespace.pod`: for certificates that name pods by address; the address is what the name says. */
  #pod(labels: string[], type: string): ZoneAnswer {
    const namespace = labels.pop();
    if (namespace === undefined) return NOTHING;
    const spelled = labels.pop();
    if (spelled === undefined) return this.#namespaces.has(namespace) ? NOTHING : NO_SUCH_NAME;
    const ip = [spelled.replaceAll('-', '.'), spelled.replaceAll('-', ':')].find((text) => isIP(text) > 0);
    if (labels.length > 0 || ip === undefined) return NO_SUCH_NAME;
    return some(address(ip, type));
  }

  #backwards(asked: string, type: string): ZoneAnswer {
    const ip = addressOfReverse(asked);
    const names = ip === undefined ? undefined : this.#reverse.get(ip);
    if (!names || names.size === 0) return { kind: 'notOurs' };
    if (type !== 'PTR') return NOTHING;
    return records([...new Set(names.values())].map((data) => ({ type: 'PTR', data })));
  }

  #reverseOf(names: ServiceNames): [address: string, name: string][] {
    const full = this.#nameOf(names);
    return [
      ...names.addresses.map((ip): [string, string] => [canonical(ip), full]),
      ...names.endpoints.map((e): [string, string] => [canonical(e.ip), `${labelOf(e)}.${full}`]),
    ];
  }

  #nameOf({ name, namespace }: ServiceNames): string {
    return `${name}.${namespace}.svc.${this.domain}`;
  }
}

const NOTHING: ZoneAnswer = { kind: 'nothing' };
const NO_SUCH_NAME: ZoneAnswer = { kind: 'noSuchName' };

function records(list: Data[]): ZoneAnswer {
  return { kind: 'records', records: list };
}

function some(list: Data[]): ZoneAnswer {
  return list.length === 0 ? NOTHING : records(list);
}

function addressesOf(service: ServiceNames, type: string): Data[] {
  const all = service.headless ? service.endpoints.map((e) => e.ip) : service.addresses;
  return all.flatMap((ip) => address(ip, type));
}

function address(ip: string, type: string): Data[] {
  const of = isIP(ip) === 6 ? 'AAAA' : 'A';
  return type === of ? [{ type: of, data: ip }] : [];
}

/** An endpoint without a hostname is known by its address, in dashes. */
function labelOf({ hostname, ip }: NamedEndpoint): string {
  return (hostname ?? ip.replace(/[.:]+/g, '-')).toLowerCase();
}

/** `4.3.2.1.in-addr.arpa` or the nibbles of ip6.arpa (RFC 1035 3.5, RFC 3596 2.5) as an address. */
function addressOfReverse(name: string): string | undefined {
  const v4 = name.match(/^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/);
  if (v4) return canonical(`${v4[4]}.${v4[3]}.${v4[2]}.${v4[1]}`);
  const v6 = name.match(/^((?:[0-9a-f]\.){32})ip6\.arpa$/);
  if (!v6?.[1]) return undefined;
  const digits = v6[1].split('.').filter(Boolean).reverse().join('');
  return canonical(digits.replace(/(....)(?=.)/g, '$1:'));
}

/** One spelling for each IPv6 address: what URL parsers write in brackets. */
function canonical(ip: string): string {
  return isIP(ip) === 6 ? new URL(`http://[${ip}]`).hostname.slice(1, -1) : ip;
}
