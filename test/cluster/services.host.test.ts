import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Deployment, Event, HorizontalPodAutoscaler, Ingress, Pod, Service } from '#spec/kubernetes/types.gen.ts';
import { Load, type Tally, type Way } from './load.ts';
import { Machine, waitFor } from './machine.ts';

const POOL = '198.51.100.0/28';

/** A web server that says its version; `more` goes into the container. */
function web(version: string, more: { ready?: string; spec?: object; container?: object } = {}): object[] {
  const start = `mkdir -p /tmp/w; echo ${version} > /tmp/w/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /tmp/w & wait`;
  return [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        replicas: 3,
        progressDeadlineSeconds: 5,
        strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
        selector: { matchLabels: { app: 'web' } },
        template: {
          metadata: { labels: { app: 'web' } },
          spec: {
            terminationGracePeriodSeconds: 2,
            containers: [
              {
                name: 'web',
                image: 'busybox',
                imagePullPolicy: 'IfNotPresent',
                command: ['sh', '-c', start],
                ports: [{ name: 'http', containerPort: 8080 }],
                readinessProbe: { httpGet: { path: more.ready ?? '/', port: 'http' }, periodSeconds: 1 },
                ...more.container,
              },
            ],
            ...more.spec,
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      spec: {
        type: 'LoadBalancer',
        selector: { app: 'web' },
        ports: [{ port: 80, targetPort: 'http', nodePort: 30080 }],
      },
    },
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: { name: 'web' },
      spec: {
        rules: [
          {
            host: 'web.example',
            http: {
              paths: [{ path: '/', pathType: 'Prefix', backend: { service: { name: 'web', port: { number: 80 } } } }],
            },
          },
        ],
      },
    },
  ];
}

describe('Services, names and Ingress of a node', () => {
  let machine: Machine;
  let clusterIp = '';
  const shell = async (script: string): Promise<string> => (await machine.run('bash', ['-c', script])).text.trim();
  /** In a pod, where `wget` is busybox's. */
  const inPod = (name: string, script: string): Promise<string> =>
    machine.kubectl(`exec ${name} -- sh -c '${script}'`).then((text) => text.trim());
  const ways = (): Way[] => [
    { name: 'ingress, kept alive', host: '127.0.0.1', port: 80, virtual: 'web.example', keepAlive: true },
    { name: 'cluster address', host: clusterIp, port: 80, keepAlive: false },
    { name: 'node port', host: '127.0.0.1', port: 30080, keepAlive: false },
    { name: 'balanced address', host: '198.51.100.1', port: 80, keepAlive: false },
  ];
  const failuresOf = (tallies: Tally[]): string[] => tallies.flatMap((t) => t.failures.map((f) => `${t.name}: ${f}`));

  beforeAll(async () => {
    machine = await Machine.open('serve', ['--lb-pool', POOL]);
    await machine.apply(...web('v1'));
    await machine.kubectl('rollout status deployment/web --timeout=30s');
    clusterIp = (await machine.get<Service>('service web')).spec?.clusterIP ?? '';
    await machine.kubectl(
      'run client --image=busybox --image-pull-policy=IfNotPresent -- sleep 100000'.replace('--grace-period=1 ', ''),
    );
    await machine.kubectl('wait --for=condition=Ready pod/client --timeout=20s');
  });
  afterAll(() => machine.close());

  it('a Service answers by name from a pod, by its addresses from the host; kubectl shows where', async () => {
    expect(await inPod('client', 'wget -qO- http://web')).toBe('v1');
    expect(await inPod('client', 'wget -qO- http://web.default.svc.cluster.local')).toBe('v1');
    for (const url of [`http://${clusterIp}`, 'http://127.0.0.1:30080', 'http://198.51.100.1'])
      expect(await shell(`curl -sm5 ${url}`)).toBe('v1');
    const service = await machine.get<Service>('service web');
    expect(service.status?.loadBalancer?.ingress).toEqual([{ ip: '198.51.100.1' }]);
  });

  it('a pod reaches itself by its Service', async () => {
    await machine.kubectl('scale deployment/web --replicas=1');
    await waitFor(
      'one pod',
      20_000,
      async () => (await machine.get<{ items: Pod[] }>('pods -l app=web')).items.length === 1,
    );
    const { items } = await machine.get<{ items: Pod[] }>('pods -l app=web');
    expect(await inPod(items[0]?.metadata.name ?? '', 'wget -qO- http://web')).toBe('v1');
    await machine.kubectl('scale deployment/web --replicas=3');
    await machine.kubectl('rollout status deployment/web --timeout=30s');
  });

  it('Ingress answers by host, over TLS with the cluster’s own authority, and says why not', async () => {
    const ask = (args: string): Promise<string> => shell(`curl -sm5 ${args}`);
    expect(await ask('-H "Host: web.example" http://127.0.0.1/')).toBe('v1');
    const secure = `--http2 --cacert ${machine.runRoot}/ingress-ca.crt --resolve web.example:443:127.0.0.1 https://web.example/`;
    expect(await ask(secure)).toBe('v1');
    expect(await ask('http://127.0.0.1/')).toContain('NO_ROUTE');
    await waitFor('the address of the Ingress', 10_000, async () => {
      const { status } = await machine.get<Ingress>('ingress web');
      return (status?.loadBalancer?.ingress ?? []).length > 0;
    });
  });

  it('a rolling update under load loses no request, by any way in', async () => {
    const load = new Load(machine, ways());
    for (const version of ['v2', 'v3']) {
      await machine.apply(...web(version));
      await machine.kubectl('rollout status deployment/web --timeout=60s');
    }
    const tallies = await load.stop();
    process.stdout.write(`${tallies.map((t) => `${t.name}: ${t.done}`).join(', ')}\n`);
    expect(failuresOf(tallies)).toEqual([]);
    for (const tally of tallies) {
      expect(tally.done).toBeGreaterThan(50);
      expect(Object.keys(tally.said).sort()).toEqual(['v1', 'v2', 'v3']);
    }
  });

  it('a bad version takes no traffic, is told by its deadline, and undo takes it back', async () => {
    const load = new Load(machine, ways());
    await machine.apply(...web('bad', { ready: '/nothing-here' }));
    await waitFor('the deadline', 30_000, async () => {
      const { status } = await machine.get<Deployment>('deployment web');
      return status?.conditions?.some((c) => c.reason === 'ProgressDeadlineExceeded') ?? false;
    });
    await machine.kubectl('rollout undo deployment/web');
    await machine.kubectl('rollout status deployment/web --timeout=60s');
    const tallies = await load.stop();
    expect(failuresOf(tallies)).toEqual([]);
    expect([...new Set(tallies.flatMap((t) => Object.keys(t.said)))]).toEqual(['v3']);
  });

  it('a disruption budget holds a drain until it may go on', async () => {
    await machine.apply({
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'web' },
      spec: { minAvailable: 3, selector: { matchLabels: { app: 'web' } } },
    });
    await waitFor('the budget', 10_000, async () => {
      const { status } = await machine.get<{ status?: { currentHealthy?: number } }>('pdb web');
      return status?.currentHealthy === 3;
    });
    const node = (await machine.get<{ items: { metadata: { name: string } }[] }>('nodes')).items[0]?.metadata.name;
    const held = await machine.run('kubectl', [
      'drain',
      node ?? '',
      '--force',
      '--pod-selector=app=web',
      '--timeout=4s',
    ]);
    expect(held.text).toContain("Cannot evict pod as it would violate the pod's disruption budget");
    expect(await shell('curl -sm5 http://127.0.0.1:30080')).toBe('v3');
    await machine.kubectl(`uncordon ${node}`);
    await machine.kubectl('delete pdb web');
  });

  it('policies: who is not allowed gets no answer, in or out; the node always does', async () => {
    const policy = (name: string, spec: object): object => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name },
      spec,
    });
    const ask = (): Promise<string> =>
      machine
        .run('kubectl', ['exec', 'client', '--', 'timeout', '2', 'wget', '-qO-', 'http://web'])
        .then((a) => a.text.trim());
    await machine.apply(
      policy('web', {
        podSelector: { matchLabels: { app: 'web' } },
        ingress: [{ from: [{ podSelector: { matchLabels: { friend: 'yes' } } }], ports: [{ port: 'http' }] }],
      }),
    );
    await waitFor('the door to close', 10_000, async () => (await ask()) !== 'v3');
    expect(await shell('curl -sm5 http://127.0.0.1:30080')).toBe('v3');
    // nft can read what stands in the kernel; a rule it cannot read would end every listing on the host.
    expect((await machine.run('nft', ['list', 'ruleset'])).code).toBe(0);
    await machine.kubectl('label pod client friend=yes');
    await waitFor('the door to open', 10_000, async () => (await ask()) === 'v3');
    await machine.apply(
      policy('client', { podSelector: { matchLabels: { run: 'client' } }, policyTypes: ['Egress'], egress: [] }),
    );
    await waitFor('the way out to close', 10_000, async () => (await ask()) !== 'v3');
    await machine.kubectl('delete networkpolicy web client');
    await waitFor('all to be open', 10_000, async () => (await ask()) === 'v3');
  });

  it('the daemon’s death stops nobody: names, Services and pages go on, and the next daemon takes over', async () => {
    const load = new Load(machine, ways());
    await machine.kill();
    // By its address: kubectl has nobody to ask.
    expect(await shell('curl -sm5 -H "Host: web.example" http://127.0.0.1/')).toBe('v3');
    await machine.start();
    await machine.apply(...web('v4'));
    await machine.kubectl('rollout status deployment/web --timeout=60s');
    expect(failuresOf(await load.stop())).toEqual([]);
    expect(await inPod('client', 'wget -qO- http://web')).toBe('v4');
  });

  it('kubectl top shows who works, and the autoscaler follows the load up and down', async () => {
    const busy = {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'busy' },
      spec: {
        selector: { matchLabels: { app: 'busy' } },
        template: {
          metadata: { labels: { app: 'busy' } },
          spec: {
            terminationGracePeriodSeconds: 0,
            containers: [
              {
                name: 'c',
                image: 'busybox',
                imagePullPolicy: 'IfNotPresent',
                command: ['sh', '-c', 'while :; do [ -e /work/on ] && : || sleep 0.2; done'],
                resources: { requests: { cpu: '100m' }, limits: { cpu: '200m' } },
                volumeMounts: [{ name: 'work', mountPath: '/work' }],
              },
            ],
            volumes: [{ name: 'work', hostPath: { path: `${machine.dir}/work`, type: 'DirectoryOrCreate' } }],
          },
        },
      },
    };
    const hpa = {
      apiVersion: 'autoscaling/v2',
      kind: 'HorizontalPodAutoscaler',
      metadata: { name: 'busy' },
      spec: {
        scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'busy' },
        minReplicas: 1,
        maxReplicas: 3,
        metrics: [
          { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 50 } } },
        ],
        behavior: { scaleDown: { stabilizationWindowSeconds: 0 } },
      },
    };
    await machine.apply(busy, hpa);
    await machine.kubectl('rollout status deployment/busy --timeout=30s');
    await shell(`touch ${machine.dir}/work/on`);
    await waitFor('more pods', 60_000, async () => {
      const { status } = await machine.get<HorizontalPodAutoscaler>('hpa busy');
      return (status?.desiredReplicas ?? 0) > 1;
    });
    expect(await machine.kubectl('top pod -l app=busy')).toMatch(/busy-\S+\s+\d{2,3}m/);
    await shell(`rm ${machine.dir}/work/on`);
    await waitFor('one pod again', 90_000, async () => {
      const { status } = await machine.get<HorizontalPodAutoscaler>('hpa busy');
      return status?.desiredReplicas === 1;
    });
    const { items } = await machine.get<{ items: Event[] }>('events');
    expect(items.filter((e) => e.reason === 'SuccessfulRescale').length).toBeGreaterThanOrEqual(2);
    await machine.kubectl('delete hpa,deployment busy');
  }, 200_000);
});
