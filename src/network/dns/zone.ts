import { formatIp, ipBytes, ipFromBytes, tryParseIp } from '#kernel/netlink/ip.ts';
import type { EdgeEntry, EdgePlace } from '#network/edge.ts';

/**
 * Names of containers, seen from one of them. Pure: entries in, answers out. A name is known within a network, with several
 * addresses when several containers bear it (compose's scaled services); who asks sees the networks it stands in.
 */
export type Answer =
  | { kind: 'addresses'; addresses: string[] }
  | { kind: 'name'; name: string }
  /** Ours, but not of the type asked for: the empty answer, which keeps clients from asking elsewhere. */
  | { kind: 'nothing' }
  | { kind: 'refuse' }
  | { kind: 'forward'; upstreams: readonly string[] };

interface NetworkNames {
  /** Lower-case name → address → how many entries say so. */
  addresses: Map<string, Map<string, number>>;
  /** Address → full name. */
  reverse: Map<string, string>;
}

export class Zone {
  readonly #entries = new Map<string, EdgeEntry>();
  readonly #networks = new Map<string, NetworkNames>();

  put(entry: EdgeEntry): void {
    this.drop(entry.id);
    this.#entries.set(entry.id, entry);
    this.#each(entry, (names, name, address) => {
      const known = names.addresses.get(name) ?? new Map<string, number>();
      known.set(address, (known.get(address) ?? 0) + 1);
      names.addresses.set(name, known);
    });
    for (const place of entry.places) {
      const [first] = place.names;
      for (const address of place.addresses)
        if (first !== undefined)
          this.#namesOf(place.network).reverse.set(canonical(address), `${first}.${place.domain}`);
    }
  }

  drop(id: string): void {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#entries.delete(id);
    this.#each(entry, (names, name, address) => {
      const known = names.addresses.get(name);
      const left = (known?.get(address) ?? 1) - 1;
      if (left > 0) known?.set(address, left);
      else known?.delete(address);
      if (known?.size === 0) names.addresses.delete(name);
    });
    for (const place of entry.places) {
      const names = this.#namesOf(place.network);
      for (const address of place.addresses) names.reverse.delete(canonical(address));
      if (names.addresses.size === 0 && names.reverse.size === 0) this.#networks.delete(place.network);
    }
  }

  get(id: string): EdgeEntry | undefined {
    return this.#entries.get(id);
  }

  entries(): EdgeEntry[] {
    return [...this.#entries.values()];
  }

  answer(asker: string, name: string, type: string): Answer {
    const entry = this.#entries.get(asker);
    if (!entry) return { kind: 'refuse' };
    const outside: Answer = entry.forward ? { kind: 'forward', upstreams: entry.upstreams } : { kind: 'refuse' };
    const asked = name.toLowerCase().replace(/\.$/, '');
    const networks = entry.places.flatMap((place) => this.#networks.get(place.network) ?? []);
    const linked = entry.places.flatMap((place) => this.#linked(place, asked));
    if (type === 'PTR') {
      const address = addressOfReverse(asked);
      const found = networks.map((names) => address && names.reverse.get(address)).find(Boolean);
      return found ? { kind: 'name', name: found } : outside;
    }
    const found =
      linked.length > 0 ? linked : networks.flatMap((names) => [...(names.addresses.get(asked)?.keys() ?? [])]);
    if (found.length === 0) return outside;
    const wanted = found.filter((address) => address.includes(':') === (type === 'AAAA'));
    if ((type !== 'A' && type !== 'AAAA') || wanted.length === 0) return { kind: 'nothing' };
    return { kind: 'addresses', addresses: [...new Set(wanted)] };
  }

  /** Where a link leads now: its target may have started again since. */
  #linked({ network, domain, links = {} }: EdgePlace, asked: string): string[] {
    const suffix = `.${domain.toLowerCase()}`;
    const alias = asked.endsWith(suffix) ? asked.slice(0, -suffix.length) : asked;
    const target = Object.hasOwn(links, alias) ? links[alias]?.toLowerCase() : undefined;
    return target === undefined ? [] : [...(this.#networks.get(network)?.addresses.get(target)?.keys() ?? [])];
  }

  #each(entry: EdgeEntry, fn: (names: NetworkNames, name: string, address: string) => void): void {
    for (const place of entry.places) {
      const names = this.#namesOf(place.network);
      for (const name of new Set(place.names.map((n) => n.toLowerCase())))
        for (const address of place.addresses) {
          fn(names, name, canonical(address));
          fn(names, `${name}.${place.domain.toLowerCase()}`, canonical(address));
        }
    }
  }

  #namesOf(network: string): NetworkNames {
    const known = this.#networks.get(network) ?? { addresses: new Map(), reverse: new Map() };
    this.#networks.set(network, known);
    return known;
  }
}

/** `4.3.2.1.in-addr.arpa` or the nibbles of ip6.arpa (RFC 1035 3.5, RFC 3596 2.5) as an address. */
export function addressOfReverse(name: string): string | undefined {
  const v4 = name.match(/^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/);
  if (v4) {
    const ip = tryParseIp(`${v4[4]}.${v4[3]}.${v4[2]}.${v4[1]}`);
    return ip && formatIp(ip);
  }
  const v6 = name.match(/^((?:[0-9a-f]\.){32})ip6\.arpa$/);
  if (!v6?.[1]) return undefined;
  const digits = v6[1].split('.').filter(Boolean).reverse().join('');
  return formatIp(ipFromBytes(Uint8Array.from(Buffer.from(digits, 'hex'))));
}

/** The name that asks for an address backwards. */
export function reverseOf(address: string): string {
  const ip = tryParseIp(address);
  if (!ip) return '';
  const bytes = [...ipBytes(ip)].reverse();
  if (ip.family === 4) return `${bytes.join('.')}.in-addr.arpa`;
  return `${bytes.map((byte) => `${(byte & 15).toString(16)}.${(byte >> 4).toString(16)}`).join('.')}.ip6.arpa`;
}

function canonical(address: string): string {
  const ip = tryParseIp(address);
  return ip ? formatIp(ip) : address;
}
