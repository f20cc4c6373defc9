import { join } from 'node:path';
import { archiveHandlers } from '#engine/api/docker/archive.ts';
import { commitHandlers } from '#engine/api/docker/commit.ts';
import { containerHandlers } from '#engine/api/docker/containers.ts';
import { containerSizes } from '#engine/api/docker/disk-usage.ts';
import { execHandlers } from '#engine/api/docker/exec.ts';
import { imageHandlers } from '#engine/api/docker/images.ts';
import type { InspectPlaces } from '#engine/api/docker/inspect.ts';
import { logsReply, pastOutput } from '#engine/api/docker/logs.ts';
import { networkHandlers } from '#engine/api/docker/networks.ts';
import { refusals } from '#engine/api/docker/refusals.ts';
import { statsHandlers } from '#engine/api/docker/stats.ts';
import { systemHandlers } from '#engine/api/docker/system.ts';
import { volumeHandlers } from '#engine/api/docker/volumes.ts';
import type { Handlers } from '#engine/api/server.ts';
import type { Engine } from '#engine/core/engine.ts';
import { logFilesOf } from '#engine/core/log-files.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';

/** All operations of the Docker API that an engine answers: one map a file, by operation id. */
export function dockerHandlers(engine: Engine, now: () => number): Handlers {
  const { containers } = engine;
  const logPlaces = (record: ContainerRecord): { path: string; maxFiles: number } => ({
    path: engine.logPath(record.id),
    maxFiles: logFilesOf(record.spec.logging),
  });
  return {
    ...refusals(),
    ...systemHandlers(engine, now),
    ...networkHandlers(engine.nodeNetworks, now),
    ...imageHandlers(engine, now),
    ...containerHandlers({
      containers,
      events: engine.events,
      now,
      ancestors: (image) => engine.images.standingOn(image),
      places: (record, withSizes) => placesOf(engine, record, withSizes),
      past: (record, wish, write) => pastOutput(record, { ...logPlaces(record), now }, wish, write),
      sizes: (record) => containerSizes(engine, record),
    }),
    ...execHandlers(containers.execs),
    ...archiveHandlers(engine.files),
    ...volumeHandlers(engine.volumes),
    ...statsHandlers(engine.stats),
    ...commitHandlers(engine.commits),
    ContainerLogs: (request) => {
      const record = containers.find(request.params['id'] ?? '');
      return logsReply(request, record, {
        ...logPlaces(record),
        record: () => containers.get(record.id),
        now,
      });
    },
  };
}

async function placesOf(engine: Engine, record: ContainerRecord, withSizes: boolean): Promise<InspectPlaces> {
  const { containers, roots } = engine;
  const files = engine.filesDir(record.id);
  const root = await roots.describe(record.id, record.spec.origin.by);
  return {
    logPath: record.spec.logging.driver === 'none' ? '' : engine.logPath(record.id),
    hostsPath: join(files, 'hosts'),
    hostnamePath: join(files, 'hostname'),
    resolvConfPath: join(files, 'resolv.conf'),
    execIds: containers.execs.of(record.id),
    sandboxKey: isRunning(record.state) ? (engine.networks.sandbox(record.id)?.netns ?? '') : '',
    graph: root && {
      LowerDir: root.lower.join(':'),
      UpperDir: root.upper,
      WorkDir: root.work,
      MergedDir: root.merged,
    },
    ...(withSizes ? { sizes: await containerSizes(engine, record) } : {}),
  };
}
