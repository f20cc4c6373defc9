import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { ContentStore } from '#image/content.ts';
import { RegistryClient } from '#registry/client/client.ts';
import type { CredentialSource } from '#registry/client/credentials.ts';
import { Downloader } from '#registry/client/download.ts';
import { hostTls } from '#registry/client/hosts.ts';
import { inspectRemote, type RemoteImage } from '#registry/client/inspect.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import { proxySettings } from '#registry/client/proxy.ts';
import { type Pulled, type PullOptions, pull } from '#registry/client/pull.ts';
import { type PushOptions, push } from '#registry/client/push.ts';
import { Transport } from '#registry/client/transport.ts';
import {
  type Endpoint,
  endpointOf,
  isInsecure,
  type Resolution,
  type ResolutionTable,
  resolveName,
  resolveReference,
} from '#registry/resolve.ts';
import type { Digest } from '#spec/image/digest.ts';
import { parseReference, type Reference, withDefaultTag } from '#spec/image/reference.ts';

export interface RegistriesOptions {
  content: ContentStore;
  table: ResolutionTable;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Used where an operation brings no credentials of its own. */
  credentials: CredentialSource;
  /** Proxies are read from here. */
  env: Readonly<Record<string, string | undefined>>;
  certsFolders?: readonly string[];
  version?: string;
  /** What this node's own registry is called (`registryAuthorities`), once it listens. */
  ownAuthorities?: () => readonly string[];
  /** Makes an image that no registry can be reached for (ARCHITECTURE §9); undefined when it does not know the name. */
  bootstrap?: Bootstrap;
}

export type Bootstrap = (
  reference: Reference,
  onProgress: ProgressSink,
  signal?: AbortSignal,
) => Promise<Pulled | undefined>;

export type PullRequest = Pick<PullOptions, 'platform' | 'platformIsExact' | 'onProgress' | 'onImage'> & {
  /** Stands before the node's own store: whoever unpacks layers while they load. */
  content?: ContentStore;
  signal?: AbortSignal;
  credentials?: CredentialSource;
};
export type PushRequest = Pick<PushOptions, 'onProgress' | 'mountFrom' | 'chunkBytes'> & {
  signal?: AbortSignal;
  credentials?: CredentialSource;
};

/** All registries as one node sees them: names resolved, connections and tokens kept. What engine, build and CRI pull and push with. */
export class Registries {
  readonly #o: RegistriesOptions;
  readonly #transport: Transport;
  readonly #downloader = new Downloader();
  /** Clients keep tokens; those with credentials of one request are not shared. */
  readonly #clients = new Map<string, RegistryClient>();

  constructor(options: RegistriesOptions) {
    this.#o = options;
    const folders = options.certsFolders;
    this.#transport = new Transport({
      proxy: proxySettings(options.env),
      tlsFor: hostTls({ ...(folders ? { folders } : {}), verify: (host) => !isInsecure(host, options.table) }),
      userAgent: `estiba/${options.version ?? 'dev'}`,
    });
  }

  /** What a user's word means and where it leads; throws before anything is asked. */
  resolve(name: string): Resolution {
    const resolution = resolveName(name, this.#o.table);
    return { ...resolution, reference: withDefaultTag(resolution.reference) };
  }

  async pull(name: string | Reference, request: PullRequest): Promise<Pulled> {
    const resolution =
      typeof name === 'string' ? this.resolve(name) : resolveReference(withDefaultTag(name), this.#o.table);
    const { content, clock, random, bootstrap } = this.#o;
    const clientFor = this.#clientsFor(request.credentials);
    try {
      return await pull(resolution, { content, ...request, clock, random, clientFor, downloader: this.#downloader });
    } catch (error) {
      // Only where nobody answered: an answer, be it 404 or 401, is the truth about the name.
      if (!isCode(error, 'REGISTRY_UNREACHABLE') || !bootstrap) throw error;
      const made = await bootstrap(resolution.reference, request.onProgress, request.signal);
      if (!made) throw error;
      return made;
    }
  }

  push(name: string | Reference, root: Digest, request: PushRequest): Promise<{ digest: Digest; sizeBytes: number }> {
    const reference = typeof name === 'string' ? this.resolve(name).reference : withDefaultTag(name);
    // Mirrors are for reading; a push goes to the registry that the name names.
    const { content, clock, random } = this.#o;
    const clientFor = this.#clientsFor(request.credentials);
    const isOwn = this.#o.ownAuthorities?.().includes(reference.registry) ?? false;
    const resolution = resolveReference(reference, this.#o.table);
    return push(resolution, root, { ...request, content, clock, random, clientFor, isOwn });
  }

  /** What a name stands for at its registry, or at the first mirror that knows; nothing is kept here. */
  inspect(name: string, credentials?: CredentialSource, signal?: AbortSignal): Promise<RemoteImage> {
    return this.#ask(name, credentials, signal, (client, reference) => inspectRemote(client, reference, signal));
  }

  /** All tags of a repository, asked for in the same places. */
  tags(name: string, credentials?: CredentialSource, signal?: AbortSignal): Promise<string[]> {
    return this.#ask(name, credentials, signal, (client, { repository }) => client.tags(repository, signal));
  }

  async #ask<T>(
    name: string,
    credentials: CredentialSource | undefined,
    signal: AbortSignal | undefined,
    question: (client: RegistryClient, reference: Reference) => Promise<T>,
  ): Promise<T> {
    const { reference, endpoints } = this.resolve(name);
    const clientFor = this.#clientsFor(credentials);
    let last: unknown;
    for (const endpoint of endpoints) {
      try {
        return await question(clientFor(endpoint), reference);
      } catch (error) {
        signal?.throwIfAborted();
        if (!isCode(error, 'REGISTRY_UNREACHABLE', 'IMAGE_NOT_FOUND')) throw error;
        last = error;
      }
    }
    throw last;
  }

  /**
   * Repositories whose name has the term, as one would pull them: of the registry that stands before the first slash, or of the mirrors
   * of docker.io. Undefined: docker.io has no mirror here, and Docker Hub itself lists nothing.
   */
  async search(term: string, credentials?: CredentialSource, signal?: AbortSignal): Promise<string[] | undefined> {
    const [, host, rest] = /^((?:[^/]*[.:][^/]*|localhost))\/(.*)$/.exec(term) ?? [];
    const wanted = (rest ?? term).toLowerCase();
    const clientFor = this.#clientsFor(credentials);
    if (host !== undefined) {
      const names = await clientFor(endpointOf(host, this.#o.table)).catalog(signal);
      return names.filter((name) => name.includes(wanted)).map((name) => `${host}/${name}`);
    }
    const mirrors = this.resolve('search').endpoints.filter((endpoint) => endpoint.role === 'mirror');
    if (mirrors.length === 0) return undefined;
    const lists = await Promise.all(
      mirrors.map(async (mirror) => {
        const names = await clientFor(mirror).catalog(signal);
        return names.filter((name) => name.startsWith(mirror.prefix)).map((name) => name.slice(mirror.prefix.length));
      }),
    );
    const names = [...new Set(lists.flat())].map((name) => name.replace(/^library\//, ''));
    return names.filter((name) => name.includes(wanted)).sort();
  }

  /** A client for one registry: tags, deletes, login. */
  client(registry: string, credentials?: CredentialSource): RegistryClient {
    return this.#clientsFor(credentials)(endpointOf(registry, this.#o.table));
  }

  /** Whether these credentials are taken (`docker login`). */
  async login(registry: string, credentials: CredentialSource): Promise<void> {
    const { registry: host } = parseReference(registry.includes('/') ? registry : `${registry}/x`);
    await this.client(host, credentials).ping();
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  #clientsFor(own: CredentialSource | undefined): (endpoint: Endpoint) => RegistryClient {
    return (endpoint) => {
      const key = `${endpoint.schemes.join()}://${endpoint.host}/${endpoint.prefix}`;
      const known = own ? undefined : this.#clients.get(key);
      if (known) return known;
      const { credentials, clock, random, log } = this.#o;
      const client = new RegistryClient({
        endpoint,
        transport: this.#transport,
        credentials: own ?? credentials,
        clock,
        random,
        onWarning: (host, text) => log.warn('registry says', { host, text }),
      });
      if (!own) this.#clients.set(key, client);
      return client;
    };
  }
}
