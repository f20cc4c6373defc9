import type { KubeClient } from '#cluster/client/client.ts';
import { keyIn, PODS } from '#cluster/client/resources.ts';
import type { EngineClient } from '#engine/client/client.ts';
import { NoCluster } from '#web/errors.ts';
import type { ContainerAction } from '#web/wire.ts';

/** What a page asks for once: the X-ray, and what is done by a button. All are calls of the daemon's own APIs. */
export interface Calls {
  engine: EngineClient;
  /** Absent: the daemon serves no cluster. */
  cluster: KubeClient | undefined;
}

interface CallRow {
  method: 'GET' | 'POST';
  path: RegExp;
  run: (calls: Calls, parts: readonly string[]) => Promise<unknown>;
}

const ACTIONS: Record<ContainerAction, (engine: EngineClient, path: string) => Promise<void>> = {
  start: (engine, path) => engine.send({ method: 'POST', path: `${path}/start` }),
  stop: (engine, path) => engine.send({ method: 'POST', path: `${path}/stop` }),
  restart: (engine, path) => engine.send({ method: 'POST', path: `${path}/restart` }),
  // Volumes without a name stay: a click must not take data along.
  remove: (engine, path) => engine.send({ method: 'DELETE', path, query: { force: true } }),
};

const ROWS: readonly CallRow[] = [
  {
    method: 'GET',
    path: /^\/api\/containers\/([^/]+)\/xray$/,
    run: ({ engine }, [id]) => engine.json({ path: `/estiba/v1/xray/${id}` }),
  },
  ...Object.entries(ACTIONS).map(
    ([action, run]): CallRow => ({
      method: 'POST',
      path: new RegExp(`^/api/containers/([^/]+)/${action}$`),
      run: ({ engine }, [id]) => run(engine, `/containers/${id}`),
    }),
  ),
  {
    method: 'POST',
    path: /^\/api\/pods\/([^/]+)\/([^/]+)\/delete$/,
    run: async ({ cluster }, [namespace = '', name = '']) => {
      if (!cluster) throw new NoCluster({});
      await cluster.delete(PODS, keyIn(decodeURIComponent(namespace), decodeURIComponent(name)));
    },
  },
];

/** The call that a request means; parts of its path stay percent-encoded on their way to the daemon. */
export function callOf(calls: Calls, method: string, path: string): (() => Promise<unknown>) | undefined {
  for (const row of ROWS) {
    const parts = row.method === method ? row.path.exec(path) : null;
    if (parts) return () => row.run(calls, parts.slice(1));
  }
  return undefined;
}
