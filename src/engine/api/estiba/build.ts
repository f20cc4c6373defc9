import { Readable } from 'node:stream';
import { newId } from '#base/random.ts';
import { fail } from '#base/shape.ts';
import { Agents } from '#build/agents.ts';
import { type Builder, type BuildRequest, readDockerfile } from '#build/builder.ts';
import { AnnouncedContexts } from '#build/context/announced.ts';
import { receiveContext, receiveRemote } from '#build/context/classic.ts';
import { ContextTree } from '#build/context/tree.ts';
import type { BuildEvent } from '#build/events.ts';
import { describeFailure } from '#build/failure.ts';
import { sandboxLimits } from '#build/sandbox.ts';
import { epochOf } from '#engine/api/docker/build.ts';
import { textOf } from '#engine/api/docker/query.ts';
import { json, jsonLines, type Reply } from '#engine/api/reply.ts';
import type { RouteRow } from '#engine/api/router.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import { IGNORE_NOTHING, parseIgnore } from '#spec/dockerfile/ignore.ts';
import {
  BUILD_API,
  type BuildLine,
  type BuildWish,
  buildWish,
  EXPORT_TYPES,
  type FailedStepImage,
} from '#spec/estiba/build.ts';
import { formatPlatform, parsePlatform } from '#spec/image/platform.ts';
import { parseReference, withDefaultTag } from '#spec/image/reference.ts';

/** Our own build calls; `spec/estiba/build.ts` draws the conversation. */
export const BUILD_ROUTES: readonly RouteRow[] = [
  { method: 'POST', path: `${BUILD_API}/contexts`, id: 'EstibaBuildContext' },
  { method: 'POST', path: `${BUILD_API}/files`, id: 'EstibaBuildFiles' },
  { method: 'POST', path: BUILD_API, id: 'EstibaBuild' },
  { method: 'POST', path: `${BUILD_API}/agents/{id}/{name}`, id: 'EstibaBuildAgent' },
  { method: 'GET', path: `${BUILD_API}/exports/{id}`, id: 'EstibaBuildExport' },
  { method: 'GET', path: `${BUILD_API}/failed`, id: 'EstibaBuildFailed' },
  { method: 'POST', path: `${BUILD_API}/failed/{id}/image`, id: 'EstibaBuildFailedImage' },
];

interface Running {
  agents: Agents;
}

export function estibaBuildHandlers(builder: Builder): Handlers {
  const { node } = builder;
  const contexts = new AnnouncedContexts(node.files, node.clock, node.random);
  const running = new Map<string, Running>();
  return {
    EstibaBuildContext: async ({ body, headers }) => {
      if (headers['content-type'] !== 'application/x-tar') return json(await contexts.announce(body));
      const { context } = await receiveContext(body, 'Dockerfile', node);
      return json({ id: contexts.keep(context), missing: [] });
    },
    EstibaBuildFiles: async ({ body }) => json({ received: await contexts.receive(body) }),
    EstibaBuild: (request) => buildReply(builder, contexts, running, request),
    EstibaBuildAgent: ({ params, signal }) => ({
      kind: 'hijack',
      type: 'application/octet-stream',
      run: async (tunnel) => {
        await running.get(params['id'] ?? '')?.agents.offer(params['name'] ?? '', tunnel, signal);
      },
    }),
    EstibaBuildExport: async ({ params, query }) => {
      const wished = textOf(query, 'type') ?? 'tar';
      const type =
        EXPORT_TYPES.find((known) => known === wished) ??
        fail('query type', wished, `is none of ${EXPORT_TYPES.join(', ')}`);
      const image = await node.images.get(params['id'] ?? '');
      return {
        kind: 'pipe',
        status: 200,
        type: 'application/x-tar',
        body: Readable.from(builder.export(image, type), { objectMode: false }),
      };
    },
    EstibaBuildFailed: () =>
      json(
        builder.failed
          .list()
          .map(({ id, step, code, atMs }) => ({ id, title: step.argv.join(' '), command: step.argv, code, atMs })),
      ),
    EstibaBuildFailedImage: async ({ params }) => {
      const wished = params['id'] ?? '';
      const { image, network } = await builder.imageOfFailed(wished === 'last' ? undefined : wished);
      return json({ Id: image.id, Network: network } satisfies FailedStepImage, 201);
    },
  };
}

async function buildReply(
  builder: Builder,
  contexts: AnnouncedContexts,
  running: Map<string, Running>,
  request: ApiRequest,
): Promise<Reply> {
  const wish = buildWish((await request.json()) ?? {}, '$');
  const { node } = builder;
  const id = newId(node.random).slice(0, 12);
  return jsonLines(async (put, signal) => {
    let last: Promise<void> = Promise.resolve();
    const tell = (line: BuildLine): void => {
      last = last.then(() => put(line));
      last.catch(() => undefined); // the client is gone; the build ends by its signal
    };
    const startedAtMs = node.clock.monotonic();
    const agents = new Agents(`${node.runDirectory}/${id}-agents`, node.clock);
    running.set(id, { agents });
    try {
      tell({ at: 'build', id });
      const build = await requestOf(builder, contexts, wish, agents, signal);
      if (wish.check) {
        const ignore = wish.ignore === undefined ? IGNORE_NOTHING : parseIgnore(wish.ignore);
        const { warnings, fail: failed } = await builder.check(build, ignore, signal);
        for (const event of warnings) tell(lineOf(event));
        tell({ at: 'checked', warnings: warnings.length, failed });
      } else {
        const { image } = await builder.build(build, (event) => tell(lineOf(event)), signal);
        const tookMs = Math.round(node.clock.monotonic() - startedAtMs);
        tell({ at: 'result', imageId: image.id, digest: image.target.digest, tags: wish.tags, tookMs });
      }
    } catch (error) {
      tell({ at: 'error', error: describeFailure(error) });
    } finally {
      running.delete(id);
      await agents.close();
    }
    await last;
  });
}

async function requestOf(
  builder: Builder,
  announced: AnnouncedContexts,
  wish: BuildWish,
  agents: Agents,
  signal: AbortSignal,
): Promise<BuildRequest> {
  const { node } = builder;
  const contexts = new Map<string, ContextTree>();
  const imageContexts = new Map<string, string>();
  let { text } = wish.dockerfile;
  for (const [name, source] of Object.entries(wish.contexts)) {
    if (source.id !== undefined) contexts.set(name, announced.take(source.id));
    else if (source.image !== undefined) imageContexts.set(name, source.image);
    else if (source.url !== undefined) {
      const received = await receiveRemote(source.url, wish.dockerfile.name, Readable.from([]), node, signal);
      contexts.set(name, received.context);
      if (name === '') text ??= received.text;
    }
  }
  const main = contexts.get('') ?? new ContextTree();
  contexts.set('', main);
  const args = new Map(Object.entries(wish.buildArgs));
  const platform = parsePlatform(wish.platform ?? formatPlatform(node.platform), node.platform);
  const sockets = new Map<string, string>();
  for (const name of wish.ssh) sockets.set(name, await agents.listen(name));
  return {
    file: { name: wish.dockerfile.name, text: text ?? (await readDockerfile(node, main, wish.dockerfile.name)) },
    contexts,
    options: {
      ...(wish.target === undefined ? {} : { target: wish.target }),
      args,
      targetPlatform: formatPlatform(platform),
      buildPlatform: formatPlatform(node.platform),
      contexts: new Set([...contexts.keys()].filter((name) => name !== '')),
      imageContexts,
      labels: wish.labels,
      noCache: wish.noCache || (wish.noCacheFilter.length > 0 ? new Set(wish.noCacheFilter) : false),
    },
    given: {
      secrets: new Map(Object.entries(wish.secrets).map(([name, value]) => [name, Buffer.from(value, 'base64')])),
      agents: sockets,
    },
    limits: sandboxLimits(wish.limits, { network: wish.network, extraHosts: wish.addHosts }),
    allow: new Set(wish.allow),
    pull: wish.pull,
    squash: wish.squash,
    epochSec: epochOf(args),
    names: wish.tags.map((tag) => withDefaultTag(parseReference(tag))),
    auth: authOf(wish.registryAuth),
  };
}

/** Base64 of JSON, as `X-Registry-Config`. */
function authOf(text: string | undefined): Record<string, object> {
  if (text === undefined) return {};
  const parsed: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
  return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, object>) : {};
}

function lineOf(event: BuildEvent): BuildLine {
  switch (event.at) {
    case 'planned':
      return { at: 'steps', titles: event.graph.steps.map((step) => step.title) };
    case 'warning': {
      const { check, message, lines } = event.warning;
      return { at: 'warning', check, message, line: lines.start, excerpt: event.excerpt };
    }
    case 'output':
      return { ...event, text: event.text.toString() };
    default:
      return event;
  }
}
