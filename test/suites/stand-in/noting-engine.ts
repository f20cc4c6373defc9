import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { json } from 'node:stream/consumers';
import { createRequest, endpointOf } from '#engine/api/docker/create.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { checkBody } from '#spec/docker/body.ts';

const API = '1.48';

type Body = Record<string, unknown>;

interface Asking {
  request: IncomingMessage;
  query: URLSearchParams;
  /** What stands in the path where the row has a group. */
  name: string;
}

/** What is there for containers to join and to mount. */
interface Place {
  networks: readonly string[];
  volumes: readonly string[];
}

/** The Docker API as far as clients ask it around a create: every image is there, and what is to be made is only noted. */
export class NotingEngine {
  readonly socket: string;
  readonly #place: Place;
  readonly #server: Server;
  readonly #wishes = new Map<string, ContainerSpec>();

  readonly #rows: [RegExp, (asking: Asking) => unknown][] = [
    [/^\/_ping$/, () => 'OK'],
    [/^\/version$/, () => ({ Version: '28.0.0', ApiVersion: API, MinAPIVersion: '1.24', Os: 'linux', Arch: 'amd64' })],
    [/^\/info$/, () => ({ OSType: 'linux', Architecture: 'x86_64', ServerVersion: '28.0.0' })],
    [/^\/images\/(.+)\/json$/, ({ name }) => image(name)],
    [/^\/networks$/, () => this.#place.networks.map(network)],
    [/^\/networks\/(.+)\/connect$/, ({ name, request }) => this.#connect(name, request)],
    [/^\/networks\/.+\/disconnect$/, () => ({})],
    [/^\/networks\/(.+)$/, ({ name }) => network(there(name, this.#place.networks))],
    [/^\/volumes$/, () => ({ Volumes: this.#place.volumes.map(volume) })],
    [/^\/volumes\/(.+)$/, ({ name }) => volume(there(name, this.#place.volumes))],
    [/^\/containers\/json$/, () => []],
    [/^\/containers\/create$/, ({ query, request }) => this.#create(query, request)],
    [/^\/containers\/.+\/start$/, () => ({})],
    [/^\/containers\/(.+)\/json$/, ({ name }) => container(name)],
  ];

  private constructor(socket: string, place: Place) {
    this.socket = socket;
    this.#place = place;
    this.#server = createServer((request, response) => {
      const head = { 'content-type': 'application/json', 'api-version': API, ostype: 'linux' };
      this.#answer(request).then(
        (body) => response.writeHead(200, head).end(request.method === 'HEAD' ? '' : JSON.stringify(body)),
        (error) => response.writeHead(404, head).end(JSON.stringify({ message: String(error) })),
      );
    });
  }

  static async listen(socket: string, place: Place): Promise<NotingEngine> {
    const engine = new NotingEngine(socket, place);
    engine.#server.listen(socket);
    await once(engine.#server, 'listening');
    return engine;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  /** What was asked for under that name. */
  wish(name: string): ContainerSpec {
    const wish = this.#wishes.get(name);
    if (!wish) throw new Error(`nobody has asked for ${name}`);
    return wish;
  }

  async #answer(request: IncomingMessage): Promise<unknown> {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://engine');
    const path = decodeURIComponent(pathname).replace(/^\/v1\.\d+(?=\/)/, '');
    for (const [rule, answer] of this.#rows) {
      const found = rule.exec(path);
      if (found) return answer({ request, query: searchParams, name: found[1] ?? '' });
    }
    throw new Error(`nothing is at ${path}`);
  }

  async #create(query: URLSearchParams, request: IncomingMessage): Promise<Body> {
    const [name, platform] = [query.get('name') ?? '', query.get('platform') ?? ''];
    const { spec } = createRequest(checkBody('ContainerCreate', await json(request)));
    this.#wishes.set(name, platform === '' ? spec : { ...spec, platform });
    return { Id: name, Warnings: [] };
  }

  async #connect(network: string, request: IncomingMessage): Promise<Body> {
    const { Container, EndpointConfig } = (await json(request)) as { Container: string; EndpointConfig?: Body };
    const spec = this.wish(Container);
    const endpoint = { network, ...endpointOf(EndpointConfig ?? {}, '$.EndpointConfig') };
    const endpoints = spec.network.endpoints.map((e) => (e.network === network ? endpoint : e));
    if (!endpoints.includes(endpoint)) endpoints.push(endpoint);
    this.#wishes.set(Container, { ...spec, network: { ...spec.network, endpoints } });
    return {};
  }
}

function there(name: string, known: readonly string[]): string {
  if (!known.includes(name)) throw new Error(`there is no ${name}`);
  return name;
}

function network(Name: string): Body {
  return { Name, Id: Name, Driver: 'bridge', Labels: {}, IPAM: { Config: [] } };
}

function volume(Name: string): Body {
  return { Name, Driver: 'local', Labels: {} };
}

/** The image `linux/arm64` is for that platform, every other for this one. Its id is its platform: a client may ask by it. */
function image(wish: string): Body {
  const named = /^sha256:(\w+?)0*$/.exec(wish)?.[1];
  const platform = named === undefined ? wish : Buffer.from(named, 'hex').toString();
  const [Os = '', Architecture = '', Variant = ''] = (/^linux\/[^:]+/.exec(platform)?.[0] ?? 'linux/amd64').split('/');
  const Id = `sha256:${Buffer.from([Os, Architecture, Variant].join('/')).toString('hex').padEnd(64, '0')}`;
  return { Id, Config: {}, Os, Architecture, Variant };
}

function container(name: string): Body {
  return {
    Id: name,
    Name: `/${name}`,
    Image: 'web',
    State: { Status: 'created', Running: false },
    Config: { Image: 'web:1', Labels: {}, Env: [], Tty: false, OpenStdin: false },
    HostConfig: {},
    Mounts: [],
    NetworkSettings: { Networks: {} },
  };
}
