import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

/** What is checked before anything is looked up, and what every answer says to the browser. Pure. */

export const KEY_HEADER = 'x-estiba-key';
/** Browsers send no headers of ours with a WebSocket; its list of protocols they do. */
export const LIVE_PROTOCOL = 'estiba.live';
const KEY_PROTOCOL = 'estiba.key.';

export type Refusal = { status: number; why: string };

/**
 * DNS rebinding: a page of evil.example whose name is turned to 127.0.0.1 reaches us with `Host: evil.example`. An address
 * in `Host` cannot come from a name, so any address is fine; of names only those that are surely this machine's.
 */
export function refuseHost(host: string | undefined, ownName: string): Refusal | undefined {
  const name = hostName(host ?? '');
  const fine =
    isIP(name) !== 0 || name === 'localhost' || name.endsWith('.localhost') || name === ownName.toLowerCase();
  return fine ? undefined : { status: 421, why: `this dashboard is not served as ${name || 'a request without Host'}` };
}

function hostName(host: string): string {
  const [, v6, name] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]*))(?::\d{1,5})?$/i.exec(host) ?? [];
  return (v6 ?? name ?? '').toLowerCase();
}

/**
 * Requests of other pages. A browser says where a request comes from in `Origin` and `Sec-Fetch-Site`; clients that are no
 * browsers say nothing, and need both secrets all the same.
 */
export function refuseOrigin(headers: IncomingHttpHeaders, scheme: 'http' | 'https'): Refusal | undefined {
  const { origin, host } = headers;
  if (origin !== undefined && origin !== `${scheme}://${host}`)
    return { status: 403, why: 'asked for by another page' };
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    return { status: 403, why: 'asked for by another page' };
  return undefined;
}

/** By port: two daemons of one machine share a browser's cookies. */
function cookieName(port: number): string {
  return `estiba_session_${port}`;
}

export function cookieOf(header: string | undefined, port: number): string | undefined {
  const name = cookieName(port);
  for (const pair of (header ?? '').split(';')) {
    const equals = pair.indexOf('=');
    if (equals > 0 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim();
  }
  return undefined;
}

export function keyOfProtocols(header: string | undefined): string | undefined {
  const offered = (header ?? '').split(',').map((protocol) => protocol.trim());
  return offered.find((protocol) => protocol.startsWith(KEY_PROTOCOL))?.slice(KEY_PROTOCOL.length);
}

export function sessionCookie(port: number, session: string, scheme: 'http' | 'https'): string {
  return `${cookieName(port)}=${session}; Path=/; HttpOnly; SameSite=Strict${scheme === 'https' ? '; Secure' : ''}`;
}

/**
 * Scripts and styles come from here and nowhere else. Styles with the page's nonce are xterm.js's: it writes its measures of
 * letters into a `<style>` of its own.
 */
export function securityHeaders(nonce = ''): Record<string, string> {
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    `style-src 'self'${nonce === '' ? '' : ` 'nonce-${nonce}'`}`,
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return {
    'Content-Security-Policy': policy.join('; '),
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Cache-Control': 'no-store',
  };
}
