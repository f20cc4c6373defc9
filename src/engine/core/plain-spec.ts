import type { ContainerSpec, ResourceSpec } from '#engine/core/spec.ts';

const PRIVATE = { kind: 'private' } as const;

/** No limits. */
export const PLAIN_RESOURCES: ResourceSpec = {
  oomKillDisable: false,
  blkioWeightDevices: [],
  readBps: [],
  writeBps: [],
  readIops: [],
  writeIops: [],
  hugepages: [],
};

/** No network joined, nothing published, no names of its own. */
export const NO_NETWORK: ContainerSpec['network'] = {
  endpoints: [],
  ports: {},
  publishAll: false,
  dns: [],
  dnsOptions: [],
  dnsSearch: [],
  extraHosts: [],
  links: [],
};

/** A container that asks for nothing but what `changes` says: namespaces of its own, Docker's defaults, no network joined. */
export function plainSpec(changes: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    image: '',
    origin: { by: 'docker' },
    labels: {},
    annotations: {},
    process: { env: [], groups: [], tty: false, stdin: false, stdinOnce: false },
    stop: {},
    init: false,
    namespaces: {
      network: PRIVATE,
      pid: PRIVATE,
      ipc: PRIVATE,
      uts: PRIVATE,
      cgroup: PRIVATE,
      user: { kind: 'host' },
    },
    mounts: [],
    resources: PLAIN_RESOURCES,
    security: {
      privileged: false,
      capAdd: [],
      capDrop: [],
      noNewPrivileges: false,
      seccomp: 'default',
      readonlyRoot: false,
    },
    devices: [],
    deviceRules: [],
    sysctls: {},
    ulimits: [],
    oomScoreAdj: 0,
    shmBytes: 64 * 1024 * 1024,
    network: NO_NETWORK,
    restart: { name: 'no', maxRetries: 0, onUnhealthy: false },
    logging: { driver: 'json-file', options: {} },
    autoRemove: false,
    ...changes,
  };
}
