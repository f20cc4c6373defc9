import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Node } from '#app/node.ts';
import { LinuxNodeHost } from '#app/node-host.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import type { NodeProxy } from '#cluster/api/node-proxy.ts';
import type { ApiServer } from '#cluster/api/server.ts';
import { badRequest } from '#cluster/api/status.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { NodeAgent } from '#cluster/node/agent.ts';
import type { NodeImages, NodeSettings, PodDrain } from '#cluster/node/seams.ts';
import { PodStreams } from '#cluster/node/streams.ts';
import { UsageMeter } from '#cluster/node/usage.ts';
import type { ConditionalProfile } from '#engine/core/spec.ts';
import { hostFiles } from '#kernel/files.ts';
import { formatIp } from '#kernel/netlink/ip.ts';

const NETWORK = 'estiba-pods';
const POD_CIDR = '10.42.0.0/24';
/** Pods reach each other through the host's rules: Services keep the client's address, and policies see every packet. */
const ROUTED = { 'dev.estiba.routed': 'true' };
const MAX_PODS = 110;
const LOG_FILES = 5;
/** Pods come up first, then it is told how. */
const EVENT_LAG_MS = 300;

export interface PodNetwork {
  name: string;
  cidr: string;
  /** The host's address in it: where pods reach the API. */
  gateway: string;
}

/** The pods' own bridge. A default range that the host uses otherwise is replaced, not used. */
export async function podNetwork({ engine: { networks } }: Node, wish: string | undefined): Promise<PodNetwork> {
  const known = networks.list().find((n) => n.name === NETWORK);
  const make = (subnet: string | undefined) =>
    networks.create({
      name: NETWORK,
      names: false,
      options: ROUTED,
      subnets: subnet === undefined ? [] : [{ subnet }],
    });
  const network =
    known ??
    (await make(wish ?? POD_CIDR).catch((error: unknown) => {
      if (wish !== undefined || !isCode(error, 'SUBNET_OVERLAPS')) throw error;
      return make(undefined);
    }));
  const [subnet] = network.subnets;
  if (!subnet) throw new Error(`network ${NETWORK} has no subnet`);
  return {
    name: NETWORK,
    cidr: `${formatIp(subnet.subnet.ip)}/${subnet.subnet.prefix}`,
    gateway: formatIp(subnet.gateway),
  };
}

export interface RunningAgent {
  proxy: NodeProxy;
  usage: UsageMeter;
  close(): Promise<void>;
}

export interface AgentWish {
  node: Node;
  api: ApiServer;
  network: PodNetwork;
  /** The node's name in the cluster. */
  name: string;
  clusterDomain: string;
  clusterDns: string | undefined;
  drain: PodDrain;
}

/** The node agent in the daemon's process, as the cluster's user for it: it may what a node may. */
export function nodeAgent(wish: AgentWish): { agent: NodeAgent; running: RunningAgent } {
  const { node, network } = wish;
  const [clock, random, log] = [systemClock, systemRandom, logger('cluster:node')];
  const transport = new InProcessTransport(wish.api, {
    username: `system:node:${wish.name}`,
    groups: ['system:nodes', 'system:authenticated'],
  });
  const client = new KubeClient(transport, { fieldManager: 'kubelet' });
  const { dataRoot, runRoot, name: daemon } = node.options;
  const host = new LinuxNodeHost({
    run: node.runPlan,
    host: node.host,
    files: hostFiles,
    dataRoot,
    daemon,
    version: VERSION.version,
  });
  const settings: NodeSettings = {
    name: wish.name,
    dataDir: dataRoot,
    runDir: runRoot,
    cgroupParent: `/${daemon}`,
    podNetwork: network.name,
    podCidr: network.cidr,
    maxPods: MAX_PODS,
    clusterDomain: wish.clusterDomain,
    clusterDns: wish.clusterDns,
    labels: {},
  };
  const { containers, sandboxes, events, logPath, roots } = node.engine;
  const writtenBytes = async (id: string): Promise<number> => (await roots.usage(id)).bytes;
  const engine = { containers, sandboxes, events, logPath, logFiles: LOG_FILES, writtenBytes };
  const agent = new NodeAgent({
    client,
    clock,
    random,
    log,
    events: new EventRecorder({ client, clock, log, component: 'kubelet', host: wish.name, lagMs: EVENT_LAG_MS }),
    engine,
    images: imagesOf(node),
    host,
    drain: wish.drain,
    settings,
    seccompProfile: (path) => JSON.parse(readFileSync(join(dataRoot, 'seccomp', path), 'utf8')) as ConditionalProfile,
  });
  const streams = new PodStreams({ engine, host, clock, random });
  const usage = new UsageMeter({ clock, engine, host, settings, pods: () => agent.pods() });
  return { agent, running: { proxy: proxyOf(streams), usage, close: () => agent.stop() } };
}

/** The engine's images: one store behind every API. */
function imagesOf({ engine: { images } }: Node): NodeImages {
  return {
    find: async (reference) => {
      try {
        return await images.find(reference);
      } catch (error) {
        if (isCode(error, 'NO_SUCH_IMAGE')) return undefined;
        throw error;
      }
    },
    pull: async (reference, credentials) => {
      const auths = credentials.length === 0 ? [undefined] : credentials.map(authHeader);
      let last: unknown;
      for (const auth of auths) {
        try {
          const image = await images.pull(reference, { auth, onProgress: () => undefined });
          return { bytes: images.sizeOf(image) };
        } catch (error) {
          last = error;
        }
      }
      throw last;
    },
    list: async () =>
      (await images.store.list()).map((image) => ({
        names: [...image.repoDigests, ...image.repoTags],
        sizeBytes: images.sizeOf(image),
      })),
  };
}

function authHeader(credential: { username: string; password: string }): string {
  return Buffer.from(JSON.stringify(credential)).toString('base64url');
}

/** What cannot be done to a pod now is the client's news, not the server's failure. */
function proxyOf(streams: PodStreams): NodeProxy {
  const told = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (isCode(error, 'NO_SUCH_POD_CONTAINER', 'POD_CONTAINER_NOT_RUNNING')) throw badRequest(error.message);
      throw error;
    }
  };
  return {
    logs: (target, options, signal) => told(streams.logs(target, options, signal)),
    exec: (target, options) => told(streams.exec(target, options)),
    attach: (target, options) => told(streams.attach(target, options)),
    portForward: (target, port, signal) => told(streams.portForward(target, port, signal)),
  };
}
