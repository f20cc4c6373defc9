import { createSocket } from 'node:dgram';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connectClusterFeed, FEED } from '#app/edge-door.ts';
import { kept } from '#app/kube-api.ts';
import { routeServices } from '#app/service-range.ts';
import { sleep, systemClock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import { FeedSource } from '#base/feed.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { makeAuthority, signServer } from '#cluster/api/authn/certificates.ts';
import { addressAt } from '#cluster/api/resources/allocate.ts';
import type { ApiServer } from '#cluster/api/server.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import {
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  type KubeObject,
  keyOf,
  NODES,
  type Resource,
  SERVICES,
} from '#cluster/client/resources.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { publishNames } from '#cluster/dns/publisher.ts';
import type { SettingsEntry } from '#cluster/ingress/model.ts';
import { IngressPublisher } from '#cluster/ingress/publisher.ts';
import { Balancer } from '#cluster/proxy/balancer.ts';
import { HeldAddresses } from '#cluster/proxy/held-addresses.ts';
import { Policies } from '#cluster/proxy/policies.ts';
import { Proxy } from '#cluster/proxy/proxy.ts';
import { findNetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { parseCidr } from '#kernel/netlink/ip.ts';
import { SERVICE_NAME_LABEL } from '#spec/kubernetes/endpoints.ts';

export interface ServicesWish {
  api: ApiServer;
  /** Names the table `<daemon>-services`. */
  daemon: string;
  dataRoot: string;
  runRoot: string;
  nodeName: string;
  /** Address of the host that pods reach: the name server is there. */
  gateway: string;
  podCidr: string;
  serviceCidr: string;
  clusterDomain: string;
  ingress: SettingsEntry;
  /** Addresses for Services of type LoadBalancer. */
  lbPool?: string;
  /** How long at most a pod's end waits until nothing leads to it; 0: not at all. */
  drainMs: number;
  /** This program's own way to say `estiba edge --run-root R`. */
  edgeCommand: readonly [string, ...string[]];
}

/** Services, names and Ingress of this node. */
export interface RunningServices {
  /** Address of the cluster's name server, for `/etc/resolv.conf` of pods. */
  clusterDns: string;
  /**
   * Resolves when nothing leads to these addresses any more: not the kernel, not the ingress proxy. After `drainMs` it
   * resolves in any case. What a pod waits for between its end being wished and its SIGTERM.
   */
  drained(ips: readonly string[]): Promise<void>;
  /** The kernel's table and the edge process go on; the next start takes them over. */
  close(): Promise<void>;
  /** Takes the kernel's table away: for uninstalling, and for tests. */
  remove(): Promise<void>;
}

/** Connections that the kernel set up before the change lie in the program's backlog: it needs a moment to take them. */
const DRAIN_SETTLE_MS = 100;
/** The tenth address of the Services' range is the name server's, by custom. */
const DNS_NTH = 10;
/** Not 53: the host's own name server may be there. Pods ask the Service's address, whose port is 53. */
const DNS_PORT = 10_053;
const SYSTEM = ['system:masters', 'system:authenticated'];

export async function startServices(wish: ServicesWish): Promise<RunningServices> {
  const [clock, random] = [systemClock, systemRandom];
  const transport = new InProcessTransport(wish.api, { username: 'system:kube-proxy', groups: SYSTEM });
  const client = new KubeClient(transport, { fieldManager: 'estiba-services' });
  const view = new ClusterView({ client, clock, random, log: logger('cluster:proxy') });
  const events = (component: string): EventRecorder =>
    new EventRecorder({ client, clock, log: logger('cluster:proxy'), component, host: wish.nodeName });
  let closing = false;
  const kernel = spawnNetHand(findNetHand(), () => {
    if (closing) return;
    logger('cluster:proxy').error(
      'estiba-net ended: without it Services do not follow; the daemon stops, to be started again',
    );
    process.exit(1);
  });

  const { daemon } = wish;
  const policies = new Policies({ view, kernel, clock, log: logger('cluster:proxy'), daemon });
  const proxy = new Proxy({
    view,
    kernel,
    clock,
    log: logger('cluster:proxy'),
    events: events('estiba-proxy'),
    nodeName: wish.nodeName,
    hostPublishes: wish.lbPool === undefined,
    table: { daemon: wish.daemon, serviceCidrs: [wish.serviceCidr], podCidrs: [wish.podCidr] },
    others: [policies],
  });
  const balancer = new Balancer({
    view,
    kernel,
    clock,
    log: logger('cluster:proxy'),
    events: events('estiba-balancer'),
    pool: wish.lbPool === undefined ? undefined : parseCidr(wish.lbPool),
    nodeAddresses: () => addressesOf(view, wish.nodeName),
    portInUse,
    held: new HeldAddresses(wish.runRoot),
  });
  const feed = new FeedSource({
    clock,
    log: logger('app'),
    connect: () => connectClusterFeed(wish.runRoot, wish.edgeCommand),
  });
  const names = feed.topic(FEED.dns);
  publishNames(view, names, {
    domain: wish.clusterDomain,
    listen: [{ ip: wish.gateway, port: DNS_PORT }],
    upstreams: [],
  });
  const authority = await ingressAuthority(wish, client);
  const ingress = new IngressPublisher({
    view,
    topic: feed.topic(FEED.ingress),
    clock,
    log: logger('cluster:ingress'),
    events: events('estiba-ingress'),
    settings: wish.ingress,
    addresses: () => addressesOf(view, wish.nodeName),
    issue: (host) => signServer(authority, { name: host, dnsNames: [host], addresses: [], nowMs: clock.now() }),
  });

  const clusterDns = addressAt(wish.serviceCidr, DNS_NTH);
  await nameService(client, clusterDns, wish.gateway);
  await view.start();
  await proxy.start();
  const unroute = await routeServices(kernel, wish);
  balancer.start();
  names.declare();
  ingress.start();

  return {
    clusterDns,
    async drained(ips) {
      const { drainMs } = wish;
      if (drainMs === 0) return;
      const bound = sleep(clock, drainMs);
      const gone = Promise.all(ips.flatMap((ip) => [proxy.drained(ip, drainMs), ingress.drained(ip)])).then(() =>
        sleep(clock, DRAIN_SETTLE_MS),
      );
      await Promise.race([bound, gone]);
    },
    async close() {
      closing = true;
      await ingress.stop();
      await balancer.stop();
      await policies.stop();
      await proxy.stop();
      await view.stop();
      feed.close();
      kernel.close();
    },
    async remove() {
      await balancer.remove();
      await unroute();
      await policies.stop();
      await proxy.remove();
    },
  };
}

/** Found by trying: what the kernel refuses to bind, somebody has. SCTP cannot be tried from here. */
async function portInUse(protocol: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void =>
      error.code === 'EADDRINUSE' ? resolve(true) : reject(error);
    if (protocol === 'tcp') {
      const server = createServer().once('error', failed);
      server.listen({ port, host: '0.0.0.0', exclusive: true }, () => server.close(() => resolve(false)));
    } else if (protocol === 'udp') {
      const socket = createSocket('udp4').once('error', failed);
      socket.bind({ port, exclusive: true }, () => socket.close(() => resolve(false)));
    } else resolve(false);
  });
}

/** Where clients reach this node. */
function addressesOf(view: ClusterView, nodeName: string): string[] {
  const addresses = view.of(NODES).get(nodeName)?.status?.addresses ?? [];
  return addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address);
}

/** Signs for hosts without a certificate of their own; `D/kube/ingress-ca.json`, shown in `kube-public/estiba-ingress-ca`. */
async function ingressAuthority(
  wish: ServicesWish,
  client: KubeClient,
): ReturnType<typeof kept<ReturnType<typeof makeAuthority>>> {
  const path = join(wish.dataRoot, 'kube', 'ingress-ca.json');
  const authority = await kept(path, async () => makeAuthority('estiba-ingress', systemClock.now()));
  await writeFile(join(wish.runRoot, 'ingress-ca.crt'), authority.certificate);
  await ensure(client, CONFIG_MAPS, {
    metadata: { namespace: 'kube-public', name: 'estiba-ingress-ca' },
    data: { 'ca.crt': authority.certificate },
  });
  return authority;
}

/** The Service `kube-system/kube-dns`, with the edge process as its endpoint. */
async function nameService(client: KubeClient, address: string, gateway: string): Promise<void> {
  const metadata = { namespace: 'kube-system', name: 'kube-dns' };
  const port = (name: string, protocol: 'TCP' | 'UDP') => ({ name, protocol, port: 53, targetPort: DNS_PORT });
  await ensure(client, SERVICES, {
    metadata: { ...metadata, labels: { 'k8s-app': 'kube-dns', 'kubernetes.io/name': 'estiba-dns' } },
    spec: { clusterIP: address, ports: [port('dns', 'UDP'), port('dns-tcp', 'TCP')] },
  });
  await ensure(client, ENDPOINT_SLICES, {
    metadata: { ...metadata, labels: { [SERVICE_NAME_LABEL]: metadata.name } },
    addressType: 'IPv4',
    endpoints: [{ addresses: [gateway], conditions: { ready: true } }],
    ports: [
      { name: 'dns', protocol: 'UDP', port: DNS_PORT },
      { name: 'dns-tcp', protocol: 'TCP', port: DNS_PORT },
    ],
  });
}

/** Made, or made anew: the object is ours alone, and what it says may have changed with the options of the daemon. */
async function ensure<T extends KubeObject>(client: KubeClient, resource: Resource<T>, wanted: T): Promise<void> {
  const present = await client.find(resource, keyOf(wanted));
  if (!present) {
    await client.create(resource, wanted);
    return;
  }
  const { resourceVersion, uid } = present.metadata;
  try {
    await client.update(resource, { ...wanted, metadata: { ...wanted.metadata, resourceVersion, uid } });
  } catch (error) {
    if (!isCode(error, 'KUBE_INVALID')) throw error;
    logger('app').warn('object not brought up to date', { key: keyOf(wanted), error: describeChain(error) });
  }
}
