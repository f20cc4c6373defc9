import { DNS_ADDRESS } from '#network/edge.ts';
import type { DnsSettings } from '#network/model.ts';

/** `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, as text. */
export interface HostsInput {
  hostname: string;
  domain?: string;
  /** The container's own addresses, one line each. */
  addresses: readonly string[];
  /** `name:address` as the user gave them, and links of the default bridge. */
  extra: readonly { names: readonly string[]; address: string }[];
}

export function hostsFile(input: HostsInput): string {
  const own = input.domain ? `${input.hostname}.${input.domain} ${input.hostname}` : input.hostname;
  return [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...input.extra.map(({ names, address }) => `${address}\t${names.join(' ')}`),
    ...input.addresses.map((address) => `${address}\t${own}`),
    '',
  ].join('\n');
}

/** `host` is the host's own resolv.conf, parsed; a wish replaces its part of it. */
export function resolvFile(wish: DnsSettings, host: DnsSettings, embedded: boolean): string {
  const usable = host.servers.filter((server) => !isLoopback(server));
  const servers = embedded
    ? [DNS_ADDRESS]
    : wish.servers.length > 0
      ? wish.servers
      : usable.length > 0
        ? usable
        : FALLBACK_SERVERS;
  const search = wish.search.length > 0 ? wish.search.filter((domain) => domain !== '.') : host.search;
  const options = [...(wish.options.length > 0 ? wish.options : host.options)];
  // Without it libc asks upstream for single-label names only after the search list; ours are single labels.
  if (embedded && !options.some((option) => option.startsWith('ndots:'))) options.push('ndots:0');
  return [
    ...servers.map((server) => `nameserver ${server}`),
    ...(search.length > 0 ? [`search ${search.join(' ')}`] : []),
    ...(options.length > 0 ? [`options ${options.join(' ')}`] : []),
    '',
  ].join('\n');
}

/** resolv.conf(5). */
export function parseResolv(text: string): DnsSettings {
  const servers: string[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && values[0]) servers.push(values[0]);
    else if (keyword === 'search' || keyword === 'domain') search = values;
    else if (keyword === 'options') options.push(...values);
  }
  return { servers, search, options };
}

/** A container's 127.0.0.53 is its own loopback, not the host's stub resolver. */
export function isLoopback(server: string): boolean {
  return server.startsWith('127.') || server === '::1';
}

/** What Docker falls back to when the host names only its own loopback. */
const FALLBACK_SERVERS = ['8.8.8.8', '8.8.4.4'];
