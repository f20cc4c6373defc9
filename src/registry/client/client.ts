import type { Readable } from 'node:stream';
import { type Clock, sleep } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Random } from '#base/random.ts';
import { array, object, optional, string } from '#base/shape.ts';
import { Authorizer, type Scope } from '#registry/client/auth.ts';
import type { CredentialSource } from '#registry/client/credentials.ts';
import type { BlobSource } from '#registry/client/download.ts';
import {
  ImageNotFound,
  RateLimited,
  RegistryAnswered,
  RegistryMisbehaved,
  RegistryUnauthorized,
} from '#registry/client/errors.ts';
import { delayBeforeRetry, isPassing, RETRIES, retryAfter } from '#registry/client/retry.ts';
import { type Answer, type Outgoing, readBody, type Transport } from '#registry/client/transport.ts';
import { parseNextLink } from '#registry/http/link.ts';
import { parseContentRange } from '#registry/http/range.ts';
import type { Endpoint } from '#registry/resolve.ts';
import { algorithmOf, type Digest, digestOf, isDigest } from '#spec/image/digest.ts';
import { MANIFEST_MAX_BYTES, MANIFEST_MEDIA_TYPES } from '#spec/image/manifest.ts';

export interface ClientOptions {
  endpoint: Endpoint;
  transport: Transport;
  credentials: CredentialSource;
  clock: Clock;
  random: Random;
  /** `Warning` headers (distribution spec, "Warnings"), each once. */
  onWarning?: (host: string, text: string) => void;
}

export interface FetchedManifest {
  bytes: Buffer;
  digest: Digest;
  mediaType: string;
}

const ERROR_BODY_MAX_BYTES = 65_536;
const LIST_MAX_BYTES = 8 << 20;
const LIST_MAX_PAGES = 1000;
const ErrorBody = object({
  errors: array(object({ code: optional(string()), message: optional(string()) }), { max: 100 }),
});

/** One registry, spoken to in the distribution specification's terms. Names of repositories are as the registry's own. */
export class RegistryClient {
  readonly host: string;
  readonly #o: ClientOptions;
  readonly #auth: Authorizer;
  readonly #warned = new Set<string>();
  #origin: Promise<string> | undefined;
  #reached = false;

  constructor(options: ClientOptions) {
    this.#o = options;
    this.host = options.endpoint.host;
    const { transport, credentials: source, clock } = options;
    this.#auth = new Authorizer({ host: options.endpoint.credentialHost ?? this.host, transport, source, clock });
  }

  /** The digest a tag names now, without its manifest; undefined when the registry does not tell it. */
  async headManifest(
    repository: string,
    reference: string,
    signal?: AbortSignal,
  ): Promise<{ digest: Digest; mediaType: string } | undefined> {
    const answer = await this.#send(repository, 'pull', 'HEAD', `manifests/${reference}`, {
      headers: { accept: ACCEPT },
      signal,
    });
    answer.body.resume();
    if (answer.status === 404) throw new ImageNotFound({ host: this.host, what: nameOf(repository, reference) });
    const digest = header(answer, 'docker-content-digest');
    return answer.status === 200 && isDigest(digest) ? { digest, mediaType: mediaTypeOf(answer) } : undefined;
  }

  /** A manifest whole. Asked for by digest, its bytes are checked; by tag, they are what the registry says they are. */
  async manifest(repository: string, reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const path = `manifests/${reference}`;
    const answer = await this.#send(repository, 'pull', 'GET', path, { headers: { accept: ACCEPT }, signal });
    if (answer.status === 404) {
      answer.body.resume();
      throw new ImageNotFound({ host: this.host, what: nameOf(repository, reference) });
    }
    const bytes = await this.#body(answer, 200, `GET ${path}`, MANIFEST_MAX_BYTES);
    const told = header(answer, 'docker-content-digest');
    const expected = isDigest(reference) ? reference : isDigest(told) ? told : undefined;
    const digest = digestOf(bytes, expected ? algorithmOf(expected) : 'sha256');
    if (expected && digest !== expected) {
      throw new RegistryMisbehaved({
        host: this.host,
        request: `GET ${path}`,
        why: `the manifest's digest is ${digest}, not ${expected}`,
      });
    }
    return { bytes, digest, mediaType: mediaTypeOf(answer) };
  }

  async hasBlob(repository: string, digest: Digest, signal?: AbortSignal): Promise<boolean> {
    const answer = await this.#send(repository, 'pull', 'HEAD', `blobs/${digest}`, { signal });
    answer.body.resume();
    return answer.status === 200;
  }

  /** A blob of a repository, to be read from any offset. A registry that knows no ranges sends all of it. */
  blobSource(repository: string, digest: Digest): BlobSource {
    const request = `GET blobs/${digest}`;
    return {
      host: this.host,
      open: async (offset, signal) => {
        const answer = await this.#send(repository, 'pull', 'GET', `blobs/${digest}`, {
          headers: rangeFrom(offset),
          signal,
        });
        return this.#blobBody(answer, offset, request, `blob ${digest} of ${repository}`);
      },
    };
  }

  /** A foreign layer at its own place, to which nothing of the registry's credentials goes. */
  foreignSource(url: URL, digest: Digest): BlobSource {
    return {
      host: url.host,
      open: async (offset, signal) => {
        const answer = await this.#o.transport.send({ method: 'GET', url, headers: rangeFrom(offset), signal });
        return this.#blobBody(answer, offset, `GET ${url.pathname}`, `foreign layer ${digest}`);
      },
    };
  }

  async #blobBody(
    answer: Answer,
    offset: number,
    request: string,
    what: string,
  ): Promise<{ body: Readable; startsAt: number }> {
    if (answer.status === 200) return { body: answer.body, startsAt: 0 };
    if (answer.status === 404) {
      answer.body.resume();
      throw new ImageNotFound({ host: answer.url.host, what });
    }
    if (answer.status !== 206) return this.#unexpected(answer, request);
    const sent = answer.headers['content-range'];
    if (parseContentRange(sent)?.first === offset) return { body: answer.body, startsAt: offset };
    answer.body.destroy();
    throw new RegistryMisbehaved({
      host: answer.url.host,
      request,
      why: `asked for bytes from ${offset}, it sends ${sent ?? 'no range'}`,
    });
  }

  /** Links a blob that another repository of the registry has. False: it has to be uploaded to `upload`, which is open already. */
  async startUpload(
    repository: string,
    mount: { digest: Digest; from: string } | undefined,
    signal?: AbortSignal,
  ): Promise<{ mounted: true } | { mounted: false; upload: URL }> {
    const query = mount ? `?mount=${mount.digest}&from=${encodeURIComponent(this.#prefixed(mount.from))}` : '';
    const scopes: Scope[] = [this.#scope(repository, 'pull,push'), ...(mount ? [this.#scope(mount.from, 'pull')] : [])];
    const answer = await this.#send(repository, 'pull,push', 'POST', `blobs/uploads/${query}`, { signal, scopes });
    await this.#body(answer, mount ? [201, 202] : 202, 'POST blobs/uploads/', ERROR_BODY_MAX_BYTES);
    return answer.status === 201 ? { mounted: true } : { mounted: false, upload: this.#location(answer) };
  }

  /** How far an upload got, and where to go on; undefined when the registry has forgotten it. */
  async uploadStatus(
    repository: string,
    upload: URL,
    signal?: AbortSignal,
  ): Promise<{ offset: number; upload: URL } | undefined> {
    const answer = await this.#send(repository, 'pull,push', 'GET', upload, { signal });
    answer.body.resume();
    if (answer.status !== 204) return undefined;
    const last = /^(?:bytes=)?0-(\d+)$/.exec(header(answer, 'range'))?.[1];
    // "0-0" is one byte or none: taken for none, since sending one byte again is refused and sending none is not.
    return { offset: last === undefined || last === '0' ? 0 : Number(last) + 1, upload: this.#location(answer) };
  }

  /** The bytes from `offset` on; without a range everything is sent at once, as every registry takes it. */
  async patchUpload(
    repository: string,
    upload: URL,
    chunk: { offset: number; bytes: number; stream: Readable | Buffer; ranged: boolean },
    signal?: AbortSignal,
  ): Promise<URL> {
    const { offset, bytes, stream } = chunk;
    const range = chunk.ranged ? { 'content-range': `${offset}-${offset + bytes - 1}` } : {};
    const headers: Record<string, string> = { 'content-type': 'application/octet-stream', ...range };
    const answer = await this.#send(repository, 'pull,push', 'PATCH', upload, {
      headers,
      signal,
      body: { bytes, stream },
    });
    await this.#body(answer, 202, 'PATCH of an upload', ERROR_BODY_MAX_BYTES);
    return this.#location(answer);
  }

  async finishUpload(repository: string, upload: URL, digest: Digest, signal?: AbortSignal): Promise<void> {
    const url = new URL(upload);
    url.searchParams.set('digest', digest);
    const answer = await this.#send(repository, 'pull,push', 'PUT', url, { signal });
    await this.#body(answer, 201, `PUT of ${digest}`, ERROR_BODY_MAX_BYTES);
  }

  /** `subjectKnown`: the registry keeps referrers itself (OCI-Subject); otherwise the caller maintains the fallback tag. */
  async putManifest(
    repository: string,
    reference: string,
    manifest: { bytes: Uint8Array; mediaType: string },
    signal?: AbortSignal,
  ): Promise<{ subjectKnown: boolean }> {
    const bytes = Buffer.from(manifest.bytes);
    const answer = await this.#send(repository, 'pull,push', 'PUT', `manifests/${reference}`, {
      headers: { 'content-type': manifest.mediaType },
      body: { bytes: bytes.byteLength, stream: bytes },
      signal,
    });
    await this.#body(answer, [200, 201, 202], `PUT manifests/${reference}`, ERROR_BODY_MAX_BYTES);
    return { subjectKnown: header(answer, 'oci-subject') !== '' };
  }

  async deleteManifest(repository: string, reference: string, signal?: AbortSignal): Promise<void> {
    const answer = await this.#send(repository, 'delete', 'DELETE', `manifests/${reference}`, { signal });
    if (answer.status === 404) throw new ImageNotFound({ host: this.host, what: nameOf(repository, reference) });
    await this.#body(answer, 202, `DELETE manifests/${reference}`, ERROR_BODY_MAX_BYTES);
  }

  /** All tags, page after page. */
  async tags(repository: string, signal?: AbortSignal): Promise<string[]> {
    const Tags = object({ tags: optional(array(string({ maxLength: 256 }))) });
    const take = (page: unknown): string[] => Tags(page, 'tags/list').tags ?? [];
    return this.#list(repository, 'tags/list', take, { signal });
  }

  /** Names of its repositories: beside the specification, as most registries have it. */
  async catalog(signal?: AbortSignal): Promise<string[]> {
    const Catalog = object({ repositories: optional(array(string({ maxLength: 256 }))) });
    const take = (page: unknown): string[] => Catalog(page, '_catalog').repositories ?? [];
    return this.#list('', new URL('/v2/_catalog', await this.#base()), take, { signal, scopes: [] });
  }

  /** A list that comes in pages. */
  async #list(
    repository: string,
    first: string | URL,
    take: (page: unknown) => string[],
    more: { signal?: AbortSignal | undefined; scopes?: Scope[] },
  ): Promise<string[]> {
    const all: string[] = [];
    let next: string | URL | undefined = first;
    for (let page = 0; next !== undefined && page < LIST_MAX_PAGES; page++) {
      const answer: Answer = await this.#send(repository, 'pull', 'GET', next, more);
      if (answer.status === 404)
        throw new ImageNotFound({ host: this.host, what: repository || 'list of repositories' });
      const body = await this.#body(answer, 200, `GET ${String(first)}`, LIST_MAX_BYTES);
      all.push(...take(JSON.parse(body.toString('utf8'))));
      const link: string | undefined = parseNextLink(header(answer, 'link'));
      next = link === undefined ? undefined : this.#within(answer, link);
    }
    return all;
  }

  /** Whether the registry answers at all, and takes our credentials: what `docker login` asks. */
  async ping(signal?: AbortSignal): Promise<void> {
    const answer = await this.#send('', 'pull', 'GET', new URL('/v2/', await this.#base()), { signal, scopes: [] });
    await this.#body(answer, 200, 'GET /v2/', ERROR_BODY_MAX_BYTES);
  }

  /** Authorizes, retries what may pass, and leaves every other status to the caller but "you may not" and "too many". */
  async #send(
    repository: string,
    actions: Scope['actions'],
    method: string,
    target: string | URL,
    more: {
      headers?: Record<string, string>;
      body?: Outgoing['body'];
      signal?: AbortSignal | undefined;
      scopes?: Scope[];
    },
  ): Promise<Answer> {
    const { clock, random } = this.#o;
    const scopes = more.scopes ?? [this.#scope(repository, actions)];
    const once = more.body !== undefined && !Buffer.isBuffer(more.body.stream);
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#authorized(repository, target, method, scopes, more).catch((error: unknown) => {
        // First contact fails at once: the next mirror, or the user, should know. After that, restarts are waited out.
        const mayPass = this.#reached && !once && isCode(error, 'REGISTRY_UNREACHABLE');
        const waitMs = mayPass ? delayBeforeRetry(RETRIES, attempt, random.next(), undefined) : undefined;
        if (waitMs === undefined) throw error;
        return waitMs;
      });
      if (typeof answer === 'number') {
        await sleep(clock, answer, more.signal);
        continue;
      }
      this.#reached = true;
      if (answer.status === 401 || answer.status === 403) return this.#refused(answer, repository, actions);
      if (!isPassing(answer.status)) return answer;
      const asked = retryAfter(answer.headers['retry-after'], clock.now());
      const waitMs = once ? undefined : delayBeforeRetry(RETRIES, attempt, random.next(), asked);
      if (waitMs === undefined) return answer.status === 429 ? this.#tooMany(answer, asked) : answer;
      answer.body.resume();
      await sleep(clock, waitMs, more.signal);
    }
  }

  async #authorized(
    repository: string,
    target: string | URL,
    method: string,
    scopes: readonly Scope[],
    more: { headers?: Record<string, string>; body?: Outgoing['body']; signal?: AbortSignal | undefined },
  ): Promise<Answer> {
    const url =
      typeof target === 'string' ? new URL(`/v2/${this.#prefixed(repository)}/${target}`, await this.#base()) : target;
    const attempt = async (): Promise<Answer> => {
      // An upload's location may lie on another host, which the registry has given its own ways in.
      const authorization = url.origin === (await this.#base()) ? await this.#auth.header(scopes) : undefined;
      const headers = { ...more.headers, ...(authorization ? { authorization } : {}) };
      return this.#o.transport.send({
        method,
        url,
        headers,
        ...(more.body ? { body: more.body } : {}),
        signal: more.signal,
      });
    };
    const answer = await attempt();
    this.#hearWarnings(answer);
    const replayable = more.body === undefined || Buffer.isBuffer(more.body.stream);
    if (answer.status !== 401 || !replayable || !(await this.#auth.learn(answer, scopes))) return answer;
    answer.body.resume();
    return attempt();
  }

  /** The scheme that works: for an insecure host, TLS is tried first and plain HTTP if nobody speaks it. */
  #base(): Promise<string> {
    this.#origin ??= this.#findOrigin();
    this.#origin.catch(() => {
      this.#origin = undefined;
    });
    return this.#origin;
  }

  async #findOrigin(): Promise<string> {
    const { schemes } = this.#o.endpoint;
    for (const scheme of schemes.slice(0, -1)) {
      const url = new URL(`${scheme}://${this.host}/v2/`);
      try {
        const answer = await this.#o.transport.send({ method: 'GET', url });
        answer.body.resume();
        return url.origin;
      } catch (error) {
        if (!isCode(error, 'REGISTRY_UNREACHABLE')) throw error;
      }
    }
    return new URL(`${schemes.at(-1)}://${this.host}`).origin;
  }

  #prefixed(repository: string): string {
    return this.#o.endpoint.prefix + repository;
  }

  #scope(repository: string, actions: Scope['actions']): Scope {
    return { repository: this.#prefixed(repository), actions };
  }

  #location(answer: Answer): URL {
    return this.#within(answer, header(answer, 'location'));
  }

  #within(answer: Answer, target: string): URL {
    if (target === '' || !URL.canParse(target, answer.url.href)) {
      throw new RegistryMisbehaved({
        host: this.host,
        request: answer.url.pathname,
        why: `it names no place to go on: ${JSON.stringify(target.slice(0, 200))}`,
      });
    }
    const url = new URL(target, answer.url);
    // Registries behind a proxy that ends TLS often say http of themselves: same host, so keep the scheme that works.
    if (url.host === answer.url.host) url.protocol = answer.url.protocol;
    return url;
  }

  async #body(answer: Answer, expected: number | number[], request: string, maxBytes: number): Promise<Buffer> {
    if (![expected].flat().includes(answer.status)) return this.#unexpected(answer, request);
    return readBody(answer, maxBytes, request);
  }

  async #unexpected(answer: Answer, request: string): Promise<never> {
    const { code, says } = await errorsOf(answer);
    throw new RegistryAnswered({ host: this.host, request, status: answer.status, says, ...(code ? { code } : {}) });
  }

  async #refused(answer: Answer, repository: string, action: string): Promise<never> {
    const { says } = await errorsOf(answer);
    throw new RegistryUnauthorized({
      host: this.host,
      repository,
      action,
      says,
      loggedIn: await this.#auth.loggedIn(),
    });
  }

  async #tooMany(answer: Answer, retryAfterMs: number | undefined): Promise<never> {
    const { says } = await errorsOf(answer);
    throw new RateLimited({ host: this.host, says, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
  }

  #hearWarnings(answer: Answer): void {
    for (const [, text = ''] of header(answer, 'warning')
      .slice(0, 4096)
      .matchAll(/299 - "((?:[^"\\]|\\.)*)"/g)) {
      if (this.#warned.has(text)) continue;
      this.#warned.add(text);
      this.#o.onWarning?.(this.host, text.replace(/\\(.)/g, '$1'));
    }
  }
}

const ACCEPT = [...MANIFEST_MEDIA_TYPES, '*/*;q=0.1'].join(', ');

function rangeFrom(offset: number): Record<string, string> {
  return offset > 0 ? { range: `bytes=${offset}-` } : {};
}

function header(answer: Answer, name: string): string {
  const value = answer.headers[name];
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

function mediaTypeOf(answer: Answer): string {
  return header(answer, 'content-type').split(';')[0]?.trim() ?? '';
}

function nameOf(repository: string, reference: string): string {
  return isDigest(reference) ? `${repository}@${reference}` : `${repository}:${reference}`;
}

/** What a registry says of an error, however broken its body. */
async function errorsOf(answer: Answer): Promise<{ code: string | undefined; says: string }> {
  const body = await readBody(answer, ERROR_BODY_MAX_BYTES, 'error body').catch(() => Buffer.alloc(0));
  try {
    const { errors } = ErrorBody(JSON.parse(body.toString('utf8')), 'errors');
    const [first] = errors;
    return {
      code: first?.code,
      says:
        errors
          .map((e) => e.message || e.code || '')
          .join('; ')
          .slice(0, 1000) || `status ${answer.status}`,
    };
  } catch {
    // Proxies answer with HTML: the status line says more.
    return { code: undefined, says: answer.body.statusMessage || `status ${answer.status}` };
  }
}
