import { all, asDockerd, type Fates, proved, refused } from '#engine/api/docker/fields/fates.ts';

/** The module reads them, and its own tests and the clients' suites show what they do. */
const inModule = (module: string, ...names: string[]): Fates => all('', names, proved(module));

const NEWER = asDockerd(
  'it is of an API after the newest that is answered here, where a query of that name says nothing',
);
const ONE_PLATFORM = proved('images.ts');

/** By operation id, the parameters of its query. */
export const QUERIES: Readonly<Record<string, Fates>> = {
  ContainerList: inModule('containers.ts', 'all', 'limit', 'size', 'filters'),
  ContainerCreate: inModule('containers.ts', 'name', 'platform'),
  ContainerInspect: inModule('containers.ts', 'size'),
  ContainerTop: inModule('stats.ts', 'ps_args'),
  ContainerLogs: inModule('logs.ts', 'follow', 'stdout', 'stderr', 'since', 'until', 'timestamps', 'tail'),
  ContainerStats: inModule('stats.ts', 'stream', 'one-shot'),
  ContainerResize: inModule('containers.ts', 'h', 'w'),
  ContainerStart: { detachKeys: asDockerd('the attach says them; the start has nobody to detach') },
  ContainerStop: inModule('containers.ts', 'signal', 't'),
  ContainerRestart: inModule('containers.ts', 'signal', 't'),
  ContainerKill: inModule('containers.ts', 'signal'),
  ContainerRename: inModule('containers.ts', 'name'),
  ContainerAttach: inModule('attach.ts', 'detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerAttachWebsocket: inModule('attach.ts', 'detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerWait: inModule('containers.ts', 'condition'),
  ContainerDelete: inModule('containers.ts', 'v', 'force', 'link'),
  ContainerArchiveInfo: inModule('archive.ts', 'path'),
  ContainerArchive: inModule('archive.ts', 'path'),
  PutContainerArchive: inModule('archive.ts', 'path', 'noOverwriteDirNonDir', 'copyUIDGID'),
  ContainerPrune: inModule('containers.ts', 'filters'),
  ImageList: {
    ...inModule('images.ts', 'filters', 'shared-size', 'manifests'),
    all: asDockerd('it hides the steps of the classic builder, which are no images here'),
    digests: asDockerd('they are always told'),
    identity: NEWER,
  },
  ImageBuild: {
    ...inModule(
      'build.ts',
      'dockerfile',
      't',
      'extrahosts',
      'remote',
      'q',
      'nocache',
      'cachefrom',
      'pull',
      'memory',
      'memswap',
      'cpushares',
      'cpusetcpus',
      'cpuperiod',
      'cpuquota',
      'buildargs',
      'shmsize',
      'squash',
      'labels',
      'networkmode',
      'platform',
      'target',
      'version',
    ),
    ...all('', ['rm', 'forcerm'], asDockerd('there are no containers between the steps that could stay')),
    outputs: refused('[{"Type":"local"}]', /outputs of the classic builder/),
  },
  BuildPrune: inModule('build-prune.ts', 'reserved-space', 'max-used-space', 'min-free-space', 'all', 'filters'),
  ImageCreate: inModule('images.ts', 'fromImage', 'fromSrc', 'repo', 'tag', 'message', 'changes', 'platform'),
  ImageInspect: inModule('images.ts', 'manifests', 'platform'),
  ImageAttestations: all('', ['platform', 'type', 'statement'], refused('x', /reading attestations/)),
  ImageHistory: { platform: ONE_PLATFORM },
  ImagePush: inModule('images.ts', 'tag', 'platform'),
  ImageTag: inModule('images.ts', 'repo', 'tag'),
  ImageDelete: { ...inModule('images.ts', 'force', 'noprune'), platforms: refused('{}', /removing single platforms/) },
  ImageSearch: inModule('images.ts', 'term', 'limit', 'filters'),
  ImagePrune: inModule('images.ts', 'filters'),
  ImageCommit: inModule('commit.ts', 'container', 'repo', 'tag', 'comment', 'author', 'pause', 'changes'),
  SystemEvents: inModule('system.ts', 'since', 'until', 'filters'),
  SystemDataUsage: { type: proved('system.ts'), verbose: NEWER },
  ImageGet: { platform: ONE_PLATFORM },
  ImageGetAll: { names: proved('images.ts'), platform: ONE_PLATFORM },
  ImageLoad: { platform: ONE_PLATFORM, quiet: asDockerd('it takes progress away, and a load here tells none') },
  ExecResize: inModule('exec.ts', 'h', 'w'),
  VolumeList: inModule('volumes.ts', 'filters'),
  VolumeUpdate: { version: refused('1', /updating a cluster volume/) },
  VolumeDelete: inModule('volumes.ts', 'force'),
  VolumePrune: inModule('volumes.ts', 'filters'),
  NetworkList: inModule('networks.ts', 'filters'),
  NetworkInspect: {
    scope: proved('networks.ts'),
    verbose: asDockerd('it adds the services of a swarm, of which there are none'),
  },
  NetworkPrune: inModule('networks.ts', 'filters'),
  PluginList: { filters: asDockerd('there are no plugins to choose from') },
};

const NO_SWARM = asDockerd('nothing here is of a swarm, and so nothing matches');

/** By operation id, the names that its `filters` may have. */
export const FILTERS: Readonly<Record<string, Fates>> = {
  ContainerList: {
    ...inModule(
      'list.ts',
      ...'ancestor before exited expose health id is-task label name network publish since status volume'.split(' '),
    ),
    isolation: asDockerd('containers of Linux have one kind, and every value matches'),
  },
  ContainerPrune: inModule('containers.ts', 'until', 'label'),
  ImageList: inModule('image-list.ts', 'before', 'dangling', 'label', 'reference', 'since', 'until'),
  BuildPrune: {
    ...inModule('build-prune.ts', 'until', 'id', 'type', 'description', 'inuse', 'shared', 'private'),
    parent: refused('x', /is not a filter here/),
  },
  ImageSearch: inModule('images.ts', 'is-official', 'stars'),
  ImagePrune: inModule('images.ts', 'dangling', 'until', 'label'),
  SystemEvents: {
    ...inModule(
      '../../core/events.ts',
      ...'container daemon event image label network plugin scope type volume'.split(' '),
    ),
    ...all('', ['config', 'node', 'secret', 'service'], NO_SWARM),
  },
  VolumeList: inModule('volumes.ts', 'dangling', 'driver', 'label', 'name'),
  VolumePrune: inModule('volumes.ts', 'label', 'all'),
  NetworkList: inModule('networks.ts', 'dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'),
  NetworkPrune: inModule('networks.ts', 'until', 'label'),
  PluginList: all('', ['capability', 'enable'], asDockerd('there are no plugins to choose from')),
};
