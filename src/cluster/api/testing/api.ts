import { generateKeyPairSync } from 'node:crypto';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import type { KubeObject, Store } from '#cluster/store/objects.ts';
import { memoryStore } from '#cluster/store/testing.ts';
import type { User } from '../authn/user.ts';
import { type ApiResponse, isStream } from '../http/types.ts';
import type { NodeProxy } from '../node-proxy.ts';
import type { ApiServer } from '../server.ts';
import { startApi } from '../start.ts';

/** An API server on a store in memory and a clock that stands still, asked without sockets. */
export interface TestApi {
  server: ApiServer;
  clock: FakeClock;
  store: Store;
  /** As an administrator unless `as` says who. The body is JSON unless it is text. */
  ask(method: string, url: string, body?: unknown, more?: AskOptions): Promise<Answer>;
  /** Lines of a watch as they come. */
  watch(url: string, as?: User): Promise<WatchReader>;
  stop(): void;
}

export interface AskOptions {
  as?: User;
  type?: string;
  accept?: string;
  headers?: Record<string, string>;
}

export interface Answer {
  code: number;
  body: KubeObject & {
    items: KubeObject[];
    message: string;
    reason: string;
    details: { causes: { field: string; message: string }[] };
  };
  text: string;
  headers: ApiResponse['headers'];
}

export interface WatchEvent {
  type: string;
  object: KubeObject;
}

export interface WatchReader {
  events: WatchEvent[];
  ended: boolean;
  stop(): void;
}

export const ADMIN: User = { username: 'admin', groups: ['system:masters', 'system:authenticated'] };
export const user = (username: string, ...groups: string[]): User => ({
  username,
  groups: [...groups, 'system:authenticated'],
});

export async function testApi(options: { nodes?: NodeProxy; seed?: number; store?: Store } = {}): Promise<TestApi> {
  const clock = new FakeClock();
  const random = seededRandom(options.seed ?? 1);
  const store = options.store ?? memoryStore(clock);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { server, stop } = await startApi({
    store,
    clock,
    random: () => random.next(),
    log: logger('cluster:api', silentSink),
    serviceCidr: '10.96.0.0/24',
    authority: 'test authority',
    tokenKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    ...(options.nodes ? { nodes: options.nodes } : {}),
  });
  const ask: TestApi['ask'] = async (method, url, body, more = {}) => {
    const response = await server.handle({
      method,
      url,
      headers: {
        accept: more.accept ?? 'application/json',
        'content-type': more.type ?? 'application/json',
        'user-agent': 'test/1',
        ...more.headers,
      },
      body:
        body === undefined
          ? new Uint8Array()
          : body instanceof Uint8Array
            ? body
            : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
      peer: more.as ?? ADMIN,
    });
    if (isStream(response)) throw new Error(`${method} ${url} answered a stream`);
    const text = response.body.toString();
    return { code: response.code, text, headers: response.headers, body: text.startsWith('{') ? JSON.parse(text) : {} };
  };
  const watch: TestApi['watch'] = async (url, as = ADMIN) => {
    const response = await server.handle({
      method: 'GET',
      url,
      headers: { accept: 'application/json' },
      body: new Uint8Array(),
      peer: as,
    });
    if (!isStream(response)) throw new Error(`${url} answered ${response.code}: ${response.body.toString()}`);
    const reader: WatchReader = { events: [], ended: false, stop: () => undefined };
    const end = (): void => {
      reader.ended = true;
      stopStream();
    };
    let stopStream = (): void => undefined;
    stopStream = response.stream({
      write: (chunk) => {
        for (const line of chunk.toString().split('\n')) if (line !== '') reader.events.push(JSON.parse(line));
        return true;
      },
      pendingBytes: () => 0,
      end,
      destroy: end,
    });
    reader.stop = stopStream;
    return reader;
  };
  return { server, clock, store, ask, watch, stop };
}

export function pod(name: string, spec: object = {}, metadata: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...metadata },
    spec: { containers: [{ name: 'c', image: 'busybox:1' }], ...spec },
  };
}

export function deployment(name: string, more: { image?: string; replicas?: number; metadata?: object } = {}): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, ...more.metadata },
    spec: {
      ...(more.replicas === undefined ? {} : { replicas: more.replicas }),
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: { containers: [{ name: 'c', image: more.image ?? 'busybox:1' }] },
      },
    },
  };
}
