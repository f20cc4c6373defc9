import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeSettings } from '#cluster/node/seams.ts';
import type { Pod, PodDNSConfigOption } from '#spec/kubernetes/types.gen.ts';

/** The three files every container of a pod has from its node. */
export interface PodFiles {
  hosts: string;
  hostname: string;
  'resolv.conf': string;
}

const LOCALHOST = [
  '127.0.0.1\tlocalhost',
  '::1\tlocalhost ip6-localhost ip6-loopback',
  'fe00::0\tip6-localnet',
  'fe00::0\tip6-mcastprefix',
  'fe00::1\tip6-allnodes',
  'fe00::2\tip6-allrouters',
];
const MOST_SEARCHES = 32;
const HOSTNAME_BYTES = 63;

/** The pod's own host name, and its full name when it has a subdomain. Pure. */
export function podNames(pod: Pod, domain: string): { hostname: string; fqdn: string | undefined } {
  const { metadata, spec } = pod;
  const short = (spec.hostname || metadata.name || '').slice(0, HOSTNAME_BYTES).replace(/[-.]+$/, '');
  const fqdn = spec.subdomain ? `${short}.${spec.subdomain}.${metadata.namespace ?? ''}.svc.${domain}` : undefined;
  return { hostname: spec.hostnameOverride ?? (spec.setHostnameAsFQDN && fqdn ? fqdn : short), fqdn };
}

/** Pure. `host`: the node's own files, for pods that live in its network or ask its resolvers. */
export function podFiles(
  pod: Pod,
  ips: readonly string[],
  settings: Pick<NodeSettings, 'clusterDomain' | 'clusterDns'>,
  host: { hosts: string; resolv: string },
): PodFiles {
  const { spec } = pod;
  const { hostname, fqdn } = podNames(pod, settings.clusterDomain);
  const own = ips.map((ip) => `${ip}\t${fqdn && fqdn !== hostname ? `${fqdn}\t${hostname}` : hostname}`);
  const aliases = (spec.hostAliases ?? []).map(({ ip, hostnames = [] }) => [ip, ...hostnames].join('\t'));
  const lines = spec.hostNetwork
    ? ['# Kubernetes-managed hosts file (host network).', host.hosts.trimEnd()]
    : ['# Kubernetes-managed hosts file.', ...LOCALHOST, ...own];
  const added = aliases.length > 0 ? ['', '# Entries added by HostAliases.', ...aliases] : [];
  return {
    hosts: `${[...lines, ...added].join('\n')}\n`,
    hostname: `${hostname}\n`,
    'resolv.conf': resolvConf(pod, settings, host.resolv),
  };
}

function resolvConf(
  { spec, metadata }: Pod,
  settings: Pick<NodeSettings, 'clusterDomain' | 'clusterDns'>,
  hostText: string,
): string {
  const policy = spec.dnsPolicy ?? 'ClusterFirst';
  const ofHost = parse(hostText);
  const clusterFirst = policy === 'ClusterFirstWithHostNet' || (policy === 'ClusterFirst' && !spec.hostNetwork);
  const domain = settings.clusterDomain;
  const base =
    policy === 'None'
      ? { nameservers: [], searches: [], options: [] }
      : clusterFirst && settings.clusterDns !== undefined
        ? {
            nameservers: [settings.clusterDns],
            searches: [`${metadata.namespace ?? ''}.svc.${domain}`, `svc.${domain}`, domain, ...ofHost.searches],
            options: [{ name: 'ndots', value: '5' }],
          }
        : ofHost;
  const config = spec.dnsConfig ?? {};
  const unique = (list: string[]): string[] => [...new Set(list)];
  const nameservers = unique([...base.nameservers, ...(config.nameservers ?? [])]).slice(0, 3);
  const searches = unique([...base.searches, ...(config.searches ?? [])]).slice(0, MOST_SEARCHES);
  const options = new Map<string, PodDNSConfigOption>();
  for (const option of [...base.options, ...(config.options ?? [])]) options.set(option.name ?? '', option);
  const words = [...options.values()].map(({ name = '', value }) => (value ? `${name}:${value}` : name));
  return [
    ...(searches.length > 0 ? [`search ${searches.join(' ')}`] : []),
    ...nameservers.map((server) => `nameserver ${server}`),
    ...(words.length > 0 ? [`options ${words.join(' ')}`] : []),
    '',
  ].join('\n');
}

/** resolv.conf(5). The host's own loopback is another one inside a pod. */
function parse(text: string): { nameservers: string[]; searches: string[]; options: PodDNSConfigOption[] } {
  const result = { nameservers: [] as string[], searches: [] as string[], options: [] as PodDNSConfigOption[] };
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, '')
      .trim()
      .split(/\s+/);
    const [first = ''] = values;
    if (keyword === 'nameserver' && !first.startsWith('127.') && first !== '::1') result.nameservers.push(first);
    else if (keyword === 'search' || keyword === 'domain') result.searches = values;
    else if (keyword === 'options')
      result.options = values.map((word) => {
        const [name = '', value] = word.split(':');
        return value === undefined ? { name } : { name, value };
      });
  }
  return result;
}

/** Writes them into `dir`, on a tmpfs; answers path in the container → source. */
export function writePodFiles(dir: string, files: PodFiles): Map<string, string> {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const places = new Map<string, string>();
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(dir, name), text, { mode: 0o644 });
    places.set(`/etc/${name}`, join(dir, name));
  }
  return places;
}

/** Read for each pod: whoever changes them wants the next pod to see it. */
export function readHostFiles(): { hosts: string; resolv: string } {
  return { hosts: readFileSync('/etc/hosts', 'utf8'), resolv: readFileSync('/etc/resolv.conf', 'utf8') };
}
