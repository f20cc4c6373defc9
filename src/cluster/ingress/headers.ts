import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';

/** Of one connection, not of the message (RFC 9110 7.6.1); `connection` may name more. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/** What the world tells about the client is replaced: a header anybody can write proves nothing. */
const TOLD = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-forwarded-port', 'x-real-ip', 'forwarded'];

export interface Client {
  address: string;
  host: string;
  secure: boolean;
  port: number;
}

/** Headers as the backend gets them. */
export function forwardHeaders(headers: IncomingHttpHeaders, client: Client): OutgoingHttpHeaders {
  const out = endToEnd(headers);
  for (const name of TOLD) delete out[name];
  return {
    ...out,
    host: client.host,
    'x-forwarded-for': client.address,
    'x-real-ip': client.address,
    'x-forwarded-host': client.host,
    'x-forwarded-proto': client.secure ? 'https' : 'http',
    'x-forwarded-port': String(client.port),
  };
}

/** Headers of either direction without those of the connection, and without HTTP/2's own. */
export function endToEnd(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  const out: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined && !name.startsWith(':') && !HOP_BY_HOP.has(name) && !named.has(name)) out[name] = value;
  // A client may ask for trailers; that one word of TE is end to end.
  if (typeof headers['te'] === 'string' && /\btrailers\b/i.test(headers['te'])) out['te'] = 'trailers';
  return out;
}

/** May be made twice with the effect of once (RFC 9110 9.2.2). */
export function isIdempotent(method: string): boolean {
  return ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'].includes(method);
}

/** `host:port`, `[v6]:port` → the host. */
export function hostOf(authority: string): string {
  if (authority.startsWith('[')) return authority.slice(0, authority.indexOf(']') + 1);
  const colon = authority.lastIndexOf(':');
  return colon < 0 ? authority : authority.slice(0, colon);
}
