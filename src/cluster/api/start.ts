import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { keyOf, ObjectStore, type Store } from '#cluster/store/objects.ts';
import { type Sealer, unsealed } from '#cluster/store/seal.ts';
import { Admission } from './admission/admission.ts';
import { rbacEscalation } from './admission/escalation.ts';
import { limitRanger } from './admission/limits.ts';
import {
  defaultIngressClass,
  defaultStorageClass,
  defaultTolerationSeconds,
  namespaceLifecycle,
  namespaceProtection,
  nodeDeleteRestriction,
  nodeRestriction,
  priority,
  serviceAccount,
} from './admission/plugins.ts';
import { resourceQuota } from './admission/quota.ts';
import { tokenIssuer } from './authn/tokens.ts';
import { Authorizer } from './authz/authorizer.ts';
import { bootstrap, furnishNamespace } from './bootstrap/bootstrap.ts';
import { Cache } from './cache/cache.ts';
import { type NodeProxy, noNodes } from './node-proxy.ts';
import { Registry } from './registry/registry.ts';
import { allocators } from './resources/allocate.ts';
import { resourceTable } from './resources/table.ts';
import { ApiServer } from './server.ts';
import type { Figures } from './verbs/figures.ts';

/** Everything the API server needs from outside; sockets come on top (`http/listener.ts`). */
export interface StartOptions {
  store: Store;
  /** Opens and seals secrets; without one they are stored as they are (tests, the simulation). */
  sealer?: Sealer;
  clock: Clock;
  /** 0 ≤ x < 1 */
  random: () => number;
  log: Logger;
  serviceCidr: string;
  nodePorts?: { first: number; last: number };
  /** PEM of the cluster's authority, for `kube-root-ca.crt`. */
  authority: string;
  /** PEM, EC P-256: signs service account tokens. */
  tokenKey: string;
  issuer?: string;
  nodes?: NodeProxy;
  figures?: Figures;
  /** More than one API server writes to the store. */
  shared?: boolean;
  /** Where pods reach this server. */
  endpoint?: { address: string; port: number };
  storageProvisioner?: string;
  ingressController?: string;
}

export interface RunningApi {
  server: ApiServer;
  stop(): void;
}

const DEFAULT_NODE_PORTS = { first: 30000, last: 32767 };

/** Loads the store, starts following it, and sees to the objects a cluster always has. When it resolves, requests succeed. */
export async function startApi(options: StartOptions): Promise<RunningApi> {
  const { clock, random, log } = options;
  const store = new ObjectStore(options.store, options.sealer ?? unsealed);
  let broken = false;
  const cache = new Cache({
    store,
    clock,
    shared: options.shared ?? false,
    onBroken: (error) => {
      broken = true;
      log.error('the watch of the store ended', { error: String(error) });
    },
  });
  await cache.start();
  const authorizer = new Authorizer(cache);
  const admission = new Admission({
    mutating: [
      namespaceLifecycle(cache),
      nodeRestriction,
      limitRanger(cache),
      serviceAccount(cache, random),
      priority(cache),
      defaultTolerationSeconds,
      defaultStorageClass(cache),
      defaultIngressClass(cache),
    ],
    validating: [rbacEscalation(authorizer), resourceQuota(cache)],
    deleting: [namespaceProtection, nodeDeleteRestriction],
  });
  const table = resourceTable();
  const registry = new Registry({
    store,
    cache,
    clock,
    random,
    admission,
    allocators: allocators({
      serviceCidr: options.serviceCidr,
      nodePorts: options.nodePorts ?? DEFAULT_NODE_PORTS,
      services: () => cache.resource('services').all(),
      random,
    }),
  });
  const tokens = tokenIssuer({
    key: options.tokenKey,
    issuer: options.issuer ?? 'https://kubernetes.default.svc.cluster.local',
    clock,
    cache,
  });
  let ready = false;
  const server = new ApiServer({
    services: {
      registry,
      table,
      clock,
      random,
      authorizer,
      tokens,
      nodes: options.nodes ?? noNodes,
      ...(options.figures ? { figures: options.figures } : {}),
    },
    log,
    serverAddress: () => (options.endpoint ? `${options.endpoint.address}:${options.endpoint.port}` : ''),
    ready: () => ready && !broken,
  });
  const setup = {
    registry,
    table,
    authority: options.authority,
    serviceCidr: options.serviceCidr,
    endpoint: options.endpoint,
    storageProvisioner: options.storageProvisioner ?? 'estiba.dev/local',
    ingressController: options.ingressController ?? 'estiba.dev/ingress',
  };
  await bootstrap(setup);
  // From here on every new namespace gets its account and authority, whoever made it.
  const unfollow = cache.resource('namespaces').subscribe(cache.revision, (event) => {
    if (event.type !== 'ADDED' || event.object.metadata.deletionTimestamp !== undefined) return;
    furnishNamespace(setup, event.object.metadata.name).catch((error: unknown) => {
      const gone =
        isCode(error, 'KUBE_FORBIDDEN', 'KUBE_NOTFOUND') ||
        !cache.resource('namespaces').get(keyOf('namespaces', { name: event.object.metadata.name }));
      if (!gone)
        log.error('a namespace has no default account', {
          namespace: event.object.metadata.name,
          error: String(error),
        });
    });
  });
  ready = true;
  return {
    server,
    stop() {
      unfollow();
      cache.stop();
    },
  };
}
