import { unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { ClusterEdge, type Follower } from '#app/cluster-edge.ts';
import { BUILD, edgePaths, FEED, readText, tryConnect } from '#app/edge-door.ts';
import { systemClock } from '#base/clock.ts';
import { describeChain, errnoOf, isCode } from '#base/errors.ts';
import { followFeed } from '#base/feed.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { DnsServer } from '#cluster/dns/server.ts';
import { IngressServer } from '#cluster/ingress/server.ts';
import { findNetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { Forwarder } from '#network/dns/forward.ts';
import { EdgeServer } from '#network/edge-server.ts';
import { serveEdge } from '#network/edge-wire.ts';
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
 *
 * Runs until stopped. False: another edge of this run root runs already.
 */
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

function readState(path: string): unknown {
  const text = readText(path);
  return text === undefined ? undefined : JSON.parse(text);
}
