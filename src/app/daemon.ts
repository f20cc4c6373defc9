import { execFile } from 'node:child_process';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { apiTls, checkExposure } from '#app/api-tls.ts';
import { type DaemonOptions, HELP, readDaemonOptions } from '#app/daemon-options.ts';
import { closeServer, connectionsOf, listenTcp, listenUnix } from '#app/listen.ts';
import { type Node, openNode } from '#app/node.ts';
import { engineFloors, ownFloors, serveRegistry } from '#app/node-registry.ts';
import { removeNode } from '#app/remove-node.ts';
import { collectAtRest, ownHeap } from '#app/rest.ts';
import { loginHandlers, openSessions, startUi, UI_ROUTES, type Ui } from '#app/ui.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { defineError, describeChain, EstibaError } from '#base/errors.ts';
import { type Logger, logger } from '#base/log.ts';
import { Undo } from '#base/undo.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import { buildHandlers, withBuildCache } from '#engine/api/docker/build.ts';
import { dockerHandlers } from '#engine/api/docker/handlers.ts';
import { UNDOCUMENTED_ROUTES } from '#engine/api/docker/refusals.ts';
import { BUILD_ROUTES, estibaBuildHandlers } from '#engine/api/estiba/build.ts';
import { IMAGE_ROUTES, imageHandlers } from '#engine/api/estiba/images.ts';
import { INSIGHT_ROUTES, insightHandlers } from '#engine/api/estiba/insight.ts';
import { PLAN_ROUTES, planHandlers } from '#engine/api/estiba/plan.ts';
import { createApiServer, type Handlers, standardHeaders } from '#engine/api/server.ts';

/**
 * `estiba daemon`: the process that holds a node's state. Containers do not depend on it: SIGTERM and SIGKILL both leave
 * them running, and the next daemon finds them.
 *
 *     R/daemon.lock       one daemon a run root (and one a data root: D/store/LOCK)
 *     R/docker.sock       the Docker API; more addresses with --host
 *     R/endpoints.json    what is served where, from ready to end
 */
interface Endpoints {
  docker?: string;
  registry?: string;
  kube?: string;
  ui?: string;
  /** Of web applications, by HTTP and HTTPS. */
  ingress?: string;
  ingressTls?: string;
}

const NeedsRoot = defineError('DAEMON_NEEDS_ROOT', (d: { uid: number | undefined }) => ({
  message: `containers of a daemon need root, and this is user ${d.uid}: it makes mounts, links and cgroups`,
  hint: 'start it as root; an ordinary user runs a container with estiba-oci',
}));

/** Requests under way when the daemon is told to end; what lasts longer (attach, logs, events) is cut. */
const CLOSE_GRACE_MS = 500;

const CLOSE_MOST_MS = 10_000;

async function main(args: string[]): Promise<void> {
  if (args[0] === '--version') return void process.stdout.write(`estiba ${VERSION.version} (${VERSION.commit})\n`);
  const wish = await readDaemonOptions(args);
  if (!wish) return void process.stdout.write(HELP);
  const { options } = wish;
  if (wish.remove) return removeNode(options, (what) => process.stdout.write(`removed ${what}\n`));
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  const log = logger('app');
  const undo = new Undo((what, error) => log.error(`${what} did not close`, { error: describeChain(error) }));
  try {
    const endpoints = await startAll(options, undo);
    const text = `${JSON.stringify(endpoints)}\n`;
    const path = join(options.runRoot, 'endpoints.json');
    await writeFile(path, text);
    undo.add('endpoints', () => rm(path, { force: true }));
    process.stdout.write(text);
    undo.add('rest', collectAtRest({ clock: systemClock, ...ownHeap() }));
    await tellServiceManager(log);
    await stopped;
  } finally {
    setTimeout(() => {
      log.error('something did not close in time; the next daemon finds what is left', { waitedMs: CLOSE_MOST_MS });
      process.exit(1);
    }, CLOSE_MOST_MS).unref();
    await undo.unwind();
  }
  // All that is durable is closed. What is left are timers, and connections of clients that do not listen.
  process.exit(0);
}

/**
 * systemd's Type=notify: `systemctl start` comes back when this has been said, and `estiba ps` after it finds a daemon. Node.js has no
 * datagram sockets in the Unix domain; systemd brings a program.
 */
async function tellServiceManager(log: Logger): Promise<void> {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  await promisify(execFile)('systemd-notify', ['--ready']).catch((error: unknown) =>
    log.warn('who started this daemon is not told that it is ready', { error: describeChain(error) }),
  );
}

/** Each service when it is ready: a request sent now succeeds. */
async function startAll(options: DaemonOptions, undo: Undo): Promise<Endpoints> {
  const endpoints: Endpoints = {};
  if (options.serves.has('engine') && process.geteuid?.() !== 0) throw new NeedsRoot({ uid: process.geteuid?.() });
  await mkdir(options.runRoot, { recursive: true, mode: 0o711 });
  const sessions = await openSessions(options.runRoot);
  let ui: Ui | undefined;
  const engine = options.serves.has('engine')
    ? await startEngine(
        options,
        undo,
        loginHandlers(sessions, () => ui),
      )
    : undefined;
  if (engine) endpoints.docker = engine.url;
  const { dataRoot, registry } = options;
  if (registry && options.serves.has('registry')) {
    const floors = engine ? engineFloors(engine.node) : await ownFloors(dataRoot, undo);
    endpoints.registry = await serveRegistry(floors, { dataRoot, listen: registry }, undo);
  }
  let cluster: KubeClient | undefined;
  if (options.serves.has('kube')) {
    // Read by those alone who serve it: an engine needs neither its memory nor its time to start.
    const { startControlPlane } = await import('#app/control-plane.ts');
    const plane = await startControlPlane({ ...options, ...options.kube, ...(engine ? { node: engine.node } : {}) });
    undo.add('control plane', () => plane.close());
    await copyFile(plane.kubeconfigPath, join(options.runRoot, 'kubeconfig'));
    endpoints.kube = plane.url;
    cluster = plane.clientFor('estiba-dashboard');
    if (plane.ingress) Object.assign(endpoints, plane.ingress);
  }
  // Last: it shows what the others serve, and asks for nothing before a page is open.
  if (engine && options.ui && options.serves.has('ui')) {
    const { tls, ui: listen, runRoot } = options;
    const dockerSocket = join(runRoot, 'docker.sock');
    ui = await startUi({ listen, tls, dockerSocket, engine: engine.node.engine, cluster }, sessions);
    undo.add('dashboard', ui.close);
    endpoints.ui = ui.url;
  }
  return endpoints;
}

async function startEngine(options: DaemonOptions, undo: Undo, own: Handlers): Promise<{ url: string; node: Node }> {
  const node = await openNode(options);
  undo.add('node', () => node.close());
  const docker = dockerHandlers(node.engine, () => systemClock.now());
  const handlers = {
    ...docker,
    ...buildHandlers(node.builder),
    ...withBuildCache(docker['SystemDataUsage'], node.builder),
    ...estibaBuildHandlers(node.builder),
    ...imageHandlers(node.engine.images),
    ...insightHandlers(node.engine.insight),
    ...planHandlers(node.engine.containers, node.engine.insight),
    ...own,
  };
  const tls = await apiTls(options.tls);
  const newServer = (secure?: typeof tls): Server => {
    const server = createApiServer({
      ...(secure ? { tls: secure } : {}),
      handlers,
      extraRoutes: [
        ...UNDOCUMENTED_ROUTES,
        ...BUILD_ROUTES,
        ...IMAGE_ROUTES,
        ...INSIGHT_ROUTES,
        ...PLAN_ROUTES,
        ...UI_ROUTES,
      ],
      headers: standardHeaders(`Estiba/${VERSION.version} (linux)`),
      log: logger('api'),
    });
    const connections = connectionsOf(server);
    undo.add('Docker API', () => closeServer(server, connections, CLOSE_GRACE_MS));
    return server;
  };
  for (const host of options.hosts) {
    if (host.kind === 'unix') await listenUnix(newServer(), host.path, options.group);
    else {
      checkExposure(host, options.tls);
      await listenTcp(newServer(tls), host, 'name another address with --host');
    }
  }
  const url = await listenUnix(newServer(), join(options.runRoot, 'docker.sock'), options.group);
  return { url, node };
}

main(process.argv.slice(2)).catch((error: unknown) => {
  const hint = error instanceof EstibaError && error.hint ? `\n${error.hint}` : '';
  process.stderr.write(`estiba daemon: ${describeChain(error)}${hint}\n`);
  process.exit(1);
});
