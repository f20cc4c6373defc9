import { readFile } from 'node:fs/promises';
import type { SecureContextOptions, TlsOptions } from 'node:tls';
import { defineError, messageOf } from '#base/errors.ts';

/** Docker's flags: `--tls` speaks TLS, `--tlsverify` wants a client certificate that the CA has signed as well. */
export interface TlsWish {
  /** Undefined: not said. `false` allows an address that others reach to be served without. */
  tls?: boolean;
  verify: boolean;
  ca: string;
  cert: string;
  key: string;
}

export const CannotServeTls = defineError('TLS_FILES', (d: { flag: string; path: string; why: string }) => ({
  message: `${d.flag} ${d.path}: ${d.why}`,
  hint: 'PEM files are named by --tlscacert, --tlscert and --tlskey; they are looked for in /etc/estiba',
}));

export const OpenToAll = defineError('UNPROTECTED_ADDRESS', (d: { address: string }) => ({
  message: `tcp://${d.address} would let everyone who reaches it be root on this machine`,
  hint: 'use --tlsverify with certificates, or an address of the loopback; --tls=false serves it all the same',
}));

/** What an API server on TCP is to be: undefined is plain HTTP. */
export async function apiTls(wish: TlsWish): Promise<(TlsOptions & SecureContextOptions) | undefined> {
  if (!wish.verify && wish.tls !== true) return undefined;
  const [cert, key, ca] = await Promise.all([
    pem('--tlscert', wish.cert),
    pem('--tlskey', wish.key),
    wish.verify ? pem('--tlscacert', wish.ca) : undefined,
  ]);
  return {
    cert,
    key,
    minVersion: 'TLSv1.2',
    // A client that has sent all of its input says so by closing its side, and goes on reading.
    allowHalfOpen: true,
    ...(ca ? { ca, requestCert: true, rejectUnauthorized: true } : {}),
  } as TlsOptions & SecureContextOptions;
}

/** The socket is as good as root's password: no address that others reach without certificates, unless it is said twice. */
export function checkExposure({ host, port }: { host: string; port: number }, wish: TlsWish): void {
  if (wish.verify || wish.tls === false) return;
  if (!isLoopback(host)) throw new OpenToAll({ address: `${host}:${port}` });
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

async function pem(flag: string, path: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new CannotServeTls({ flag, path, why: messageOf(cause) }, { cause });
  }
  if (!text.includes('-----BEGIN ')) throw new CannotServeTls({ flag, path, why: 'is not PEM' });
  return text;
}
