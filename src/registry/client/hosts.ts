import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { errnoOf } from '#base/errors.ts';
import type { HostTls } from '#registry/client/transport.ts';

/** Docker's and Podman's folders; the first one that has the host's counts. */
export const CERTS_FOLDERS: readonly string[] = [
  '/etc/estiba/certs.d',
  '/etc/docker/certs.d',
  '/etc/containers/certs.d',
];
/** Where distributions keep what the machine's owner trusts: a company's own CA is here, not among Node's. */
const SYSTEM_BUNDLES = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem'];

/**
 * TLS for a host, from `certs.d/<host[:port]>/`: every `*.crt` is a CA to trust besides the system's, `x.cert` with `x.key`
 * is a client certificate.
 *
 * A context is made once for a host, and shared where hosts need nothing of their own: Node would make one for every
 * connection, and with a list of CAs each takes 55 ms of the event loop.
 */
export function hostTls(options: {
  folders?: readonly string[];
  verify: (host: string) => boolean;
  env?: Readonly<Record<string, string | undefined>>;
}): (host: string) => Promise<HostTls> {
  const env = options.env ?? process.env;
  let extra: Promise<string[]> | undefined;
  let common: SecureContext | undefined;
  return async (host) => {
    const verify = options.verify(host);
    const files = await filesOf(options.folders ?? CERTS_FOLDERS, host);
    const cert = files.find((f) => f.endsWith('.cert'));
    const key = cert && files.find((f) => f === cert.replace(/cert$/, 'key'));
    const client = cert && key ? { cert: await readFile(cert), key: await readFile(key) } : {};
    if (!verify) return { verify, secureContext: createSecureContext({ ca: [], ...client }) };
    extra ??= extraRoots(env);
    const system = await extra;
    const own = await Promise.all(files.filter((f) => f.endsWith('.crt')).map((f) => readFile(f, 'utf8')));
    if (own.length > 0 || cert) return { verify, secureContext: trusting([...system, ...own], client) };
    common ??= trusting(system, {});
    return { verify, secureContext: common };
  };
}

/**
 * Node's roots and some more. `ca` would replace its roots, and listing them all again is what costs 55 ms; added to the
 * context one by one, as Node itself does with `ca`, the roots are parsed once a process (9 ms) and the others 0.4 ms each.
 */
function trusting(extra: readonly string[], client: { cert?: Buffer; key?: Buffer }): SecureContext {
  const made = createSecureContext(client);
  const native: { addCACert(pem: string): void } = made.context;
  for (const pem of extra) native.addCACert(pem);
  return made;
}

async function filesOf(folders: readonly string[], host: string): Promise<string[]> {
  for (const folder of folders) {
    // Names of hosts come from users: none of them may walk out of the folder.
    if (!/^[\w.:[\]-]+$/.test(host) || host.includes('..')) return [];
    const directory = join(folder, host);
    const names = await readdir(directory).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error;
      return undefined;
    });
    if (names) return names.sort().map((name) => join(directory, name));
  }
  return [];
}

/** The launchers move NODE_EXTRA_CA_CERTS to this name, since it costs every start 45 ms; here is where a CA is needed. */
const EXTRA_CA_VARIABLES = ['ESTIBA_EXTRA_CA_CERTS', 'NODE_EXTRA_CA_CERTS'] as const;

/** CAs that the machine's owner trusts and Node does not bring. */
async function extraRoots(env: Readonly<Record<string, string | undefined>>): Promise<string[]> {
  const extra = EXTRA_CA_VARIABLES.map((name) => env[name]).find((path) => path);
  const texts = extra ? [await readFile(extra, 'utf8')] : [];
  for (const path of SYSTEM_BUNDLES) {
    const bundle = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return undefined;
    });
    if (bundle === undefined) continue;
    texts.push(bundle);
    break;
  }
  const known = new Set(rootCertificates.map(bare));
  return texts.flatMap((text) => text.match(CERTIFICATE) ?? []).filter((pem) => !known.has(bare(pem)));
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Line breaks differ between bundles. */
function bare(pem: string): string {
  return pem.replace(/\s/g, '');
}
