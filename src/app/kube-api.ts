import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { systemClock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import { type Logger, logger } from '#base/log.ts';
import { Undo } from '#base/undo.ts';
import { type KeyPair, makeAuthority, signClient, signServer } from '#cluster/api/authn/certificates.ts';
import { listen } from '#cluster/api/http/listener.ts';
import type { NodeProxy } from '#cluster/api/node-proxy.ts';
import { addressAt } from '#cluster/api/resources/allocate.ts';
import type { ApiServer } from '#cluster/api/server.ts';
import { startApi } from '#cluster/api/start.ts';
import { handleUpgrade } from '#cluster/api/streams/upgrade.ts';
import type { Figures } from '#cluster/api/verbs/figures.ts';
import { sealer } from '#cluster/store/seal.ts';
import type { Store } from '#storage/store.ts';

const DEFAULT_PORT = 6443;
export const DEFAULT_SERVICE_CIDR = '10.96.0.0/16';

/**
 * The API server with its keys and its socket, as the daemon and the tests start it. Under `directory`:
 *
 *     ca.json         the cluster's authority               written once, 0600
 *     tokens.json     signs service account tokens
 *     secrets.key     32 bytes, opens what is sealed at rest
 *     kubeconfig      for the administrator, rewritten at each start
 */
export interface KubeApiOptions {
  store: Store;
  directory: string;
  host?: string;
  port?: number;
  clock?: Clock;
  random?: () => number;
  log?: Logger;
  serviceCidr?: string;
  clusterDomain?: string;
  /** Address at which pods reach this host. Absent: pods do not. */
  nodeAddress?: string;
  nodes?: NodeProxy;
  figures?: Figures;
  shared?: boolean;
}

export interface KubeApi {
  server: ApiServer;
  /** `https://127.0.0.1:6443` */
  url: string;
  port: number;
  kubeconfigPath: string;
  authority: KeyPair;
  /** A kubeconfig for somebody else: a node (`system:node:NAME`, group `system:nodes`), a component, a test's user. */
  kubeconfigFor(user: string, groups: readonly string[]): string;
  close(): Promise<void>;
}

export async function startKubeApi(options: KubeApiOptions): Promise<KubeApi> {
  const { directory, clock = systemClock, log = logger('cluster:api'), random = Math.random } = options;
  const host = options.host ?? '127.0.0.1';
  const serviceCidr = options.serviceCidr ?? DEFAULT_SERVICE_CIDR;
  const domain = options.clusterDomain ?? 'cluster.local';
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const authority = await kept(join(directory, 'ca.json'), async () => makeAuthority('estiba-cluster', clock.now()));
  const signer = await kept(join(directory, 'tokens.json'), async () => makeAuthority('estiba-tokens', clock.now()));
  const { secretKey } = await kept(join(directory, 'secrets.key'), async () => ({
    secretKey: randomBytes(32).toString('base64'),
  }));

  const addresses = new Set([
    host,
    '127.0.0.1',
    '::1',
    addressAt(serviceCidr, 1),
    ...(options.nodeAddress ? [options.nodeAddress] : []),
  ]);
  const certificate = signServer(authority, {
    name: 'kubernetes',
    dnsNames: [
      'localhost',
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      `kubernetes.default.svc.${domain}`,
    ],
    addresses: [...addresses].filter((a) => a !== '0.0.0.0' && a !== '::'),
    nowMs: clock.now(),
  });
  const port = options.port || (options.port === 0 ? await freePort(host) : DEFAULT_PORT);
  await using undo = new Undo((what, error) => log.error(`${what} did not close`, { error: describeChain(error) }));
  const api = await startApi({
    store: options.store,
    sealer: sealer({ secretKey: Buffer.from(secretKey, 'base64'), prefixes: ['/registry/secrets/'] }),
    clock,
    random,
    log,
    serviceCidr,
    authority: authority.certificate,
    tokenKey: signer.key,
    issuer: `https://kubernetes.default.svc.${domain}`,
    ...(options.nodes ? { nodes: options.nodes } : {}),
    ...(options.figures ? { figures: options.figures } : {}),
    ...(options.shared === undefined ? {} : { shared: options.shared }),
    ...(options.nodeAddress ? { endpoint: { address: options.nodeAddress, port } } : {}),
  });
  undo.add('API server', () => api.stop());
  const onError = (error: unknown): void => log.error('request failed', { error: describeChain(error) });
  const places = host === '0.0.0.0' || !options.nodeAddress ? [host] : [...new Set([host, options.nodeAddress])];
  const listeners = await Promise.all(
    places.map((place) => {
      const opening = listen({
        server: api.server,
        host: place,
        port,
        certificate,
        authority: authority.certificate,
        upgrade: (request, socket, head) => {
          handleUpgrade({ server: api.server, request, socket, head, onError }).catch(onError);
        },
        onError,
      });
      return undo.acquire(`listener at ${place}`, opening, (listener) => listener.close());
    }),
  );
  const url = `https://${host === '0.0.0.0' ? '127.0.0.1' : host}:${port}`;
  const kubeconfigFor = (user: string, groups: readonly string[]): string =>
    kubeconfig({
      url,
      authority: authority.certificate,
      user,
      client: signClient(authority, { user, groups, nowMs: clock.now() }),
    });
  const kubeconfigPath = join(directory, 'kubeconfig');
  await writeFile(kubeconfigPath, kubeconfigFor('estiba-admin', ['system:masters']), { mode: 0o600 });
  undo.keep();
  return {
    server: api.server,
    url,
    port,
    kubeconfigPath,
    authority,
    kubeconfigFor,
    async close() {
      await Promise.all(listeners.map((listener) => listener.close()));
      api.stop();
    },
  };
}

/** The port stands in objects and certificates before anything listens: "any" is decided first. */
export function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, host, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

/** What a file holds, made and written once. */
export async function kept<T extends object>(path: string, make: () => Promise<T>): Promise<T> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as T;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  const made = await make();
  await writeFile(path, JSON.stringify(made), { mode: 0o600, flag: 'wx' });
  return made;
}

function kubeconfig(o: { url: string; authority: string; user: string; client: KeyPair }): string {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  return `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'estiba', cluster: { server: o.url, 'certificate-authority-data': base64(o.authority) } }],
      users: [
        {
          name: o.user,
          user: { 'client-certificate-data': base64(o.client.certificate), 'client-key-data': base64(o.client.key) },
        },
      ],
      contexts: [{ name: 'estiba', context: { cluster: 'estiba', user: o.user } }],
      'current-context': 'estiba',
    },
    null,
    2,
  )}\n`;
}
