import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { plainRecord } from '#engine/core/fakes.ts';
import { show } from '#engine/core/insight/show.ts';
import { PLAIN_RESOURCES, plainSpec } from '#engine/core/plain-spec.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';

const plain = plainSpec({ process: { ...plainSpec().process, args: ['serve'] } });
const HOST = { kind: 'host' } as const;
const OTHER = { kind: 'container', id: 'c' } as const;
const BIND = {
  type: 'bind',
  source: '/s',
  target: '/t',
  readonly: false,
  recursive: true,
  createSource: false,
} as const;
const VOLUME = { type: 'volume', name: 'v', target: '/t', readonly: false, noCopy: false, labels: {} } as const;
const TMPFS = { type: 'tmpfs', target: '/t', options: [] as string[], readonly: false } as const;

function text(changes: Partial<ContainerSpec>): Promise<string> {
  return show({ ...plainRecord({ ...plain, ...changes }), name: 'web' }, 'kubernetes');
}

async function pod(changes: Partial<ContainerSpec>): Promise<Record<string, unknown>> {
  const [first] = parseAllDocuments(await text(changes));
  return first?.toJS();
}

function unsaid(shown: string): string[] {
  return shown.split('\n').filter((line) => line.startsWith('#'));
}

const process = (changes: Partial<ContainerSpec['process']>): Partial<ContainerSpec> => ({
  process: { ...plain.process, ...changes },
});
const network = (changes: Partial<ContainerSpec['network']>): Partial<ContainerSpec> => ({
  network: { ...plain.network, ...changes },
});
const namespaces = (changes: Partial<ContainerSpec['namespaces']>): Partial<ContainerSpec> => ({
  namespaces: { ...plain.namespaces, ...changes },
});
const resources = (changes: Partial<ContainerSpec['resources']>): Partial<ContainerSpec> => ({
  resources: { ...PLAIN_RESOURCES, ...changes },
});
const security = (changes: Partial<ContainerSpec['security']>): Partial<ContainerSpec> => ({
  security: { ...plain.security, ...changes },
});
const mount = (changes: MountSpec): Partial<ContainerSpec> => ({ mounts: [changes] });
const endpoint = { network: 'bridge', aliases: [], links: [], driverOptions: {} };
const health = { test: ['CMD', 'true'], intervalNs: 0, timeoutNs: 0, startPeriodNs: 0, startIntervalNs: 0, retries: 0 };
const rate = [{ path: '/dev/sda', rate: 1 }];

/** A wish, and what it is a wish on top of. */
type Wish = Partial<ContainerSpec> | [Partial<ContainerSpec>, Partial<ContainerSpec>];

/** One wish at least of each field; those that a pod has nothing to do with say why they are few. */
const WISHES: Record<keyof ContainerSpec, Wish[]> = {
  image: [], // the record's reference is shown
  origin: [], // who asked
  platform: [{ platform: 'linux/arm64' }],
  labels: [{ labels: { a: 'b' } }, { labels: { a: 'b c' } }, { labels: { 'a b': 'c' } }],
  annotations: [{ annotations: { a: 'b' } }, { annotations: { 'a b': 'c' } }],
  process: [
    process({ entrypoint: ['a'] }),
    process({ args: ['a'] }),
    process({ env: ['A=b'] }),
    process({ cwd: '/a' }),
    process({ user: '7' }),
    process({ user: 'seven' }),
    process({ groups: ['7'] }),
    process({ groups: ['seven'] }),
    process({ tty: true }),
    process({ stdin: true }),
    process({ stdinOnce: true }),
  ],
  hostname: [{ hostname: 'a' }],
  domainname: [{ domainname: 'a.example' }],
  stop: [{ stop: { signal: 'INT' } }, { stop: { timeoutSeconds: 7 } }],
  init: [{ init: true }],
  namespaces: [
    namespaces({ network: HOST }),
    namespaces({ network: OTHER }),
    namespaces({ pid: HOST }),
    namespaces({ pid: OTHER }),
    namespaces({ ipc: HOST }),
    namespaces({ ipc: OTHER }),
    namespaces({ ipc: { kind: 'none' } }),
    namespaces({ uts: HOST }),
    namespaces({ cgroup: HOST }),
    namespaces({ user: { kind: 'private', mappings: [] } }),
    namespaces({ timeOffsets: { monotonicSeconds: 1, boottimeSeconds: 1 } }),
  ],
  mounts: [
    mount(BIND),
    [mount(BIND), mount({ ...BIND, readonly: 'top' })],
    [mount(BIND), mount({ ...BIND, propagation: 'rslave' })],
    [mount(BIND), mount({ ...BIND, propagation: 'rshared' })],
    [mount(BIND), mount({ ...BIND, owner: { uid: 7 } })],
    [mount({ ...BIND, readonly: 'top' }), mount({ ...BIND, readonly: 'force-recursive' })],
    mount(VOLUME),
    [mount(VOLUME), mount({ ...VOLUME, name: '' })],
    [mount(VOLUME), mount({ ...VOLUME, noCopy: true })],
    [mount(VOLUME), mount({ ...VOLUME, subpath: 'a' })],
    [mount(VOLUME), mount({ ...VOLUME, driver: { name: 'a', options: {} } })],
    [mount(VOLUME), mount({ ...VOLUME, labels: { a: 'b' } })],
    mount(TMPFS),
    [mount(TMPFS), mount({ ...TMPFS, options: ['size=1m'] })],
    [mount(TMPFS), mount({ ...TMPFS, options: ['size=50%'] })],
    [mount(TMPFS), mount({ ...TMPFS, options: ['mode=1777'] })],
  ],
  resources: [
    resources({ memoryBytes: 7 }),
    resources({ memoryReservationBytes: 7 }),
    resources({ memorySwapBytes: -1 }),
    resources({ memorySwappiness: 0 }),
    resources({ oomKillDisable: true }),
    resources({ nanoCpus: 1e9 }),
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
    network({ endpoints: [{ ...endpoint, network: 'app' }] }),
    network({ endpoints: [{ ...endpoint, aliases: ['a'] }] }),
    network({ endpoints: [{ ...endpoint, ipv4: '10.0.0.7' }] }),
    network({ endpoints: [{ ...endpoint, links: ['a:b'] }] }),
    network({ endpoints: [{ ...endpoint, gwPriority: 7 }] }),
    network({ endpoints: [{ ...endpoint, driverOptions: { a: 'b' } }] }),
    network({ ports: { '80/tcp': [] } }),
    [network({ ports: { '80/tcp': [] } }), network({ ports: { '80/tcp': [{ hostIp: '', hostPort: '' }] } })],
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
  health: [{ health }, [{ health }, { health: { ...health, startIntervalNs: 1e9 } }]],
  logging: [{ logging: { driver: 'none', options: {} } }, { logging: { driver: 'json-file', options: { a: 'b' } } }],
  autoRemove: [{ autoRemove: true }],
  runtime: [{ runtime: 'kata' }],
};

describe('a container as Kubernetes objects', () => {
  it.each(Object.entries(WISHES).filter(([, wishes]) => wishes.length > 0))(
    'loses no wish of %s without a word',
    async (_field, wishes) => {
      for (const wish of wishes) {
        const [base, wished] = Array.isArray(wish) ? wish : [{}, wish];
        expect(await text(wished), JSON.stringify(wished)).not.toBe(await text(base));
      }
    },
  );

  it('names servers of its own alone, and adds search domains and options to the cluster’s', async () => {
    const own = network({ dns: ['192.0.2.1'], dnsSearch: ['a.example', '.'], dnsOptions: ['ndots:2', 'edns0'] });
    expect(await pod(own)).toMatchObject({
      spec: {
        dnsPolicy: 'None',
        dnsConfig: {
          nameservers: ['192.0.2.1'],
          searches: ['a.example'],
          options: [{ name: 'ndots', value: '2' }, { name: 'edns0' }],
        },
      },
    });
    const { spec } = await pod(network({ dnsSearch: ['a.example'] }));
    expect(spec).toMatchObject({ dnsConfig: { searches: ['a.example'] } });
    expect(spec).not.toHaveProperty('dnsPolicy');
  });

  it('has labels that may be selected by as labels, which its Service selects, and others as annotations', async () => {
    const shown = await text({
      labels: { 'com.example/tier': 'front', note: 'two words', 'bad key': 'x' },
      annotations: { by: 'hand' },
      ...network({ ports: { '80/tcp': [{ hostIp: '', hostPort: '80' }] } }),
    });
    const [made, service] = parseAllDocuments(shown).map((d) => d.toJS());
    const labels = { app: 'web', 'com.example/tier': 'front' };
    expect(made.metadata).toEqual({ name: 'web', labels, annotations: { note: 'two words', by: 'hand' } });
    expect(service.spec.selector).toEqual(labels);
    expect(shown).toContain('# not said here: labels "bad key": no names that Kubernetes takes\n');
  });

  it('has memory for files and for /dev/shm of the size that was asked for', async () => {
    const { spec } = await pod({ ...mount({ ...TMPFS, options: ['size=1m', 'mode=1777'] }), shmBytes: 2 << 20 });
    expect(spec).toMatchObject({
      containers: [{ volumeMounts: [{ mountPath: '/t' }, { name: 'shm', mountPath: '/dev/shm' }] }],
      volumes: [
        { emptyDir: { medium: 'Memory', sizeLimit: String(1 << 20) } },
        { name: 'shm', emptyDir: { medium: 'Memory', sizeLimit: String(2 << 20) } },
      ],
    });
  });

  it('has groups, sysctls and a stop signal in Kubernetes’ words', async () => {
    const wishes = { ...process({ groups: ['7', 'wheel'] }), sysctls: { 'net.core.somaxconn': '7' } };
    for (const [signal, word] of Object.entries({
      INT: 'SIGINT',
      10: 'SIGUSR1',
      'RTMIN+3': 'SIGRTMIN+3',
      'RTMAX-2': 'SIGRTMAX-2',
    }))
      expect(await pod({ ...wishes, stop: { signal, timeoutSeconds: 3 } })).toMatchObject({
        spec: {
          os: { name: 'linux' },
          securityContext: { supplementalGroups: [7], sysctls: [{ name: 'net.core.somaxconn', value: '7' }] },
          terminationGracePeriodSeconds: 3,
          containers: [{ lifecycle: { stopSignal: word } }],
        },
      });
  });

  it('says at its head, before all else, what it cannot say', async () => {
    const shown = await text({
      ...process({ groups: ['wheel'] }),
      ...resources({ memoryBytes: 7, memorySwapBytes: 14 }),
      restart: { name: 'on-failure', maxRetries: 3, onUnhealthy: false },
      domainname: 'a\nkind: Secret',
    });
    expect(unsaid(shown)).toEqual([
      '# not said here: swap: each node decides for its pods',
      '# not said here: groups wheel: a pod takes numbers',
      '# not said here: domain name a kind: Secret: a pod has its subdomain and the cluster’s',
      '# not said here: 3 restarts at most: a pod’s go on',
    ]);
    expect(shown.split('\n')[4]).toBe('apiVersion: v1');
    expect(unsaid(await text({}))).toEqual([]);
  });
});
