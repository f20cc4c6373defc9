import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { VERSION } from '#app/version.ts';
import { sleep, systemClock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import { EdgeClient } from '#network/edge-wire.ts';
import { EdgeNotStarted } from '#network/errors.ts';

// The edge process (edge.ts) as its daemon finds, starts and ends it. In a file of its own: a daemon that starts reads no name server.

/** Paths of the edge of a run root; edge.ts says what they are. */
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

/** Topics of the cluster's feed. */
export const FEED = { dns: 'dns', ingress: 'ingress' } as const;

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

/** What an edge is told apart by. */
export const BUILD = `${VERSION.version} ${VERSION.commit}`;
const STOP_MAX_MS = 5_000;
const START_MAX_MS = 10_000;
const AFTER_END_MS = 2_000;
const START_STEP_MS = 10;

export function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}

export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
