import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { ClusterEdge, type Follower } from '#app/cluster-edge.ts';
import { VERSION } from '#app/version.ts';
import { sleep, systemClock } from '#base/clock.ts';
import { describeChain, errnoOf, isCode } from '#base/errors.ts';
import { followFeed } from '#base/feed.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { DnsServer } from '#cluster/dns/server.ts';
import { IngressServer } from '#cluster/ingress/server.ts';
import { findNetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { Forwarder } from '#network/dns/forward.ts';
import { EdgeServer } from '#network/edge-server.ts';
import { EdgeClient, serveEdge } from '#network/edge-wire.ts';
import { EdgeNotStarted } from '#network/errors.ts';
import { lockDirectory } from '#storage/lock.ts';

/**
 * The edge process: names for containers, reserved host ports, the cluster's name server and its ingress proxy, outliving the
 * daemon. One a run root; it is started by the daemon when the first container needs it, and ends when it is told to.
 *
 *   R/edge.sock            the daemon's orders           R/edge-cluster.sock    the cluster's feed
 *   R/edge-state.json      what it was told last         R/edge-cluster.json    what it was told last, keys of certificates included
 *   R/edge.lock            one edge a run root
 *   R/edge.version         the build it runs, for a daemon of another one
 *   R/edge.log
 */
export function edgePaths(runRoot: string): {
  socket: string;
  state: string;
  version: string;
  log: string;
  clusterSocket: string;
  clusterState: string;
} {
  return {
    socket: join(runRoot, 'edge.sock'),
    state: join(runRoot, 'edge-state.json'),
    version: join(runRoot, 'edge.version'),
    log: join(runRoot, 'edge.log'),
    clusterSocket: join(runRoot, 'edge-cluster.sock'),
    clusterState: join(runRoot, 'edge-cluster.json'),
  };
}

/** Runs until stopped. False: another edge of this run root runs already. */
export async function runEdge(runRoot: string): Promise<boolean> {
  const paths = edgePaths(runRoot);
  const log = logger('network');
  const other = await tryConnect(paths.socket);
  other?.destroy();
  if (other || !isFirst(runRoot)) return false;
  const hand = spawnNetHand(findNetHand(), () => {
    log.error('estiba-net ended: so does the edge, and the daemon starts another');
    process.exit(1);
  });
  const forwarder = new Forwarder({ clock: systemClock, random: systemRandom });
  const edge = new EdgeServer({ hand, forwarder, clock: systemClock, log, stateFile: paths.state });
  const state = readState(paths.state);
  if (state !== undefined) await edge.restore(state);
  const cluster = clusterEdge(paths.clusterState, forwarder);
  await cluster.restore();

  const stop = (): void => {
    server.close();
    feed.close();
    Promise.all([edge.flush(), cluster.close()]).then(
      () => process.exit(0),
      (error) => {
        log.error('state not written', { error: describeChain(error) });
        process.exit(1);
      },
    );
  };
  const server = createServer((socket) => serveEdge(socket, edge, stop));
  const feed = createServer((socket) => followFeed(socket, (topic, change) => cluster.apply(topic, change), log));
  writeFileSync(paths.version, BUILD);
  await listenAt(feed, paths.clusterSocket);
  await listenAt(server, paths.socket); // last: who can connect here finds the other one open
  process.on('SIGTERM', stop);
  process.on('SIGHUP', () => undefined); // the terminal it was started from is no reason to go
  log.info('edge serves', { socket: paths.socket });
  return true;
}

/** Two that start at once see no socket of each other: the second would take the first's name and leave it its ports. */
function isFirst(runRoot: string): boolean {
  try {
    lockDirectory(join(runRoot, 'edge.lock')); // for life: what is left of it after our death holds nothing
    return true;
  } catch (error) {
    if (isCode(error, 'STORE_LOCKED')) return false;
    throw error;
  }
}

/** Names and web applications of the cluster; they ask upstream as containers' names do. */
function clusterEdge(stateFile: string, forwarder: Forwarder): ClusterEdge {
  const [clock, random] = [systemClock, systemRandom];
  return new ClusterEdge({
    followers: new Map<string, Follower>([
      [FEED.dns, new DnsServer({ upstream: (...asked) => forwarder.ask(...asked), clock, log: logger('cluster:dns') })],
      [FEED.ingress, new IngressServer({ clock, random, log: logger('cluster:ingress') })],
    ]),
    stateFile,
    clock,
    log: logger('app'),
  });
}

/** Topics of the cluster's feed. */
export const FEED = { dns: 'dns', ingress: 'ingress' } as const;

async function listenAt(server: Server, path: string): Promise<void> {
  try {
    unlinkSync(path); // nobody answered there: a dead edge's
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}

/** The cluster's feed of the edge, which is started when there is none. */
export async function connectClusterFeed(runRoot: string, command: readonly [string, ...string[]]): Promise<Socket> {
  const orders = await connectEdge(runRoot, command);
  orders?.destroy();
  const { clusterSocket, log } = edgePaths(runRoot);
  const socket = await tryConnect(clusterSocket);
  if (!socket) throw new EdgeNotStarted({ socket: clusterSocket, log });
  return socket;
}

/**
 * Connects to the edge of a run root; if none answers, starts one with `command` (this program's own way to say
 * `estiba edge --run-root R`), or gives undefined when none is given. The edge is a session of its own: a signal to the
 * daemon's group does not reach it.
 */
export async function connectEdge(
  runRoot: string,
  command: readonly [string, ...string[]] | undefined,
): Promise<Socket | undefined> {
  const paths = edgePaths(runRoot);
  const there = await tryConnect(paths.socket);
  if (there || !command) return there;
  const log = openSync(paths.log, 'a', 0o600);
  const [program, ...args] = command;
  const child = spawn(program, args, { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.unref();
  let mayWaitMs = START_MAX_MS;
  // One that gave way to another, started at the same moment, ends too: that other one is soon there.
  const ended = (): number => (mayWaitMs = Math.min(mayWaitMs, AFTER_END_MS));
  child.on('error', ended);
  child.on('exit', ended);
  for (let waitedMs = 0; waitedMs < mayWaitMs; waitedMs += START_STEP_MS) {
    await sleep(systemClock, START_STEP_MS);
    const socket = await tryConnect(paths.socket);
    if (socket) return socket;
  }
  throw new EdgeNotStarted({ socket: paths.socket, log: paths.log });
}

/**
 * An edge of another build speaks another language, or lacks what this one asks for: it is told to end, and the next order starts
 * its successor, which reads what it was told last. Names, relays and Ingress are away for as long as that takes, once an upgrade.
 */
export async function retireOldEdge(runRoot: string): Promise<void> {
  if (readText(edgePaths(runRoot).version) !== BUILD) await retireEdge(runRoot);
}

/** Ends the edge of a run root, if there is one; its ports are free by then. */
export async function retireEdge(runRoot: string): Promise<void> {
  const witness = await tryConnect(edgePaths(runRoot).socket);
  if (!witness) return;
  // Its end, and so its ports', is when the kernel closes its side.
  const ended = once(witness.resume(), 'close', { signal: AbortSignal.timeout(STOP_MAX_MS) });
  const client = new EdgeClient(
    () => connectEdge(runRoot, undefined),
    () => undefined, // its end is what we asked for
  );
  await client.stop();
  await client.close();
  await ended;
}

const BUILD = `${VERSION.version} ${VERSION.commit}`;
const STOP_MAX_MS = 5_000;
const START_MAX_MS = 10_000;
const AFTER_END_MS = 2_000;
const START_STEP_MS = 10;

function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}

function readState(path: string): unknown {
  const text = readText(path);
  return text === undefined ? undefined : JSON.parse(text);
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
