import { fail } from '#base/shape.ts';
import { flag, textOf } from '#engine/api/docker/query.ts';
import { dockerTime } from '#engine/api/docker/time.ts';
import { empty, json } from '#engine/api/reply.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import type { PathStat } from '#engine/core/archive.ts';
import type { ContainerFiles } from '#engine/core/container-files.ts';

const TAR = 'application/x-tar';
const KINDS = { changed: 0, added: 1, deleted: 2 };

/** `docker cp`, export and diff, by operation id. */
export function archiveHandlers(files: ContainerFiles): Handlers {
  const id = (request: ApiRequest): string => request.params['id'] ?? '';
  return {
    ContainerArchiveInfo: async (request) => {
      const stat = await files.stat(id(request), pathOf(request));
      return { ...empty(200), headers: statHeader(stat) };
    },

    ContainerArchive: async (request) => {
      const path = pathOf(request);
      const stat = await files.stat(id(request), path);
      return {
        kind: 'stream',
        status: 200,
        type: TAR,
        headers: statHeader(stat),
        run: (out) => files.read(id(request), path, (chunk) => out.write(chunk)),
      };
    },

    PutContainerArchive: async (request) => {
      await files.write(id(request), request.body, {
        path: pathOf(request),
        asUser: flag(request.query, 'copyUIDGID'),
        keepKinds: flag(request.query, 'noOverwriteDirNonDir'),
      });
      return empty(200);
    },

    ContainerChanges: async (request) => {
      const changes = await files.changes(id(request));
      return json(changes.map(({ path, kind }) => ({ Path: path, Kind: KINDS[kind] })));
    },

    ContainerExport: async (request) => {
      files.check(id(request));
      return {
        kind: 'stream',
        status: 200,
        type: TAR,
        run: (out) => files.export(id(request), (chunk) => out.write(chunk)),
      };
    },
  };
}

function pathOf({ query }: ApiRequest): string {
  return textOf(query, 'path') ?? fail('query path', null, 'is required: a path in the container');
}

function statHeader({ name, size, mode, mtimeMs, linkTarget }: PathStat): Record<string, string> {
  const json = JSON.stringify({ name, size, mode, mtime: dockerTime(mtimeMs), linkTarget });
  return { 'X-Docker-Container-Path-Stat': Buffer.from(json).toString('base64') };
}
