import { readFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { apiTls, isLoopback, type TlsWish } from '#app/api-tls.ts';
import type { Listen } from '#app/daemon-options.ts';
import { closeServer, connectionsOf, listenTcp } from '#app/listen.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { defineError, errnoOf, isCode } from '#base/errors.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import { json } from '#engine/api/reply.ts';
import type { RouteRow } from '#engine/api/router.ts';
import type { Handlers } from '#engine/api/server.ts';
import { EngineClient } from '#engine/client/client.ts';
import { DaemonConnection } from '#engine/client/connection.ts';
import type { Engine } from '#engine/core/engine.ts';
import { writeFileAtomic } from '#storage/files.ts';
import { clusterFeed } from '#web/cluster-feed.ts';
import { Hub } from '#web/hub.ts';
import { figuresOf, nodeFeed } from '#web/node-feed.ts';
import { pageFiles } from '#web/pages.ts';
import { createUiServer } from '#web/server.ts';
import { Sessions, type SessionsKept } from '#web/sessions.ts';
import { Ticker } from '#web/ticker.ts';

/** Where the dashboard is to be served; `asked` when somebody said so, and another address will not do. */
export interface UiWish extends Listen {
  asked: boolean;
}

export interface UiOptions {
  listen: UiWish;
  tls: TlsWish;
  /** The daemon's own socket: what the dashboard does goes the way of all clients. */
  dockerSocket: string;
  engine: Engine;
  cluster: KubeClient | undefined;
}

export interface Ui {
  url: string;
  close(): Promise<void>;
}

const UiUnprotected = defineError('UI_UNPROTECTED', (d: { address: string }) => ({
  message: `--ui ${d.address}: what passes there in the clear makes others root on this machine`,
  hint: 'name a certificate and its key with --tlscert and --tlskey, or an address of the loopback',
}));

const UiOff = defineError('UI_OFF', (_: object) => ({
  message: 'this daemon serves no dashboard',
  hint: 'start it with --ui ADDRESS:PORT',
}));

const FIGURES_EVERY_MS = 2_000;
const CLOSE_GRACE_MS = 500;

/** The dashboard of this daemon, listening. Its links come from `loginHandlers`. */
export async function startUi(options: UiOptions, sessions: Sessions): Promise<Ui> {
  const { listen, engine, cluster } = options;
  const [clock, random, log] = [systemClock, systemRandom, logger('web')];
  const secure = isLoopback(listen.host) ? undefined : await certificate(options);
  const feeds = [
    nodeFeed(engine, clock, { version: VERSION.version, cluster: cluster !== undefined }),
    ...(cluster ? [clusterFeed({ client: cluster, clock, random, log })] : []),
  ];
  const hub = new Hub({ clock, log, feeds });
  const client = new EngineClient(new DaemonConnection({ socketPath: options.dockerSocket }));
  const server = createUiServer({
    sessions,
    calls: { engine: client, cluster },
    live: {
      hub,
      figures: new Ticker({ clock, everyMs: FIGURES_EVERY_MS, look: () => figuresOf(engine, clock), log }),
      engine: client,
      hangUp: (exec) => engine.containers.execs.hangUp(exec),
      clock,
      log,
    },
    files: pageFiles(join(dirname(fileURLToPath(import.meta.url)), 'web')),
    random,
    hostname: engine.system.hostname,
    ...(secure ? { tls: secure } : {}),
  });
  const connections = connectionsOf(server);
  const address = await listenAt(server, listen);
  return {
    url: `${secure ? 'https' : 'http'}://${address}`,
    close: async () => {
      hub.close();
      await closeServer(server, connections, CLOSE_GRACE_MS);
    },
  };
}

async function certificate({ listen, tls }: UiOptions): Promise<Awaited<ReturnType<typeof apiTls>>> {
  if (tls.tls !== true && !tls.verify) throw new UiUnprotected({ address: `${listen.host}:${listen.port}` });
  // A person's browser has no certificate to show; it has its link.
  return apiTls({ ...tls, tls: true, verify: false });
}

/** Nobody loses a daemon because the address that nobody asked for is taken: another port does as well. */
async function listenAt(server: Server, listen: UiWish): Promise<string> {
  try {
    return await listenTcp(server, listen, 'name another address with --ui, or off');
  } catch (error) {
    if (listen.asked || !isCode(error, 'ADDRESS_IN_USE')) throw error;
    return await listenTcp(server, { ...listen, port: 0 }, 'name another address with --ui, or off');
  }
}

/** Those of the daemon that served this run root before: an upgrade logs nobody out, a boot does. */
export function openSessions(runRoot: string): Promise<Sessions> {
  const path = join(runRoot, 'ui-sessions.json');
  const kept: SessionsKept = {
    read: () =>
      readFile(path, 'utf8').catch((error: unknown) => {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw error;
      }),
    write: (text) => writeFileAtomic(path, text),
  };
  return Sessions.open({ clock: systemClock, random: systemRandom, kept }, logger('web'));
}

/**
 * Who may use the daemon's socket may have a link to the dashboard:
 *
 *     POST /estiba/v1/ui-login     {"url": "http://127.0.0.1:8443/login?token=…", "expiresAtMs": …}
 */
export const UI_ROUTES: readonly RouteRow[] = [{ method: 'POST', path: '/estiba/v1/ui-login', id: 'EstibaUiLogin' }];

/** `ui` is asked late: the socket serves before the dashboard does. */
export function loginHandlers(sessions: Sessions, ui: () => Ui | undefined): Handlers {
  return {
    EstibaUiLogin: () => {
      const served = ui();
      if (!served) throw new UiOff({});
      const { token, expiresAtMs } = sessions.newLink();
      return json({
        url: `${served.url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:')}/login?token=${token}`,
        expiresAtMs,
      });
    },
  };
}
