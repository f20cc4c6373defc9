import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { containerName, containerSpec } from '#cluster/node/pod/container-spec.ts';
import { environment } from '#cluster/node/pod/environment.ts';
import { expand } from '#cluster/node/pod/expand.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import { podFiles } from '#cluster/node/pod/files.ts';
import { oomScoreAdj, podCgroup, podLimits, qosClass } from '#cluster/node/pod/resources.ts';
import { securityOf } from '#cluster/node/pod/security.ts';
import type { Container, Pod, PodSpec, Service } from '#spec/kubernetes/types.gen.ts';

const base: Container = { name: 'web', image: 'web:1' };

function podOf(spec: Partial<PodSpec> = {}, metadata: Partial<Pod['metadata']> = {}): Live<Pod> {
  return {
    metadata: { name: 'web', namespace: 'shop', uid: 'u1', resourceVersion: '1', creationTimestamp: '', ...metadata },
    spec: { containers: [base], ...spec },
  };
}
function selfOf(spec: Partial<PodSpec> = {}, metadata: Partial<Pod['metadata']> = {}): Self {
  const allocatable = { cpuMilli: 4_000, memoryBytes: 8 << 20, ephemeralBytes: 1 };
  return { pod: podOf(spec, metadata), ips: ['10.42.0.2'], hostIp: '192.0.2.2', allocatable };
}

describe('$(NAME)', () => {
  const values = new Map([
    ['A', '1'],
    ['B', '$(A)'],
  ]);
  it('is replaced once when it is known, and left as it stands when not', () => {
    expect(expand('$(A) $(B) $(C) $$(A) $$$(A) $A $(', values)).toBe('1 $(A) $(C) $(A) $1 $A $(');
  });
  it('text without a dollar is itself', () => {
    fc.assert(fc.property(fc.string(), (s) => s.includes('$') || expand(s, values) === s));
  });
});

describe('the environment of a container', () => {
  const services: Service[] = [
    {
      metadata: { name: 'kubernetes', namespace: 'default' },
      spec: { clusterIP: '10.96.0.1', ports: [{ name: 'https', port: 443 }] },
    },
    { metadata: { name: 'my-db', namespace: 'shop' }, spec: { clusterIP: '10.96.0.7', ports: [{ port: 5432 }] } },
    { metadata: { name: 'other', namespace: 'else' }, spec: { clusterIP: '10.96.0.8', ports: [{ port: 1 }] } },
    { metadata: { name: 'headless', namespace: 'shop' }, spec: { clusterIP: 'None', ports: [{ port: 1 }] } },
  ];
  const objects = {
    configMap: (name: string) => (name === 'cm' ? { metadata: {}, data: { color: 'blue', size: 'L' } } : undefined),
    secret: (name: string) =>
      name === 's' ? { metadata: {}, data: { pw: Buffer.from('x=y').toString('base64') } } : undefined,
    services,
  };
  const of = (container: Partial<Container>, spec: Partial<PodSpec> = {}) =>
    Object.fromEntries(environment({ ...base, ...container }, selfOf(spec, { labels: { app: 'web' } }), objects));

  it('joins services, envFrom and env; a later one wins and may name those before it', () => {
    const env = of({
      envFrom: [{ prefix: 'P_', configMapRef: { name: 'cm' } }, { secretRef: { name: 's' } }],
      env: [
        { name: 'A', value: 'one' },
        { name: 'B', value: '$(A)/$(P_color)/$(MY_DB_SERVICE_HOST)/$(LATER)' },
        { name: 'LATER', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
        { name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
        { name: 'GONE', valueFrom: { configMapKeyRef: { name: 'cm', key: 'none', optional: true } } },
      ],
    });
    expect(env).toMatchObject({
      A: 'one',
      B: 'one/blue/10.96.0.7/$(LATER)',
      LATER: 'web',
      CPU: '4',
      pw: 'x=y',
      P_size: 'L',
    });
    expect(env).toMatchObject({ MY_DB_PORT_5432_TCP: 'tcp://10.96.0.7:5432', KUBERNETES_SERVICE_PORT_HTTPS: '443' });
    expect(Object.keys(env).filter((k) => /OTHER|HEADLESS|GONE/.test(k))).toEqual([]);
    expect(of({}, { enableServiceLinks: false })['MY_DB_SERVICE_HOST']).toBeUndefined();
  });

  it('says what is missing in the words of the kubelet', () => {
    const key = (configMapKeyRef: object) => () =>
      of({ env: [{ name: 'X', valueFrom: { configMapKeyRef: configMapKeyRef as never } }] });
    expect(key({ name: 'cm', key: 'none' })).toThrow("couldn't find key none in ConfigMap shop/cm");
    expect(key({ name: 'no', key: 'x' })).toThrow('configmap "no" not found');
    expect(() => of({ envFrom: [{ secretRef: { name: 'no' } }] })).toThrow('secret "no" not found');
  });
});

describe('resources', () => {
  const spec = (...resources: Container['resources'][]): PodSpec => ({
    containers: resources.map((r, i) => ({ name: `c${i}`, ...(r ? { resources: r } : {}) })),
  });
  const full = { limits: { cpu: '1', memory: '1Gi' } };

  it('name the class of service, its cgroup and limits', () => {
    expect(qosClass(spec(undefined))).toBe('BestEffort');
    expect(qosClass(spec(full))).toBe('Guaranteed');
    expect(qosClass(spec(full, undefined))).toBe('Burstable');
    expect(qosClass(spec({ limits: { cpu: '1', memory: '1Gi' }, requests: { cpu: '500m' } }))).toBe('Burstable');
    expect(podCgroup('/e', 'Guaranteed', 'u')).toBe('/e/kubepods/podu');
    expect(podCgroup('/e', 'Burstable', 'u')).toBe('/e/kubepods/burstable/podu');
    expect(podLimits(spec(full, full))).toEqual({ memoryBytes: 2 ** 31, cpuQuotaUs: 200_000, cpuShares: 2048 });
    expect(podLimits(spec(full, undefined))).toEqual({ cpuShares: 1024 });
  });

  it('say who goes first when memory is short, within what the host grants', () => {
    const host = { memoryBytes: 4 * 2 ** 30, lowest: -1000 };
    const score = (r: Container['resources']) => oomScoreAdj(spec(r), spec(r).containers[0] ?? base, host);
    expect(score(full)).toBe(-997);
    expect(score(undefined)).toBe(1000);
    expect(score({ requests: { memory: '1Gi' } })).toBe(750);
    expect(oomScoreAdj(spec(full), base, { ...host, lowest: 0 })).toBe(0);
  });
});

describe('security contexts', () => {
  const none = () => ({}) as never;
  const of = (container: Container['securityContext'], pod: PodSpec['securityContext'] = {}, user = '') =>
    securityOf(
      { containers: [], securityContext: pod },
      { ...base, ...(container ? { securityContext: container } : {}) },
      { user },
      none,
    );

  it('the container’s word comes before the pod’s, the pod’s before the image’s', () => {
    expect(of({ runAsUser: 5 }, { runAsUser: 7, runAsGroup: 8, fsGroup: 9, supplementalGroups: [4] })).toMatchObject({
      user: '5:8',
      groups: ['4', '9'],
    });
    expect(of({ runAsGroup: 8 }, {}, 'app:1').user).toBe('app:8');
    expect(of(undefined).user).toBeUndefined();
    expect(of({ seccompProfile: { type: 'Unconfined' } }).spec.seccomp).toBe('unconfined');
    expect(of({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true }).spec).toMatchObject({
      noNewPrivileges: true,
      readonlyRoot: true,
    });
  });

  it('runAsNonRoot is held against what would run', () => {
    expect(() => of({ runAsNonRoot: true })).toThrow('image will run as root');
    expect(() => of({ runAsNonRoot: true }, {}, 'app')).toThrow('non-numeric user (app)');
    expect(() => of({ runAsNonRoot: true, runAsUser: 0 })).toThrow('breaks non-root policy');
    expect(of({ runAsNonRoot: true }, {}, '1000').user).toBeUndefined();
  });
});

describe('the files a pod has from its node', () => {
  const host = { hosts: '127.0.0.1 vm\n', resolv: 'nameserver 192.0.2.53\nsearch lan\n' };
  const cluster = { clusterDomain: 'cluster.local', clusterDns: '10.96.0.10' };
  const resolv = (spec: Partial<PodSpec>, dns: string | undefined = '10.96.0.10') =>
    podFiles(podOf(spec), ['10.42.0.2'], { ...cluster, clusterDns: dns }, host)['resolv.conf'];

  it('lead to the cluster’s DNS, to the host’s, or where the pod says', () => {
    expect(resolv({})).toBe(
      'search shop.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n',
    );
    expect(resolv({ dnsPolicy: 'Default' })).toBe('search lan\nnameserver 192.0.2.53\n');
    expect(resolv({ hostNetwork: true })).toBe('search lan\nnameserver 192.0.2.53\n');
    expect(resolv({ hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' })).toContain('nameserver 10.96.0.10\n');
    const dnsConfig = {
      nameservers: ['9.9.9.9'],
      searches: ['x.y'],
      options: [{ name: 'ndots', value: '2' }, { name: 'edns0' }],
    };
    expect(resolv({ dnsPolicy: 'None', dnsConfig })).toBe('search x.y\nnameserver 9.9.9.9\noptions ndots:2 edns0\n');
    expect(resolv({ dnsConfig })).toContain('options ndots:2 edns0\n');
  });

  it('say who it is', () => {
    const { hosts, hostname } = podFiles(
      podOf({ hostname: 'boat', subdomain: 'sea', hostAliases: [{ ip: '1.2.3.4', hostnames: ['a', 'b'] }] }),
      ['10.42.0.2'],
      cluster,
      host,
    );
    expect(hostname).toBe('boat\n');
    expect(hosts).toContain(
      '10.42.0.2\tboat.sea.shop.svc.cluster.local\tboat\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n',
    );
    expect(podFiles(podOf({ hostNetwork: true }), [], cluster, host).hosts).toContain('127.0.0.1 vm\n');
  });
});

describe('a container in the engine’s words', () => {
  const inputs = {
    container: { ...base, command: ['run', '$(A)'], args: ['$$(A)'] },
    attempt: 2,
    streak: 1,
    sandbox: 'box',
    hostname: 'web',
    env: new Map([['A', '1']]),
    security: { spec: securityOf({ containers: [] }, base, { user: '' }, () => ({}) as never).spec, groups: [] },
    mounts: [],
    cgroupParent: '/e/pod',
    host: { memoryBytes: 1, lowestOomScoreAdj: 0 },
  };

  it('has its command expanded, never restarts by itself, and lives in the pod’s namespaces', () => {
    const spec = containerSpec({ pod: podOf(), ...inputs });
    expect(spec).toMatchObject({
      process: { entrypoint: ['run', '1'], args: ['$(A)'], env: ['A=1'] },
      restart: { name: 'no' },
      namespaces: { network: { kind: 'sandbox', id: 'u1' }, pid: { kind: 'private' } },
    });
    const hosts = containerSpec({
      pod: podOf({ hostNetwork: true, hostPID: true, hostIPC: true }),
      ...inputs,
    }).namespaces;
    expect(hosts).toMatchObject({
      network: { kind: 'host' },
      uts: { kind: 'host' },
      pid: { kind: 'host' },
      ipc: { kind: 'host' },
    });
  });

  it('has a name that fits, whatever the pod is called', () => {
    expect(containerName(podOf(), 'web', 3)).toBe('k8s_web_web_shop_u1_3');
    expect(containerName(podOf({}, { name: 'x'.repeat(253) }), 'web', 0).length).toBeLessThanOrEqual(255);
  });
});
