import { plainRecord } from '#engine/core/fakes.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { type ShowForm, show } from '#engine/core/insight/show.ts';
import { NO_NETWORK, PLAIN_RESOURCES, plainSpec } from '#engine/core/plain-spec.ts';
import type { ContainerSpec, EndpointSpec, MountSpec } from '#engine/core/spec.ts';

// For tests of what is shown of a container: a wish of every field, so that none is lost in any form without a word. Each is one that
// our API takes: what is shown is read again and compared.

const BRIDGE: EndpointSpec = { network: 'bridge', aliases: [], links: [], driverOptions: {} };

/** A container of `docker run web serve`. */
export const plain = plainSpec({
  process: { ...plainSpec().process, args: ['serve'] },
  network: { ...NO_NETWORK, endpoints: [BRIDGE] },
});
const HOST = { kind: 'host' } as const;
const OTHER = { kind: 'container', id: 'c' } as const;
const BIND = {
  type: 'bind',
  source: '/s',
  target: '/t',
  readonly: false,
  recursive: true,
  createSource: true,
} as const;
/** A bind whose source has to be there. */
const FOUND = { ...BIND, createSource: false };
const VOLUME = { type: 'volume', name: 'vol', target: '/t', readonly: false, noCopy: false, labels: {} } as const;
export const TMPFS = { type: 'tmpfs', target: '/t', options: [] as string[], readonly: false } as const;

export const process = (changes: Partial<ContainerSpec['process']>): Partial<ContainerSpec> => ({
  process: { ...plain.process, ...changes },
});
export const network = (changes: Partial<ContainerSpec['network']>): Partial<ContainerSpec> => ({
  network: { ...plain.network, ...changes },
});
export const namespaces = (changes: Partial<ContainerSpec['namespaces']>): Partial<ContainerSpec> => ({
  namespaces: { ...plain.namespaces, ...changes },
});
const NETWORKLESS = { network: NO_NETWORK };
export const resources = (changes: Partial<ContainerSpec['resources']>): Partial<ContainerSpec> => ({
  resources: { ...PLAIN_RESOURCES, ...changes },
});
const security = (changes: Partial<ContainerSpec['security']>): Partial<ContainerSpec> => ({
  security: { ...plain.security, ...changes },
});
export const mount = (changes: MountSpec): Partial<ContainerSpec> => ({ mounts: [changes] });
/** A network that was made. */
const app = (changes: Partial<EndpointSpec> = {}): Partial<ContainerSpec> =>
  network({ endpoints: [{ ...BRIDGE, network: 'app', ...changes }] });
const bridge = (changes: Partial<EndpointSpec>): Partial<ContainerSpec> =>
  network({ endpoints: [{ ...BRIDGE, ...changes }] });
const health = {
  test: ['CMD-SHELL', 'true'],
  intervalNs: 0,
  timeoutNs: 0,
  startPeriodNs: 0,
  startIntervalNs: 0,
  retries: 0,
};
const rate = [{ path: '/dev/sda', rate: 1 }];

/** What is wished; or what it is wished on top of, and it. */
type Wish = Partial<ContainerSpec> | [Partial<ContainerSpec>, Partial<ContainerSpec>];

/** One wish at least of each field; those without one say why. */
const WISHES: Record<keyof ContainerSpec, Wish[]> = {
  image: [], // the record's reference is shown
  origin: [], // who asked
  platform: [{ platform: 'linux/arm64' }, [{ platform: 'linux/arm' }, { platform: 'linux/arm/v7' }]],
  labels: [{ labels: { a: 'b' } }, { labels: { a: 'b c' } }, { labels: { 'a b': 'c' } }],
  annotations: [{ annotations: { a: 'b' } }, { annotations: { 'a b': 'c' } }],
  process: [
    process({ entrypoint: ['a'] }),
    process({ entrypoint: [] }),
    process({ args: ['a'] }),
    process({ env: ['A=b'] }),
    process({ env: ['A=$b'] }),
    process({ env: ['A'] }),
    process({ cwd: '/a' }),
    process({ user: '7' }),
    process({ user: 'seven' }),
    process({ groups: ['7'] }),
    process({ groups: ['seven'] }),
    process({ tty: true }),
    process({ stdin: true }),
    [process({ stdin: true }), process({ stdin: true, stdinOnce: true })],
    [{ health }, { health, ...process({ shell: ['/bin/bash', '-c'] }) }],
  ],
  hostname: [{ hostname: 'a' }],
  domainname: [{ domainname: 'a.example' }],
  stop: [{ stop: { signal: 'INT' } }, { stop: { timeoutSeconds: 7 } }],
  init: [{ init: true }],
  namespaces: [
    { ...namespaces({ network: HOST }), ...NETWORKLESS },
    { ...namespaces({ network: OTHER }), ...NETWORKLESS },
    namespaces({ pid: HOST }),
    namespaces({ pid: OTHER }),
    namespaces({ ipc: HOST }),
    namespaces({ ipc: OTHER }),
    namespaces({ ipc: { kind: 'none' } }),
    namespaces({ uts: HOST }),
    namespaces({ cgroup: HOST }),
    namespaces({ user: { kind: 'private', mappings: [] } }),
    [
      namespaces({ user: { kind: 'private', mappings: [] } }),
      namespaces({ user: { kind: 'private', mappings: [{ containerId: 0, hostId: 200_000, size: 65_536 }] } }),
    ],
    namespaces({ timeOffsets: { monotonicSeconds: 1, boottimeSeconds: 1 } }),
  ],
  mounts: [
    mount(BIND),
    [mount(BIND), mount({ ...BIND, readonly: 'recursive' })],
    [mount(BIND), mount(FOUND)],
    [mount({ ...BIND, readonly: 'recursive' }), mount({ ...BIND, readonly: 'top' })],
    [mount(FOUND), mount({ ...FOUND, readonly: 'recursive' })],
    [mount({ ...FOUND, readonly: 'recursive' }), mount({ ...FOUND, readonly: 'top' })],
    [mount({ ...FOUND, readonly: 'recursive' }), mount({ ...FOUND, readonly: 'force-recursive' })],
    [mount(FOUND), mount({ ...FOUND, propagation: 'rslave' })],
    [mount(FOUND), mount({ ...FOUND, recursive: false })],
    [mount(FOUND), mount({ ...FOUND, source: '/s:1' })],
    [mount(FOUND), mount({ ...FOUND, source: '/s,"1"' })],
    [mount({ ...BIND, owner: { uid: 7 } }), mount({ ...BIND, owner: { uid: 7 }, readonly: 'top' })],
    [mount(BIND), mount({ ...BIND, propagation: 'rslave' })],
    [mount(BIND), mount({ ...BIND, propagation: 'rshared' })],
    [mount(BIND), mount({ ...BIND, owner: { uid: 7 } })],
    mount(VOLUME),
    [mount(VOLUME), mount({ ...VOLUME, name: '' })],
    [mount(VOLUME), mount({ ...VOLUME, noCopy: true })],
    [mount(VOLUME), mount({ ...VOLUME, subpath: 'a' })],
    [mount(VOLUME), mount({ ...VOLUME, readonly: 'recursive' })],
    [mount({ ...VOLUME, readonly: 'recursive' }), mount({ ...VOLUME, readonly: 'force-recursive' })],
    [mount(VOLUME), mount({ ...VOLUME, driver: { name: 'a', options: {} } })],
    [mount(VOLUME), mount({ ...VOLUME, driver: { name: 'local', options: { type: 'nfs', o: 'addr=192.0.2.1,rw' } } })],
    [mount(VOLUME), mount({ ...VOLUME, owner: { gid: 7 } })],
    [mount({ ...VOLUME, name: '' }), mount({ ...VOLUME, name: '', owner: { gid: 7 } })],
    [mount(VOLUME), mount({ ...VOLUME, labels: { a: 'b' } })],
    mount(TMPFS),
    [mount(TMPFS), mount({ ...TMPFS, readonly: 'top' })],
    [mount(TMPFS), mount({ ...TMPFS, options: ['size=1m'] })],
    [mount(TMPFS), mount({ ...TMPFS, options: ['size=50%'] })],
    [mount(TMPFS), mount({ ...TMPFS, options: ['mode=1777'] })],
  ],
  resources: [
    resources({ memoryBytes: 64 << 20 }),
    resources({ memoryReservationBytes: 64 << 20 }),
    resources({ memorySwapBytes: -1 }),
    [resources({ memoryBytes: 64 << 20 }), resources({ memoryBytes: 64 << 20, memorySwapBytes: 128 << 20 })],
    resources({ memorySwappiness: 0 }),
    resources({ oomKillDisable: true }),
    resources({ nanoCpus: 1.5e9 }),
    resources({ cpuShares: 7 }),
    resources({ cpuQuotaUs: 50_000 }),
    [resources({ cpuQuotaUs: 50_000 }), resources({ cpuQuotaUs: 50_000, cpuPeriodUs: 10_000 })],
    resources({ cpuRealtimePeriodUs: 7 }),
    resources({ cpuRealtimeRuntimeUs: 7 }),
    resources({ cpusetCpus: '0' }),
    resources({ cpusetMems: '0' }),
    resources({ pids: 7 }),
    resources({ blkioWeight: 10 }),
    resources({ blkioWeightDevices: [{ path: '/dev/sda', weight: 10 }] }),
    resources({ readBps: rate }),
    resources({ writeBps: rate }),
    resources({ readIops: rate }),
    resources({ writeIops: rate }),
    resources({ hugepages: [{ pageSize: '2MB', bytes: 2 << 20 }] }),
    resources({ cgroupParent: 'a' }),
  ],
  security: [
    security({ privileged: true }),
    security({ capAdd: ['CAP_NET_ADMIN'] }),
    security({ capDrop: ['ALL'] }),
    security({ noNewPrivileges: true }),
    security({ seccomp: 'unconfined' }),
    security({ seccomp: { profile: { defaultAction: 'SCMP_ACT_ALLOW' } } }),
    security({ readonlyRoot: true }),
    security({ maskedPaths: [], readonlyPaths: [] }),
    security({ maskedPaths: [] }),
    security({ readonlyPaths: [] }),
    security({ maskedPaths: ['/proc/acpi'] }),
    security({ readonlyPaths: ['/proc/acpi'] }),
  ],
  devices: [{ devices: [{ hostPath: '/dev/fuse', path: '/dev/fuse', access: 'rwm' }] }],
  deviceRules: [{ deviceRules: ['c 13:* rwm'] }],
  sysctls: [{ sysctls: { 'net.core.somaxconn': '7' } }],
  ulimits: [{ ulimits: [{ name: 'nofile', soft: 7, hard: 7 }] }],
  oomScoreAdj: [{ oomScoreAdj: 7 }],
  shmBytes: [{ shmBytes: 1 << 20 }],
  network: [
    network({ endpoints: [] }),
    app(),
    network({ endpoints: [BRIDGE, { ...BRIDGE, network: 'app' }] }),
    [app(), network({ endpoints: ['app', 'back'].map((name) => ({ ...BRIDGE, network: name })) })],
    [app(), app({ aliases: ['a'] })],
    [app(), app({ ipv4: '10.0.0.7' })],
    [app(), app({ ipv6: 'fd00::7' })],
    [app(), app({ mac: '02:00:00:00:00:09' })],
    [app(), app({ linkLocal: ['169.254.0.7'] })],
    [app(), app({ links: ['a:b'] })],
    [app(), app({ gwPriority: 7 })],
    [app(), app({ driverOptions: { a: 'b,c' } })],
    bridge({ driverOptions: { a: 'b' } }),
    bridge({ mac: '02:00:00:00:00:09' }),
    bridge({ links: ['a:b'] }),
    network({ ports: { '80/tcp': [] } }),
    [network({ ports: { '80/tcp': [] } }), network({ ports: { '80/tcp': [{ hostIp: '', hostPort: '' }] } })],
    network({ ports: { '80/udp': [{ hostIp: '127.0.0.1', hostPort: '8080-8090' }] } }),
    network({ ports: { '80/tcp': [{ hostIp: '::1', hostPort: '8080' }] } }),
    [network({ ports: { '80/tcp': [] } }), network({ ports: { '80/tcp': [] }, publishAll: true })],
    network({ dns: ['192.0.2.1'] }),
    [
      network({ dns: ['192.0.2.1', '192.0.2.2', '192.0.2.3'] }),
      network({ dns: ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4'] }),
    ],
    network({ dnsOptions: ['ndots:2'] }),
    network({ dnsSearch: ['a.example'] }),
    network({ dnsSearch: ['.'] }),
    network({ extraHosts: ['a:192.0.2.1'] }),
    network({ extraHosts: ['a:host-gateway'] }),
    network({ links: ['a:b'] }),
    network({ mac: '02:00:00:00:00:09' }),
  ],
  restart: (['always', 'unless-stopped', 'on-failure'] as const).map((name) => ({
    restart: { name, maxRetries: name === 'on-failure' ? 3 : 0, onUnhealthy: false },
  })),
  health: [
    { health },
    [{ health }, { health: { ...health, test: ['CMD', 'true', 'a b'] } }],
    [{ health }, { health: { ...health, intervalNs: 1.5e9, timeoutNs: 2e9, startPeriodNs: 60e9, retries: 7 } }],
    [
      { health: { ...health, startPeriodNs: 60e9 } },
      { health: { ...health, startPeriodNs: 60e9, startIntervalNs: 1e9 } },
    ],
    { health: { ...health, test: ['NONE'] } },
    { health: { ...health, test: [], intervalNs: 7e9 } },
  ],
  logging: [
    { logging: { driver: 'none', options: {} } },
    { logging: { driver: 'json-file', options: { 'max-size': '1m' } } },
  ],
  autoRemove: [{ autoRemove: true }],
  runtime: [{ runtime: 'kata' }],
};

/** A container with one wish more than another, whose wishes a form may be without. */
export interface Wished {
  base: ContainerSpec;
  spec: ContainerSpec;
}

/** Each wish of the table, with a name for its test. */
export const WISHED: [string, Wished][] = Object.entries(WISHES).flatMap(([field, wishes]) =>
  wishes.map((wish): [string, Wished] => {
    const [under, over] = Array.isArray(wish) ? wish : [{}, wish];
    return [`${field} ${differing(over)}`, { base: { ...plain, ...under }, spec: { ...plain, ...over } }];
  }),
);

/** What is not as in the plain container, as JSON. */
function differing(changes: Partial<ContainerSpec>): string {
  const differs = (value: unknown, usual: unknown): boolean => JSON.stringify(value) !== JSON.stringify(usual);
  const parts = Object.entries(changes).map(([field, value]) => {
    if (Array.isArray(value) || typeof value !== 'object') return value;
    const usual = plain[field as keyof ContainerSpec] as Record<string, unknown> | undefined;
    return Object.fromEntries(Object.entries(value).filter(([key, inner]) => differs(inner, usual?.[key])));
  });
  return parts.map((part) => JSON.stringify(part)).join(' ');
}

/** Of an image that has what a wish may take away. */
const IMAGE = { Entrypoint: ['run'], Env: ['A=a'], Healthcheck: { Test: ['CMD', 'check'] } };

/** A container in one form. */
export async function textOf(form: ShowForm, spec: ContainerSpec, name = 'web'): Promise<string> {
  const process = applyImage(spec, IMAGE);
  return show({ ...plainRecord(spec), name, image: { id: '', reference: 'web:1' }, process }, form);
}

/** Whether the form has words for all that was wished. */
export function isSaid(text: string): boolean {
  return !text.includes('# not said here: ');
}

/** The same wish in one of the ways to write it. */
export function settled(spec: ContainerSpec): Partial<ContainerSpec> {
  const { image, origin, ...rest } = spec;
  const { entrypoint, args, ...process } = spec.process;
  const { mac, links, ...network } = spec.network;
  const [main, ...others] = network.endpoints;
  const endpoints = main ? [mac === undefined ? main : { ...main, mac }, ...others] : [];
  return {
    ...rest,
    // Further words of the entry point may be arguments as well.
    process: {
      ...process,
      ...(entrypoint ? { entrypoint: entrypoint.slice(0, 1) } : {}),
      args: [...(entrypoint?.slice(1) ?? []), ...(args ?? [])],
    },
    mounts: spec.mounts.map(settledMount),
    // Old links are the default network's.
    network: { ...network, endpoints, links: main?.network === 'bridge' ? links : [] },
  };
}

function settledMount(mount: MountSpec): MountSpec {
  if (mount.type === 'tmpfs') return { ...mount, readonly: mount.readonly && 'top' };
  return mount.type === 'bind' ? { ...mount, propagation: mount.propagation ?? 'rprivate' } : mount;
}
