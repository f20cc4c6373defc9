import { isIP } from 'node:net';
import { posix } from 'node:path';
import { EstibaError } from '#base/errors.ts';
import { array, fail, integer as integerShape, object, optional, record, string } from '#base/shape.ts';
import { type Builder, type BuildRequest, readDockerfile } from '#build/builder.ts';
import { receiveContext, receiveRemote } from '#build/context/classic.ts';
import type { BuildEvent } from '#build/events.ts';
import { describeFailure } from '#build/failure.ts';
import { type SandboxLimits, sandboxLimits } from '#build/sandbox.ts';
import type { CacheUse } from '#build/tidy.ts';
import { type ClassicLine, ClassicProgress } from '#engine/api/docker/build-progress.ts';
import { prune } from '#engine/api/docker/build-prune.ts';
import { type BuildKitLine, BuildKitProgress } from '#engine/api/docker/buildkit-progress.ts';
import { BuildSessions } from '#engine/api/docker/buildkit-session.ts';
import { flag, integer, textOf } from '#engine/api/docker/query.ts';
import { NotSupported } from '#engine/api/errors.ts';
import { json, jsonLines, type Reply } from '#engine/api/reply.ts';
import type { ApiRequest, Handler, Handlers } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';
import { buildLimits } from '#spec/estiba/build.ts';
import { formatPlatform, parsePlatform } from '#spec/image/platform.ts';
import { parseReference, type Reference, withDefaultTag } from '#spec/image/reference.ts';

/** The classic builder's calls: a context as a tar comes in, lines go out. */
export function buildHandlers(builder: Builder): Handlers {
  const sessions = new BuildSessions();
  return {
    Session: (request) => sessions.open(request),
    ImageBuild: (request) =>
      textOf(request.query, 'version') === '2'
        ? buildKitReply(builder, sessions, request)
        : buildReply(builder, request),
    BuildPrune: async (request) => json(await prune(builder, request)),
  };
}

/** `docker system df`: the engine knows no builder; what builds keep is added to its answer. */
export function withBuildCache(usage: Handler | undefined, builder: Builder): Handlers {
  if (!usage) return {};
  return {
    SystemDataUsage: async (request) => {
      const reply = await usage(request);
      const types = request.query.getAll('type');
      if (reply.kind !== 'json' || (types.length > 0 && !types.includes('build-cache'))) return reply;
      const uses = await builder.usage();
      const total = uses.reduce((sum, use) => sum + use.bytes, 0);
      const size = compareVersions(request.version, '1.42') < 0 ? { BuilderSize: total } : {};
      return { ...reply, body: { ...(reply.body as object), ...size, BuildCache: uses.map(cacheJson) } };
    },
  };
}

function cacheJson(use: CacheUse): object {
  return {
    ID: use.id,
    Parents: null,
    Type: use.type,
    Description: use.description,
    InUse: use.inUse,
    Shared: use.shared,
    Size: use.bytes,
    CreatedAt: new Date(use.createdAtMs).toISOString(),
    LastUsedAt: new Date(use.usedAtMs).toISOString(),
    UsageCount: use.uses,
  };
}

async function buildReply(builder: Builder, request: ApiRequest): Promise<Reply> {
  const { query } = request;
  const quiet = flag(query, 'q');
  const build = await receive(builder, request);
  const unused = unusedArgs(build); // reads the file: what it does wrong is told before the answer begins
  return jsonLines(async (put, signal) => {
    const lines = new LineQueue(put);
    const progress = new ClassicProgress((line) => lines.push(line));
    if (!quiet && unused.length > 0)
      lines.push({ stream: `[Warning] One or more build-args [${unused.join(' ')}] were not consumed\n` });
    if (!quiet && (jsonOf(query, 'cachefrom', array(string())) ?? []).length > 0)
      lines.push({
        stream:
          '[Warning] --cache-from is not needed: steps are found by what they do and take, whatever image has them\n',
      });
    try {
      const finished = await builder.build(
        build,
        (event) => {
          if (quiet) return;
          if (event.at === 'planned') progress.begin(event.graph);
          else progress.take(event);
        },
        signal,
      );
      const id = finished.image.id;
      lines.push({ aux: { ID: id } });
      if (quiet) lines.push({ stream: `${id}\n` });
      else {
        lines.push({ stream: `Successfully built ${id.slice(7, 19)}\n` });
        for (const tag of textsOf(query, 't')) lines.push({ stream: `Successfully tagged ${familiarTag(tag)}\n` });
      }
    } catch (error) {
      progress.flush();
      lines.push(failureLine(error));
    }
    await lines.end();
  });
}

/**
 * The same build for clients that ask for BuildKit: its progress, and credentials from the session where the request brings none. The
 * context comes as a tar; a client that serves it by its session (docker build with BuildKit) is told what to do instead.
 */
async function buildKitReply(builder: Builder, sessions: BuildSessions, request: ApiRequest): Promise<Reply> {
  const { query } = request;
  if (textOf(query, 'remote') === 'client-session')
    throw new NotSupported({
      what: "a context that the client serves by BuildKit's session",
      instead: 'set DOCKER_BUILDKIT=0, or use estiba build',
    });
  const received = await receive(builder, request);
  const session = textOf(query, 'session');
  const asked = session === undefined ? {} : await sessionCredentials(sessions, session, received);
  const build = { ...received, auth: { ...asked, ...received.auth } };
  return jsonLines(async (put, signal) => {
    const lines = new LineQueue<BuildKitLine | ClassicLine>(put);
    const progress = new BuildKitProgress(
      (line) => lines.push(line),
      () => builder.node.clock.now(),
    );
    try {
      const tell = (event: BuildEvent): void =>
        event.at === 'planned' ? progress.begin(event.graph) : progress.take(event);
      const { image } = await builder.build(build, tell, signal);
      progress.built(image.id);
    } catch (error) {
      lines.push(failureLine(error));
    }
    await lines.end();
  });
}

/** Of the registries that FROM lines name; names that variables make are not known before the build plans. */
async function sessionCredentials(
  sessions: BuildSessions,
  session: string,
  { file }: BuildRequest,
): Promise<BuildRequest['auth']> {
  const { stages } = parseDockerfile(file.text, file.name);
  const names = new Set(stages.map((stage) => stage.name));
  const images = stages.map((stage) => stage.base).filter((image) => !image.includes('$') && !names.has(image));
  const registries = new Set(images.filter((i) => i !== 'scratch').map((image) => parseReference(image).registry));
  const auth: Record<string, object> = {};
  for (const registry of registries) {
    const found = await sessions.credentials(session, registry);
    if (found) auth[registry] = found;
  }
  return auth;
}

/** Everything that can be refused is, before the answer begins. */
async function receive(builder: Builder, request: ApiRequest): Promise<BuildRequest> {
  const { query, signal } = request;
  const { node } = builder;
  refuseUnsupported(query);
  const names = textsOf(query, 't').map((tag): Reference => withDefaultTag(parseReference(tag)));
  const args = argsOf(query);
  const limits = limitsOf(query);
  const platform = parsePlatform(textOf(query, 'platform') ?? formatPlatform(node.platform), node.platform);
  const remote = textOf(query, 'remote');
  const wished = posix.normalize(`/${textOf(query, 'dockerfile') ?? 'Dockerfile'}`).slice(1);
  const received = remote
    ? await receiveRemote(remote, wished, request.body, node, signal)
    : await receiveContext(request.body, wished, node);
  const { context, name } = received;
  const text = received.text ?? (await readDockerfile(node, context, name));
  return {
    file: { name, text },
    contexts: new Map([['', context]]),
    options: {
      ...(textOf(query, 'target') === undefined ? {} : { target: textOf(query, 'target') ?? '' }),
      args,
      targetPlatform: formatPlatform(platform),
      buildPlatform: formatPlatform(node.platform),
      contexts: new Set(),
      labels: jsonOf(query, 'labels', record(string())) ?? {},
      noCache: flag(query, 'nocache'),
    },
    given: { secrets: new Map(), agents: new Map() },
    limits,
    allow: new Set(),
    pull: flag(query, 'pull'),
    squash: flag(query, 'squash'),
    epochSec: epochOf(args),
    names,
    auth: registryConfig(request),
  };
}

/** A wish that nobody would look at is refused: it would be believed. `securityopt` and `isolation` say nothing when empty. */
function refuseUnsupported(query: URLSearchParams): void {
  const security = jsonOf(query, 'securityopt', array(string())) ?? [];
  if (security.length > 0)
    throw new NotSupported({ what: '--security-opt in a build', instead: 'commands run with the default profile' });
  const isolation = textOf(query, 'isolation') ?? 'default';
  if (isolation !== 'default')
    throw new NotSupported({ what: `--isolation ${isolation}`, instead: 'Linux has one kind: default' });
  if (textOf(query, 'outputs'))
    throw new NotSupported({ what: 'outputs of the classic builder', instead: 'use estiba build --output' });
}

function limitsOf(query: URLSearchParams): SandboxLimits {
  const ulimits = jsonOf(
    query,
    'ulimits',
    array(object({ Name: string(), Soft: integerShape(), Hard: integerShape() })),
  );
  // Clients send a zero or nothing for what was not wished.
  const wish = {
    memoryBytes: integer(query, 'memory') || undefined,
    memorySwapBytes: integer(query, 'memswap') || undefined,
    cpuShares: integer(query, 'cpushares') || undefined,
    cpuPeriodUs: integer(query, 'cpuperiod') || undefined,
    cpuQuotaUs: integer(query, 'cpuquota') || undefined,
    cpusetCpus: textOf(query, 'cpusetcpus') || undefined,
    cpusetMems: textOf(query, 'cpusetmems') || undefined,
    cgroupParent: textOf(query, 'cgroupparent') || undefined,
    shmBytes: integer(query, 'shmsize') || undefined,
    ulimits: (ulimits ?? []).map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
  };
  return sandboxLimits(buildLimits(wish, 'query'), {
    network: textOf(query, 'networkmode') ?? 'default',
    extraHosts: hostsOf(query),
  });
}

/** Once or more, each `name:address`; old clients send a list in one. */
function hostsOf(query: URLSearchParams): string[] {
  const hosts = query.getAll('extrahosts').flatMap((text) => (text.startsWith('[') ? JSON.parse(text) : [text]));
  return hosts.filter(Boolean).map((host: unknown) => {
    const text = String(host);
    const at = text.indexOf(':');
    const address = text.slice(at + 1).replace(/^\[(.*)\]$/, '$1');
    if (at <= 0 || (isIP(address) === 0 && address !== 'host-gateway'))
      fail('query extrahosts', text, 'is not name:address');
    return text;
  });
}

/** `{"NAME": null}` means the daemon's own variable, which it does not hand out. */
function argsOf(query: URLSearchParams): Map<string, string> {
  const given = jsonOf(query, 'buildargs', record(optional(string()))) ?? {};
  return new Map(Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

export function epochOf(args: ReadonlyMap<string, string>): number | undefined {
  const text = args.get('SOURCE_DATE_EPOCH');
  if (text === undefined || text === '') return undefined;
  return /^\d{1,12}$/.test(text) ? Number(text) : fail('SOURCE_DATE_EPOCH', text, 'is not a number of seconds');
}

function jsonOf<T>(query: URLSearchParams, name: string, shape: (value: unknown, path: string) => T): T | undefined {
  const text = textOf(query, name);
  if (text === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return fail(`query ${name}`, text, 'is not JSON');
  }
  return parsed === null ? undefined : shape(parsed, `query ${name}`);
}

function textsOf(query: URLSearchParams, name: string): string[] {
  return query.getAll(name).filter((text) => text !== '');
}

function familiarTag(tag: string): string {
  return /:[^/]+$/.test(tag) ? tag : `${tag}:latest`;
}

/** Docker's builder tells of arguments that no ARG line takes. */
function unusedArgs({ file, options }: BuildRequest): string[] {
  const { metaArgs, stages } = parseDockerfile(file.text, file.name);
  const lines = [...metaArgs, ...stages.flatMap((stage) => stage.instructions)];
  const declared = new Set(lines.flatMap((line) => (line.do === 'arg' ? line.args.map((arg) => arg.name) : [])));
  const known = (name: string): boolean => /_proxy$/i.test(name) || name === 'SOURCE_DATE_EPOCH' || declared.has(name);
  return [...options.args.keys()].filter((name) => !known(name));
}

const registryAuths = record(
  object({
    username: optional(string()),
    password: optional(string()),
    identitytoken: optional(string()),
    auth: optional(string()),
    serveraddress: optional(string()),
  }),
);

/** `X-Registry-Config`: credentials by registry, base64 of JSON. */
function registryConfig(request: ApiRequest): Record<string, object> {
  const header = request.headers['x-registry-config'];
  if (typeof header !== 'string' || header === '') return {};
  try {
    return registryAuths(JSON.parse(Buffer.from(header, 'base64url').toString() || '{}'), 'X-Registry-Config');
  } catch (error) {
    if (error instanceof EstibaError) throw error;
    return fail('X-Registry-Config', header, 'is not base64 of JSON');
  }
}

/** As `docker build` prints it: what failed, then where. Its last output has been told. */
function failureLine(error: unknown): ClassicLine {
  const { message, hint, excerpt, exitCode } = describeFailure(error);
  const text = [message + (hint === undefined ? '' : `: ${hint}`), ...(excerpt ? [excerpt] : [])].join('\n');
  return { errorDetail: { ...(exitCode === undefined ? {} : { code: exitCode }), message: text }, error: text };
}

/** Events come at once, a client reads at its own pace. */
class LineQueue<Line = ClassicLine> {
  readonly #put: (line: Line) => Promise<void>;
  #last: Promise<void> = Promise.resolve();

  constructor(put: (line: Line) => Promise<void>) {
    this.#put = put;
  }

  push(line: Line): void {
    this.#last = this.#last.then(() => this.#put(line));
    this.#last.catch(() => undefined); // the client is gone; the build ends by its signal
  }

  end(): Promise<void> {
    return this.#last;
  }
}
