import { isCode } from '#base/errors.ts';
import { fail } from '#base/shape.ts';
import { parseDurationNs } from '#base/units.ts';
import { type AttachOptions, attachReply, attachWebSocketReply } from '#engine/api/docker/attach.ts';
import { type CreateRequest, createRequest } from '#engine/api/docker/create.ts';
import { sizesJson } from '#engine/api/docker/disk-usage.ts';
import { type InspectPlaces, inspectContainer } from '#engine/api/docker/inspect.ts';
import { containerSummary, selectContainers } from '#engine/api/docker/list.ts';
import { flag, integer, textOf } from '#engine/api/docker/query.ts';
import { parseTime } from '#engine/api/docker/time.ts';
import { updateRequest } from '#engine/api/docker/update.ts';
import { BadCreate, errorBody, NotSupported } from '#engine/api/errors.ts';
import { empty, json, type Reply } from '#engine/api/reply.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import type { Containers } from '#engine/core/containers.ts';
import { NoSuchContainer } from '#engine/core/errors.ts';
import type { Events } from '#engine/core/events.ts';
import { linkedNames, oldLinks, withoutLink } from '#engine/core/links.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { MountSpec } from '#engine/core/spec.ts';
import type { WaitCondition } from '#engine/core/waiters.ts';
import { checkBody } from '#spec/docker/body.ts';
import { labelMatches, parseFilters } from '#spec/docker/filters.ts';
import type { Bodies } from '#spec/docker/types.gen.ts';

export interface ContainerHandlersOptions extends AttachOptions {
  containers: Containers;
  events: Pick<Events, 'publish'>;
  now: () => number;
  /** Images that stand on this one, by id; for `--filter ancestor`. */
  ancestors: (image: string) => Promise<ReadonlySet<string>>;
  sizes: (record: ContainerRecord) => Promise<{ rw: number; root: number }>;
  places: (record: ContainerRecord, withSizes: boolean) => Promise<InspectPlaces>;
}

/** Containers' operations of the Docker API, by operation id. */
export function containerHandlers(o: ContainerHandlersOptions): Handlers {
  const { containers } = o;
  const id = (request: ApiRequest): string => request.params['id'] ?? '';

  return {
    ContainerList: async ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters'));
      const ancestors = new Map<string, ReadonlySet<string>>();
      for (const image of filters.get('ancestor')) ancestors.set(image, await o.ancestors(image));
      const wish = {
        all: flag(query, 'all'),
        limit: integer(query, 'limit') ?? 0,
        filters,
        ancestors: (image: string) => ancestors.get(image) ?? new Set<string>(),
        nowMs: o.now(),
      };
      const withSizes = flag(query, 'size');
      const linked = linkedNames(containers.list());
      const selected = selectContainers(containers.list(), wish);
      return json(
        await Promise.all(
          selected.map(async (record) => ({
            ...containerSummary(record, o.now(), linked.get(record.id)),
            ...(withSizes ? sizesJson(await o.sizes(record)) : {}),
          })),
        ),
      );
    },

    ContainerCreate: async (request) => {
      const body = checkBody('ContainerCreate', await request.json());
      const platform = textOf(request.query, 'platform');
      const name = textOf(request.query, 'name') ?? (body.name || undefined);
      try {
        const { spec, warnings } = wishedContainer(body, containers);
        const record = await containers.create(name, { ...spec, ...(platform ? { platform } : {}) });
        return json({ Id: record.id, Warnings: warnings }, 201);
      } catch (error) {
        if (isCode(error, 'NETWORK_NOT_FOUND', 'NO_SUCH_CONTAINER', 'VOLUME_DRIVER_NOT_FOUND'))
          throw new BadCreate({ message: errorBody(error).message }, { cause: error });
        throw error;
      }
    },

    ContainerInspect: async (request) => {
      const record = containers.find(id(request));
      return json(inspectContainer(record, await o.places(record, flag(request.query, 'size'))));
    },

    ContainerStart: async (request) => {
      if (textOf(request.query, 'checkpoint'))
        throw new NotSupported({ what: 'starting from a checkpoint', instead: 'start it anew' });
      await containers.start(id(request));
      return empty();
    },

    ContainerStop: async (request) => {
      await containers.stop(id(request), stopWish(request));
      return empty();
    },

    ContainerRestart: async (request) => {
      await containers.restart(id(request), stopWish(request));
      return empty();
    },

    ContainerKill: async (request) => {
      await containers.kill(id(request), textOf(request.query, 'signal'));
      return empty();
    },

    ContainerPause: async (request) => {
      await containers.pause(id(request));
      return empty();
    },

    ContainerUnpause: async (request) => {
      await containers.unpause(id(request));
      return empty();
    },

    ContainerRename: async (request) => {
      const name = textOf(request.query, 'name') ?? fail('query name', null, 'is required: the new name');
      await containers.rename(id(request), name);
      return empty();
    },

    ContainerUpdate: async (request) => {
      await containers.update(id(request), updateRequest(checkBody('ContainerUpdate', await request.json())));
      return json({ Warnings: [] });
    },

    ContainerDelete: async (request) => {
      const { query } = request;
      if (flag(query, 'link')) fail('query link', id(request), 'names no link: Conflict, it is not OWNER/ALIAS');
      await containers.remove(id(request), { force: flag(query, 'force'), volumes: flag(query, 'v') });
      return empty();
    },

    ContainerUnlink: async ({ params, query }) => {
      const { id: owner = '', alias = '' } = params;
      if (!flag(query, 'link')) throw new NoSuchContainer({ name: `${owner}/${alias}` });
      await containers.change(owner, async (record) => withoutLink(record, alias));
      return empty();
    },

    ContainerWait: (request) => waitReply(containers, request, id(request)),

    ContainerResize: async (request) => {
      const [rows, columns] = [integer(request.query, 'h') ?? 0, integer(request.query, 'w') ?? 0];
      const record = containers.find(id(request));
      await containers.running(record.id).resize(rows, columns);
      containers.tell(record, 'resize', { height: String(rows), width: String(columns) });
      return empty(200);
    },

    ContainerAttach: (request) => attachReply(o, request, id(request)),
    ContainerAttachWebsocket: (request) => attachWebSocketReply(o, request, id(request)),

    ContainerPrune: async ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters')).allow('label', 'label!', 'until');
      const until = filters.get('until')[0];
      const untilMs = until === undefined ? Number.POSITIVE_INFINITY : pruneTime(until, o.now());
      const gone: string[] = [];
      let freedBytes = 0;
      for (const record of containers.list()) {
        const stopped = !isRunning(record.state) && record.state.phase !== 'restarting';
        const labels =
          filters.every('label', (l) => labelMatches(record.process.labels, l)) &&
          filters.every('label!', (l) => !labelMatches(record.process.labels, l));
        if (!stopped || !labels || record.createdAtMs >= untilMs) continue;
        const { rw } = await o.sizes(record);
        await containers.remove(record.id, { force: false, volumes: false });
        gone.push(record.id);
        freedBytes += rw;
      }
      const attributes = { reclaimed: String(freedBytes) };
      o.events.publish({ type: 'container', action: 'prune', id: '', attributes });
      return json({ ContainersDeleted: gone, SpaceReclaimed: freedBytes });
    },
  };
}

function stopWish({ query }: ApiRequest): { signal?: string; graceMs?: number } {
  const seconds = integer(query, 't');
  const signal = textOf(query, 'signal');
  return {
    ...(signal ? { signal } : {}),
    ...(seconds === undefined ? {} : { graceMs: seconds < 0 ? -1 : seconds * 1000 }),
  };
}

const CONDITIONS: readonly string[] = ['not-running', 'next-exit', 'removed'];

/** The head goes out at once: a client starts the container when it sees that its wait is registered. */
function waitReply(containers: Containers, request: ApiRequest, id: string): Reply {
  const condition = textOf(request.query, 'condition') ?? 'not-running';
  if (!CONDITIONS.includes(condition)) fail('query condition', condition, `is none of ${CONDITIONS.join(', ')}`);
  const record = containers.find(id); // whom nobody knows nobody waits for: an answer of its own, before the head of the other
  const result = containers.wait(record.id, condition as WaitCondition, request.signal);
  result.catch(() => undefined); // the stream below reports it; until that runs nobody listens yet
  return {
    kind: 'stream',
    status: 200,
    type: 'application/json',
    run: async (out) => {
      const { exitCode, error } = await result;
      await out.write(`${JSON.stringify({ StatusCode: exitCode, ...(error ? { Error: { Message: error } } : {}) })}\n`);
    },
  };
}

/** `--volumes-from`: the mounts of another container, where this one has none of its own. */
function mountsFrom(wishes: readonly string[], containers: Containers, taken: string[]): MountSpec[] {
  return wishes.flatMap((wish, i) => {
    const [name = '', mode = 'rw'] = wish.split(':');
    if (mode !== 'ro' && mode !== 'rw' && mode !== 'z' && mode !== 'Z')
      return fail(`$.HostConfig.VolumesFrom[${i}]`, wish, 'is not CONTAINER[:ro|:rw]');
    return containers.find(name).mounts.flatMap((mount): MountSpec[] => {
      if (mount.type === 'tmpfs' || taken.includes(mount.target)) return [];
      taken.push(mount.target);
      const readonly = mode === 'ro' || mount.readonly ? ('recursive' as const) : (false as const);
      return mount.type === 'volume'
        ? [
            {
              type: 'volume' as const,
              name: mount.name ?? '',
              target: mount.target,
              readonly,
              noCopy: true,
              labels: {},
            },
          ]
        : [
            {
              type: 'bind' as const,
              source: mount.source,
              target: mount.target,
              readonly,
              recursive: true,
              createSource: false,
            },
          ];
    });
  });
}

function pruneTime(text: string, nowMs: number): number {
  return (
    parseTime(text, nowMs, parseDurationNs) ??
    fail('filters.until', text, 'is neither a time nor a duration such as 24h')
  );
}

/** The body of a create, with what it takes from containers that are there: their volumes, and links to them. */
export function wishedContainer(
  body: Bodies['ContainerCreate'],
  containers: Containers,
): Pick<CreateRequest, 'spec' | 'warnings'> {
  const { spec, volumesFrom, warnings } = createRequest(body);
  const own = spec.mounts.map((m) => m.target);
  spec.mounts.push(...mountsFrom(volumesFrom, containers, own));
  for (const { target } of oldLinks(spec)) containers.find(target);
  return { spec, warnings };
}
