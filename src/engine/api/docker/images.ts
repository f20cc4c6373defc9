import { fail } from '#base/shape.ts';
import { textOf } from '#engine/api/docker/query.ts';
import { jsonLines, type Reply } from '#engine/api/reply.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import type { Engine } from '#engine/core/engine.ts';
import { dockerProgress, type Progress } from '#engine/core/images.ts';

/** Images' operations of the Docker API. */
export function imageHandlers(engine: Engine): Handlers {
  return {
    ImageCreate: (request) => pullReply(engine, request),
  };
}

function pullReply({ images, events }: Engine, request: ApiRequest): Reply {
  const { query } = request;
  const from = textOf(query, 'fromImage') ?? fail('query fromImage', null, 'is required: the image to pull');
  const name = withTag(from, textOf(query, 'tag'));
  return progressReply('pull', async (onProgress, signal) => {
    const image = await images.pull(name, {
      platform: textOf(query, 'platform'),
      auth: headerOf(request, 'x-registry-auth'),
      onProgress,
      signal,
    });
    events.publish({
      type: 'image',
      action: 'pull',
      id: name,
      attributes: { name, ...image.platform.config.config?.Labels },
    });
  });
}

/** `tag` may be a digest; a name that has one already keeps it. */
export function withTag(name: string, tag: string | undefined): string {
  if (tag === undefined) return name;
  return tag.includes(':') ? `${name}@${tag}` : `${name}:${tag}`;
}

export function headerOf(request: ApiRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** Lines as they come. The head waits for the first: a name that cannot be found is an answer of its own, not a line. */
export function progressReply(
  doing: 'pull' | 'push',
  work: (onProgress: (event: Progress) => void, signal: AbortSignal) => Promise<void>,
): Reply {
  return jsonLines(async (put, signal) => {
    const pending: object[] = [];
    let wake: () => void = () => undefined;
    let ended = false;
    const done = work((event) => {
      pending.push(...dockerProgress(event, doing));
      wake();
    }, signal).finally(() => {
      ended = true;
      wake();
    });
    done.catch(() => undefined); // awaited below
    while (!ended || pending.length > 0) {
      for (let next = pending.shift(); next; next = pending.shift()) await put(next);
      if (!ended)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
    await done;
  });
}
