import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { IngressListen } from '#app/daemon-options.ts';
import { DEFAULT_SERVICE_CIDR, freePort, startKubeApi } from '#app/kube-api.ts';
import { edgeCommand, type Node } from '#app/node.ts';
import { nodeAgent, podNetwork, type RunningAgent } from '#app/node-agent.ts';
import { claimServiceRange } from '#app/service-range.ts';
import { startServices } from '#app/services.ts';
import { sleep, systemClock } from '#base/clock.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { type NodeProxy, noNodes } from '#cluster/api/node-proxy.ts';
import type { Figures } from '#cluster/api/verbs/figures.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { allControllers } from '#cluster/controllers/all.ts';
import { LocalVolumes } from '#cluster/node/local-volumes.ts';
import type { PodUsage, UsageMeter } from '#cluster/node/usage.ts';
import { Scheduler } from '#cluster/scheduler/scheduler.ts';
import { openEmbedded } from '#storage/embedded.ts';

export interface ControlPlaneOptions {
  dataRoot: string;
  runRoot: string;
  host: string;
  port: number;
  /** Absent: a control plane without a node of its own. */
  node?: Node;
  /** The node's name in the cluster; this host's own when absent. */
  nodeName?: string;
  podCidr?: string;
  serviceCidr?: string;
  clusterDomain: string;
  ingress: IngressListen | undefined;
  lbPool?: string;
  drainMs: number;
}

export interface ControlPlane {
  url: string;
  kubeconfigPath: string;
  /** For parts of this process; with all rights. */
  clientFor(user: string): KubeClient;
  /** The node agent beside it; for figures. */
  agent: RunningAgent | undefined;
  /** Where web applications are served. */
  ingress: { ingress: string; ingressTls: string } | undefined;
  close(): Promise<void>;
}

const STORAGE_PROVISIONER = 'estiba.dev/local';
const SYSTEM = ['system:masters', 'system:authenticated'];

/** API server, scheduler and controllers in this process, on the embedded store. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const clock = systemClock;
  const random = systemRandom;
  const log = logger('cluster:ctrl');
  await mkdir(options.runRoot, { recursive: true, mode: 0o700 });
  const store = await openEmbedded(join(options.dataRoot, 'cluster'), { clock, keepRevisions: 100_000 });
  const network = options.node && (await podNetwork(options.node, options.podCidr));
  let agent: RunningAgent | undefined;
  const { dataRoot, serviceCidr: wished } = options;
  const serviceCidr = network ? await claimServiceRange({ dataRoot, gateway: network.gateway, wished }) : wished;
  const api = await startKubeApi({
    store,
    directory: join(options.dataRoot, 'kube'),
    host: options.host,
    port: options.port,
    clusterDomain: options.clusterDomain,
    nodes: lateNodes(() => agent?.proxy),
    figures: figuresOf(() => agent?.usage),
    ...(serviceCidr === undefined ? {} : { serviceCidr }),
    ...(network ? { nodeAddress: network.gateway } : {}),
  });
  const nodeName = options.nodeName ?? hostname().toLowerCase();

  // Two views: what the scheduler waits for must not stand in line behind the controllers.
  const clientFor = (user: string): KubeClient =>
    new KubeClient(new InProcessTransport(api.server, { username: user, groups: SYSTEM }), { fieldManager: user });
  const view = (user: string): ClusterView => new ClusterView({ client: clientFor(user), clock, random, log });
  const [forScheduler, forControllers] = [view('system:kube-scheduler'), view('system:kube-controller-manager')];
  const events = (from: ClusterView, component: string): EventRecorder =>
    new EventRecorder({ client: from.client, clock, log, component });
  const scheduler = new Scheduler({
    view: forScheduler,
    clock,
    random,
    log,
    events: events(forScheduler, 'default-scheduler'),
  });
  const controllers = allControllers(
    { view: forControllers, clock, random, log, events: (component) => events(forControllers, component) },
    {
      provisioners: [
        new LocalVolumes({ name: STORAGE_PROVISIONER, dir: join(options.dataRoot, 'local-volumes'), node: nodeName }),
      ],
      metrics: { usage: async (namespace, pods) => podFigures(agent?.usage.podUsage() ?? [], namespace, pods) },
      authority: api.authority.certificate,
    },
  );
  await Promise.all([forScheduler.start(), forControllers.start()]);
  for (const controller of controllers) controller.start();
  scheduler.start();
  const ingress = options.ingress && (await chosenPorts(options.ingress));
  const services =
    options.node && network
      ? await startServices({
          api: api.server,
          daemon: options.node.options.name,
          dataRoot: options.dataRoot,
          runRoot: options.runRoot,
          nodeName,
          gateway: network.gateway,
          podCidr: network.cidr,
          serviceCidr: serviceCidr ?? DEFAULT_SERVICE_CIDR,
          clusterDomain: options.clusterDomain,
          ingress: {
            http: ingress ? [{ ip: ingress.host, port: ingress.httpPort }] : [],
            https: ingress ? [{ ip: ingress.host, port: ingress.httpsPort }] : [],
          },
          drainMs: options.drainMs,
          ...(options.lbPool === undefined ? {} : { lbPool: options.lbPool }),
          edgeCommand: edgeCommand(options.runRoot),
        })
      : undefined;
  if (options.node && network) {
    const made = nodeAgent({
      node: options.node,
      api: api.server,
      network,
      name: nodeName,
      clusterDomain: options.clusterDomain,
      clusterDns: services?.clusterDns,
      drain: { drained: ({ ips }) => services?.drained(ips) ?? Promise.resolve() },
    });
    await made.agent.start();
    agent = made.running;
  }

  return {
    url: api.url,
    kubeconfigPath: api.kubeconfigPath,
    clientFor,
    agent,
    ingress: services && ingress && ingressUrls(ingress),
    async close() {
      await agent?.close();
      await services?.close();
      await scheduler.stop();
      await Promise.all(controllers.map((controller) => controller.stop()));
      await Promise.all([forScheduler.stop(), forControllers.stop()]);
      await api.close();
      await store.close();
    },
  };
}

/** Port 0 becomes a free one here: the edge process is told numbers. */
async function chosenPorts({ host, httpPort, httpsPort }: IngressListen): Promise<IngressListen> {
  return { host, httpPort: httpPort || (await freePort(host)), httpsPort: httpsPort || (await freePort(host)) };
}

function ingressUrls({ host, httpPort, httpsPort }: IngressListen): { ingress: string; ingressTls: string } {
  const at = host === '0.0.0.0' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host;
  return { ingress: `http://${at}:${httpPort}`, ingressTls: `https://${at}:${httpsPort}` };
}

/** The API server is there before the agent: until then it says that no node is connected. */
function lateNodes(proxy: () => NodeProxy | undefined): NodeProxy {
  return {
    logs: (...args) => (proxy() ?? noNodes).logs(...args),
    exec: (...args) => (proxy() ?? noNodes).exec(...args),
    attach: (...args) => (proxy() ?? noNodes).attach(...args),
    portForward: (...args) => (proxy() ?? noNodes).portForward(...args),
  };
}

/** Who has not been asked for a while has nothing to compare with: it measures twice. */
const FIGURES_STALE_MS = 60_000;
const FIGURES_APART_MS = 1_100;

/** The agent's figures as `metrics.k8s.io` shows them. */
function figuresOf(meter: () => UsageMeter | undefined): Figures {
  let askedAtMs = Number.NEGATIVE_INFINITY;
  const measured = async <T>(read: (meter: UsageMeter) => T): Promise<T | undefined> => {
    const there = meter();
    if (!there) return undefined;
    const stale = systemClock.monotonic() - askedAtMs > FIGURES_STALE_MS;
    if (stale) {
      there.podUsage();
      there.nodeUsage();
      await sleep(systemClock, FIGURES_APART_MS);
    }
    askedAtMs = systemClock.monotonic();
    return read(there);
  };
  return {
    nodes: async () => {
      const figure = await measured((m) => m.nodeUsage());
      return figure ? [figure] : [];
    },
    pods: async () => (await measured((m) => m.podUsage())) ?? [],
  };
}

/** The agent's figures as the autoscaler reads them: by pod, quantities by container. */
function podFigures(
  usage: readonly PodUsage[],
  namespace: string,
  pods: readonly { metadata: { name: string } }[],
): Map<string, { atMs: number; containers: Record<string, Record<string, string>> }> {
  const wanted = new Set(pods.map((pod) => pod.metadata.name));
  return new Map(
    usage
      .filter((pod) => pod.namespace === namespace && wanted.has(pod.name))
      .map((pod) => [
        pod.name,
        {
          atMs: pod.atMs,
          containers: Object.fromEntries(
            pod.containers.map((c) => [c.name, { cpu: `${c.cpuNanoCores}n`, memory: String(c.memoryBytes) }]),
          ),
        },
      ]),
  );
}
