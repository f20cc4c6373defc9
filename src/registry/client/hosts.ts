import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
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
 */
export function hostTls(options: {
  folders?: readonly string[];
  verify: (host: string) => boolean;
  env?: Readonly<Record<string, string | undefined>>;
}): (host: string) => Promise<HostTls> {
  let system: Promise<string[]> | undefined;
  return async (host) => {
    system ??= systemRoots(options.env ?? process.env);
    const verify = options.verify(host);
    const files = await filesOf(options.folders ?? CERTS_FOLDERS, host);
    const own = await Promise.all(files.filter((f) => f.endsWith('.crt')).map((f) => readFile(f, 'utf8')));
    const cert = files.find((f) => f.endsWith('.cert'));
    const key = cert && files.find((f) => f === cert.replace(/cert$/, 'key'));
    const client = cert && key ? { cert: await readFile(cert), key: await readFile(key) } : {};
    return { verify, ca: [...(await system), ...own], ...client };
  };
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

async function systemRoots(env: Readonly<Record<string, string | undefined>>): Promise<string[]> {
  const extra = EXTRA_CA_VARIABLES.map((name) => env[name]).find((path) => path);
  const own = extra ? [await readFile(extra, 'utf8')] : [];
  for (const path of SYSTEM_BUNDLES) {
    const bundle = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return undefined;
    });
    if (bundle !== undefined) return [...rootCertificates, bundle, ...own];
  }
  return [...rootCertificates, ...own];
}
