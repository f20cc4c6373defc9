import { csvFields, type Json, pairs, unlessBare, unlessEmpty, withoutUndefined, wrong } from '#cli/commands/values.ts';
import type { Flags } from '#cli/verb.ts';

export interface Attachment {
  name: string;
  aliases: string[];
  links: string[];
  ip?: string;
  ip6?: string;
  linkLocal: string[];
  mac?: string;
  options: string[];
  gwPriority?: number;
}

/** `NetworkingConfig`: what each network is told. Flags without a network's name belong to the first. */
export function endpointsOf(flags: Flags): Json | undefined {
  const networks = [...flags.list('network'), ...flags.list('net')].map(attachmentOf);
  const first = networks[0] ?? { name: 'default', aliases: [], links: [], linkLocal: [], options: [] };
  first.aliases.push(...flags.list('network-alias'), ...flags.list('net-alias'));
  first.linkLocal.push(...flags.list('link-local-ip'));
  first.links.push(...(networks.length === 0 ? [] : flags.list('link')));
  const [ip, ip6, mac] = [flags.text('ip'), flags.text('ip6'), flags.text('mac-address')];
  if (ip !== undefined) first.ip = ip;
  if (ip6 !== undefined) first.ip6 = ip6;
  if (mac !== undefined) first.mac = mac;
  const all = networks.length === 0 ? [first] : networks;
  const endpoints = Object.fromEntries(all.map((n) => [n.name, endpointBody(n)]));
  const bare = all.length === 1 && Object.keys(endpointBody(first)).length === 0;
  return bare ? undefined : { EndpointsConfig: endpoints };
}

export function endpointBody(a: Attachment): Json {
  return withoutUndefined({
    Aliases: unlessEmpty(a.aliases),
    Links: unlessEmpty(a.links),
    MacAddress: a.mac,
    GwPriority: a.gwPriority,
    DriverOpts: unlessBare(pairs(a.options)),
    IPAMConfig: unlessBare(
      withoutUndefined({ IPv4Address: a.ip, IPv6Address: a.ip6, LinkLocalIPs: unlessEmpty(a.linkLocal) }),
    ),
  });
}

/** `NAME`, or `name=NAME,alias=…,ip=…`. */
function attachmentOf(written: string): Attachment {
  const bare: Attachment = { name: written, aliases: [], links: [], linkLocal: [], options: [] };
  if (!written.includes('=')) return bare;
  const out = { ...bare, name: '' };
  for (const part of csvFields(written)) {
    const [, key = '', value = ''] = /^([^=]+)=(.*)$/s.exec(part) ?? [];
    if (key === 'name') out.name = value;
    else if (key === 'alias') out.aliases.push(value);
    else if (key === 'ip') out.ip = value;
    else if (key === 'ip6') out.ip6 = value;
    else if (key === 'mac-address') out.mac = value;
    else if (key === 'link-local-ip') out.linkLocal.push(value);
    else if (key === 'driver-opt') out.options.push(value);
    else if (key === 'gw-priority' && /^-?\d{1,9}$/.test(value)) out.gwPriority = Number(value);
    else wrong('network', written, `unexpected key '${key}'`);
  }
  return out.name === '' ? wrong('network', written, 'has no name=') : out;
}
