import { fail } from '#base/shape.ts';
import { flag, textOf } from '#engine/api/docker/query.ts';
import { dockerTime } from '#engine/api/docker/time.ts';
import { NotSupported } from '#engine/api/errors.ts';
import { empty, json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { NodeVolumes, Volume } from '#engine/core/volumes.ts';
import { checkBody } from '#spec/docker/body.ts';
import { type Filters, labelMatches, parseFilters } from '#spec/docker/filters.ts';
import type { Volume as VolumeJson } from '#spec/docker/types.gen.ts';

/** Volumes' operations of the Docker API, by operation id. */
export function volumeHandlers(volumes: NodeVolumes): Handlers {
  return {
    VolumeList: ({ query }) => {
      const filters = parseFilters(textOf(query, 'filters')).allow('dangling', 'driver', 'label', 'name');
      const selected = volumes.list().filter((volume) => isSelected(volume, filters, volumes.usersOf(volume.name)));
      return json({ Volumes: selected.map(volumeJson), Warnings: null });
    },

    VolumeCreate: async (request) => {
      const body = checkBody('VolumeCreate', await request.json());
      if (body.ClusterVolumeSpec)
        fail('$.ClusterVolumeSpec', body.ClusterVolumeSpec, 'is for the nodes of a swarm, which this is not');
      const volume = await volumes.create({
        name: body.Name || undefined,
        driver: body.Driver || undefined,
        options: body.DriverOpts ?? {},
        labels: body.Labels ?? {},
      });
      return json(volumeJson(volume), 201);
    },

    VolumeInspect: ({ params }) => json(volumeJson(volumes.find(params['name'] ?? ''))),

    VolumeDelete: async ({ params, query }) => {
      await volumes.remove(params['name'] ?? '', { force: flag(query, 'force') });
      return empty();
    },

    VolumePrune: async ({ query, version }) => {
      const filters = parseFilters(textOf(query, 'filters')).allow('label', 'label!', 'all');
      // Since API 1.42 volumes that somebody named are kept unless they are asked for.
      const all = filters.flag('all') ?? compareVersions(version, '1.42') < 0;
      const { names, bytes } = await volumes.prune(
        (volume) => (all || volume.anonymous) && labelsMatch(volume.labels, filters),
      );
      return json({ VolumesDeleted: names, SpaceReclaimed: bytes });
    },

    VolumeUpdate: () => {
      throw new NotSupported({ what: 'updating a cluster volume', instead: 'this node is not part of a swarm' });
    },
  };
}

/** As it is in lists, `inspect` and `system df`. */
export function volumeJson(volume: Volume): VolumeJson {
  return {
    CreatedAt: dockerTime(Math.floor(volume.createdAtMs / 1000) * 1000),
    Driver: volume.driver,
    Labels: Object.keys(volume.labels).length > 0 ? { ...volume.labels } : null,
    Mountpoint: volume.path,
    Name: volume.name,
    Options: Object.keys(volume.options).length > 0 ? { ...volume.options } : null,
    Scope: 'local',
  };
}

function isSelected(volume: Volume, filters: Filters, users: readonly string[]): boolean {
  const dangling = filters.flag('dangling');
  return (
    (dangling === undefined || dangling === (users.length === 0)) &&
    filters.any('driver', (driver) => driver === volume.driver) &&
    filters.any('name', (name) => volume.name.includes(name)) &&
    filters.every('label', (label) => labelMatches(volume.labels, label))
  );
}

function labelsMatch(labels: Readonly<Record<string, string>>, filters: Filters): boolean {
  return (
    filters.every('label', (label) => labelMatches(labels, label)) &&
    filters.every('label!', (label) => !labelMatches(labels, label))
  );
}
