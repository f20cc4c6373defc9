import { fail } from '#base/shape.ts';
import { applyChanges } from '#build/change.ts';
import { imageHistory, imageInspect, imageSummary, manifestSummary } from '#engine/api/docker/image-json.ts';
import { createdMs, isDangling, selectImages, timeOf } from '#engine/api/docker/image-list.ts';
import { progressReply } from '#engine/api/docker/progress.ts';
import { flag, headerOf, integer, textOf } from '#engine/api/docker/query.ts';
import { NotSupported } from '#engine/api/errors.ts';
import { empty, json, jsonLines, type Reply } from '#engine/api/reply.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import type { Engine } from '#engine/core/engine.ts';
import type { Image } from '#engine/core/images.ts';
import { labelMatches, parseFilters } from '#spec/docker/filters.ts';
import type { ImageManifestSummary } from '#spec/docker/types.gen.ts';
import type { RunConfig } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import { parseReference } from '#spec/image/reference.ts';

const TAR = 'application/x-tar';
/** Docker's own for `docker search`. */
const SEARCH_LIMIT = 25;
const SEARCH_MAX = 100;

/** Images' operations of the Docker API, by operation id. */
export function imageHandlers(engine: Engine, now: () => number): Handlers {
  const { images, events } = engine;
  const name = (request: ApiRequest): string => request.params['name'] ?? '';
  const tell = (action: string, image: Image, said: string): void =>
    events.publish({ type: 'image', action, id: said, attributes: { name: said, ...labelsOf(image) } });

  return {
    ImageList: async ({ query, version }) => {
      const filters = parseFilters(textOf(query, 'filters'));
      const one = async (which: string): Promise<Image | undefined> => {
        const said = filters.get(which)[0];
        return said === undefined ? undefined : images.store.get(said);
      };
      const [before, since] = [await one('before'), await one('since')];
      const near = { ...(before ? { before } : {}), ...(since ? { since } : {}), nowMs: now() };
      const selected = selectImages(await images.store.list(), filters, near);
      return json(
        await Promise.all(
          selected.map(async (image) =>
            imageSummary(image, {
              sizeBytes: images.sizeOf(image),
              version,
              ...(flag(query, 'shared-size') ? { sharedBytes: await images.sharedBytes(image) } : {}),
              ...(flag(query, 'manifests') ? { manifests: await manifestsOf(image) } : {}),
            }),
          ),
        ),
      );
    },

    ImageInspect: async (request) => {
      const image = await images.get(name(request), platformIn(request.query));
      const manifests = flag(request.query, 'manifests') ? { manifests: await manifestsOf(image) } : {};
      const parent = await images.parentOf(image);
      return json(imageInspect(image, images, request.version, { parent, ...manifests }));
    },

    ImageHistory: async (request) =>
      json(imageHistory(await images.get(name(request), platformIn(request.query)), images)),

    ImageCreate: (request) => (textOf(request.query, 'fromSrc') ? importReply(engine, request) : pullReply(request)),

    ImagePush: async (request) => {
      const tag = textOf(request.query, 'tag');
      const platform = platformIn(request.query);
      const said = withTag(name(request), tag);
      // Without a tag all of them are meant. What is not here is an answer of its own.
      const wanted = isWholeRepository(said) ? images.tagsToPush(said) : [said];
      const found = await Promise.all(wanted.map((one) => images.get(one, platform)));
      return progressReply('push', async (onProgress, signal) => {
        for (const [i, one] of wanted.entries()) {
          await images.push(one, { auth: headerOf(request, 'x-registry-auth'), platform, onProgress, signal });
          if (found[i]) tell('push', found[i], one);
        }
      });
    },

    ImageTag: async (request) => {
      const repo = textOf(request.query, 'repo') ?? fail('query repo', null, 'is required: the new name');
      await images.tag(name(request), withTag(repo, textOf(request.query, 'tag')));
      return empty(201);
    },

    ImageDelete: async (request) => {
      if (request.query.has('platforms'))
        throw new NotSupported({
          what: 'removing single platforms of an image',
          instead: 'remove the image and pull the platforms that are wanted',
        });
      const { untagged, deleted } = await images.remove(name(request), { force: flag(request.query, 'force') });
      if (deleted.length > 0 && !flag(request.query, 'noprune')) await images.collect();
      return json([...untagged.map((tag) => ({ Untagged: tag })), ...deleted.map((id) => ({ Deleted: id }))]);
    },

    ImagePrune: async ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters')).allow('dangling', 'label', 'label!', 'until');
      const until = filters.get('until')[0];
      const untilMs = until === undefined ? Number.POSITIVE_INFINITY : timeOf(until, now());
      const wanted = (image: Image): boolean =>
        createdMs(image) < untilMs &&
        filters.every('label', (label) => labelMatches(labelsOf(image), label)) &&
        filters.every('label!', (label) => !labelMatches(labelsOf(image), label));
      const danglingOnly = filters.flag('dangling') ?? true;
      const { untagged, deleted, freedBytes } = await images.prune(
        (image) => wanted(image) && (!danglingOnly || isDangling(image)),
      );
      events.publish({ type: 'image', action: 'prune', id: '', attributes: { reclaimed: String(freedBytes) } });
      return json({
        ImagesDeleted: [...untagged.map((tag) => ({ Untagged: tag })), ...deleted.map((id) => ({ Deleted: id }))],
        SpaceReclaimed: freedBytes,
      });
    },

    ImageGet: (request) => saveReply([name(request)], platformIn(request.query)),
    ImageGetAll: ({ query }) =>
      saveReply(
        query.getAll('names').flatMap((names) => names.split(',')),
        platformIn(query),
      ),

    ImageLoad: (request) =>
      jsonLines(async (put) => {
        for (const { image, names } of await images.load(request.body, platformIn(request.query))) {
          tell('load', image, names[0] ?? image.id);
          for (const tag of names) await put({ stream: `Loaded image: ${tag}\n` });
          if (names.length === 0) await put({ stream: `Loaded image ID: ${image.id}\n` });
        }
      }),

    ImageSearch: async (request) => {
      const { query, signal } = request;
      const term = textOf(query, 'term') ?? fail('query term', null, 'is required: a part of a name');
      const limit = integer(query, 'limit') || SEARCH_LIMIT;
      if (limit < 0 || limit > SEARCH_MAX) fail('query limit', limit, `is not between 1 and ${SEARCH_MAX}`);
      const filters = parseFilters(textOf(query, 'filters')).allow('is-official', 'is-automated', 'stars');
      const names = await images.search(term, headerOf(request, 'x-registry-auth'), signal);
      if (!names)
        throw new NotSupported({
          what: 'searching Docker Hub',
          instead:
            'name a registry (docker search HOST/TERM), or give the daemon a mirror, whose repositories are searched',
        });
      // Registries keep neither descriptions nor stars.
      const found = names.map((name) => ({
        name,
        description: '',
        star_count: 0,
        is_official: !name.includes('/'),
        is_automated: false,
      }));
      const official = filters.flag('is-official');
      const shown = found.filter(
        (one) =>
          (official === undefined || one.is_official === official) &&
          filters.flag('is-automated') !== true &&
          filters.every('stars', (stars) => Number(stars) <= 0),
      );
      return json(shown.slice(0, limit));
    },

    DistributionInspect: async (request) => {
      const { digest, mediaType, sizeBytes, platforms } = await images.inspectRemote(
        name(request),
        headerOf(request, 'x-registry-auth'),
        request.signal,
      );
      return json({ Descriptor: { mediaType, digest, size: sizeBytes }, Platforms: platforms });
    },
  };

  function pullReply(request: ApiRequest): Promise<Reply> {
    const { query } = request;
    const from = textOf(query, 'fromImage') ?? fail('query fromImage', null, 'is required: the image to pull');
    const said = withTag(from, textOf(query, 'tag'));
    images.check(said);
    const auth = headerOf(request, 'x-registry-auth');
    return progressReply('pull', async (onProgress, signal) => {
      const wanted = isWholeRepository(said) ? await images.tagsToPull(said, auth, signal) : [said];
      for (const one of wanted) {
        const image = await images.pull(one, { platform: textOf(query, 'platform'), auth, onProgress, signal });
        tell('pull', image, one);
      }
    });
  }

  function platformIn(query: URLSearchParams): Platform | undefined {
    const [said, ...more] = query.getAll('platform');
    if (more.length > 0) fail('query platform', more.join(), 'is one of several: one platform is taken at a time');
    return said ? images.parsePlatform(said) : undefined;
  }

  async function manifestsOf(image: Image): Promise<ImageManifestSummary[]> {
    const usersOf = (imageId: string): string[] =>
      engine.containers
        .list()
        .filter(({ image }) => image.id === imageId)
        .map(({ id }) => id);
    return (await images.manifests(image)).map((facts) => manifestSummary(facts, usersOf));
  }

  async function saveReply(names: readonly string[], platform: Platform | undefined): Promise<Reply> {
    if (names.length === 0) fail('query names', null, 'is required: the images to save');
    const archive = await images.save(names, platform);
    for (const one of names) tell('save', await images.get(one, platform), one);
    return {
      kind: 'stream',
      status: 200,
      type: TAR,
      run: async (out) => {
        for await (const chunk of archive) await out.write(chunk);
      },
    };
  }
}

/** `docker import`: the body, or what stands at an address that is not ours to ask for. */
function importReply({ images, events }: Engine, request: ApiRequest): Reply {
  const { query } = request;
  const from = textOf(query, 'fromSrc');
  if (from !== '-')
    throw new NotSupported({
      what: `importing from ${from}`,
      instead: 'download it and import the file, or - for standard input',
    });
  const repository = textOf(query, 'repo');
  const changes = query.getAll('changes').flatMap((text) => text.split('\n').filter((line) => line.trim() !== ''));
  const config = applyChanges({}, changes) as RunConfig;
  return jsonLines(async (put) => {
    const image = await images.import(request.body, {
      name: repository === undefined ? undefined : withTag(repository, textOf(query, 'tag')),
      comment: textOf(query, 'message') ?? '',
      platform: textOf(query, 'platform'),
      config,
    });
    events.publish({ type: 'image', action: 'import', id: image.id, attributes: { name: image.id } });
    await put({ status: image.id });
  });
}

/** Neither tag nor digest: the API means all tags of it, which is `docker pull -a` and `push -a`. */
function isWholeRepository(name: string): boolean {
  const { tag, digest } = parseReference(name);
  return tag === undefined && digest === undefined;
}

/** `tag` may be a digest. */
function withTag(name: string, tag: string | undefined): string {
  if (tag === undefined) return name;
  return tag.includes(':') ? `${name}@${tag}` : `${name}:${tag}`;
}

function labelsOf(image: Image): Record<string, string> {
  return image.platform.config.config?.Labels ?? {};
}
