import { BlockList, isIP } from 'node:net';

/** HTTP_PROXY, HTTPS_PROXY and NO_PROXY in either case, as Go's programs read them; lower case wins. */
export interface ProxySettings {
  http?: URL;
  https?: URL;
  noProxy: readonly string[];
}

export function proxySettings(env: Readonly<Record<string, string | undefined>>): ProxySettings {
  const read = (name: string): string | undefined => env[name.toLowerCase()] || env[name] || undefined;
  // In a CGI program HTTP_PROXY may come from a request's `Proxy:` header (httpoxy, CVE-2016-5385); we are none.
  const http = parseProxy(read('HTTP_PROXY'));
  const https = parseProxy(read('HTTPS_PROXY'));
  const noProxy = (read('NO_PROXY') ?? '')
    .split(',')
    .map((s) => s.trim().toLowerCase())
    .filter((s) => s !== '');
  return { ...(http ? { http } : {}), ...(https ? { https } : {}), noProxy };
}

/** The proxy for a URL, or undefined for a direct connection. Loopback never goes through one. */
export function proxyFor(url: URL, settings: ProxySettings): URL | undefined {
  const proxy = url.protocol === 'https:' ? settings.https : settings.http;
  if (!proxy) return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || host.endsWith('.localhost') || LOOPBACK.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4'))
    return undefined;
  return settings.noProxy.some((entry) => excludes(entry, host, port)) ? undefined : proxy;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** `*`, an address, a CIDR range, `example.com` (and what is below it), `.example.com` (only below), each with an optional port. */
function excludes(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  const [, name = '', wantedPort] = /^(.*?)(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry) ?? [];
  if (wantedPort !== undefined && wantedPort !== port) return false;
  const bare = name.replace(/^\[|\]$/g, '');
  const range = /^(.+)\/(\d{1,3})$/.exec(bare);
  if (range) return inRange(host, range[1] ?? '', Number(range[2]));
  if (isIP(bare)) return bare === host;
  const suffix = bare.replace(/^\*\./, '.');
  return suffix.startsWith('.') ? host.endsWith(suffix) : host === suffix || host.endsWith(`.${suffix}`);
}

export function inRange(host: string, network: string, bits: number): boolean {
  const family = isIP(host);
  if (family === 0 || family !== isIP(network) || bits > (family === 6 ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, family === 6 ? 'ipv6' : 'ipv4');
  return list.check(host, family === 6 ? 'ipv6' : 'ipv4');
}

function parseProxy(text: string | undefined): URL | undefined {
  if (text === undefined) return undefined;
  // `proxy.corp:3128` is common; Go takes it for http.
  return new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
}
