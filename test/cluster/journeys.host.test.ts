import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CronJob, Job, Pod } from '#spec/kubernetes/types.gen.ts';
import { Machine, waitFor } from './machine.ts';

const FOREVER = 'trap exit TERM; while :; do sleep 0.05; done';
const PATIENCE_MS = 30_000;

function template(labels: Record<string, string>, script: string, more: object = {}, spec: object = {}): object {
  const container = {
    name: 'c',
    image: 'busybox',
    imagePullPolicy: 'IfNotPresent',
    command: ['sh', '-c', script],
    ...more,
  };
  return { metadata: { labels }, spec: { terminationGracePeriodSeconds: 1, containers: [container], ...spec } };
}

describe('what the controllers ask for, with real pods', () => {
  let machine: Machine;
  const pods = async (selector: string): Promise<Pod[]> =>
    (await machine.get<{ items: Pod[] }>(`pods -l ${selector}`)).items;

  beforeAll(async () => {
    machine = await Machine.open('trip');
  });
  afterAll(() => machine.close());

  it('a StatefulSet keeps its names and claims through deletes, scaling, a rollout and a boot', async () => {
    await machine.apply({
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: { name: 'db' },
      spec: {
        serviceName: 'db',
        replicas: 2,
        selector: { matchLabels: { app: 'db' } },
        template: template({ app: 'db' }, `[ -e /data/who ] || hostname > /data/who; ${FOREVER}`, {
          volumeMounts: [{ name: 'data', mountPath: '/data' }],
        }),
        volumeClaimTemplates: [
          {
            metadata: { name: 'data' },
            spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } } },
          },
        ],
      },
    });
    const whole = (): Promise<string> => machine.kubectl('rollout status statefulset/db --timeout=30s');
    const written = (pod: string): Promise<string> => machine.kubectl(`exec ${pod} -- cat /data/who`);
    await whole();
    expect([await written('db-0'), await written('db-1')]).toEqual(['db-0\n', 'db-1\n']);
    await machine.kubectl('exec db-0 -- sh -c "echo mine > /data/who"');
    await machine.kubectl('delete pod db-0');
    await whole();
    expect(await written('db-0')).toBe('mine\n');
    await machine.kubectl('scale statefulset db --replicas=0');
    await waitFor('no pods', PATIENCE_MS, async () => (await pods('app=db')).length === 0);
    await machine.kubectl('scale statefulset db --replicas=2');
    await whole();
    await machine.kubectl('rollout restart statefulset db');
    await whole();
    const restarts = async (): Promise<number[]> =>
      (await pods('app=db')).map((p) => p.status?.containerStatuses?.[0]?.restartCount ?? 0);
    const before = await restarts();
    await machine.reboot();
    // Until the node agent has looked, the pods are still said to be as they were before the boot.
    await waitFor('both pods, started again', PATIENCE_MS, async () => {
      const both = await pods('app=db');
      const again = (await restarts()).every((count, i) => count > (before[i] ?? 0));
      return both.length === 2 && again && both.every((p) => p.status?.containerStatuses?.[0]?.ready);
    });
    expect([await written('db-0'), await written('db-1')]).toEqual(['mine\n', 'db-1\n']);
    await machine.kubectl('delete statefulset db --wait');
  });

  it('a rollout never takes the old away before the new is ready; a bad one stops, says why, and is undone', async () => {
    await machine.apply({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        replicas: 2,
        progressDeadlineSeconds: 2,
        strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
        selector: { matchLabels: { app: 'web' } },
        template: template({ app: 'web' }, 'echo good > /index.html; httpd -f -p 8080', {
          readinessProbe: { httpGet: { path: '/index.html', port: 8080 }, periodSeconds: 1 },
        }),
      },
    });
    await machine.kubectl('rollout status deployment/web --timeout=30s');
    await machine.kubectl(
      `patch deployment web --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/command/2","value":"httpd -f -p 8080 -h /nowhere"}]'`,
    );
    await waitFor('the deadline', PATIENCE_MS, async () =>
      (await machine.kubectl('get deployment web -o jsonpath={.status.conditions[*].reason}')).includes(
        'ProgressDeadlineExceeded',
      ),
    );
    const ready = (await pods('app=web')).filter((p) => p.status?.containerStatuses?.[0]?.ready);
    expect(ready.length).toBe(2);
    await machine.kubectl('rollout undo deployment web');
    await machine.kubectl('rollout status deployment/web --timeout=30s');
    await machine.kubectl('delete deployment web --wait');
  });

  it('a Job runs to its completions and through its failures; a CronJob keeps its history', async () => {
    await machine.apply(
      {
        apiVersion: 'batch/v1',
        kind: 'Job',
        metadata: { name: 'sum' },
        spec: {
          completions: 3,
          parallelism: 2,
          completionMode: 'Indexed',
          template: template({ app: 'sum' }, 'echo index $JOB_COMPLETION_INDEX', {}, { restartPolicy: 'Never' }),
        },
      },
      {
        apiVersion: 'batch/v1',
        kind: 'Job',
        metadata: { name: 'fails' },
        spec: { backoffLimit: 0, template: template({ app: 'fails' }, 'exit 1', {}, { restartPolicy: 'Never' }) },
      },
      {
        apiVersion: 'batch/v1',
        kind: 'CronJob',
        metadata: { name: 'tick' },
        spec: {
          schedule: '* * * * *',
          successfulJobsHistoryLimit: 1,
          jobTemplate: { spec: { template: template({ app: 'tick' }, 'date', {}, { restartPolicy: 'OnFailure' }) } },
        },
      },
    );
    await machine.kubectl('wait --for=condition=Complete job/sum --timeout=30s');
    const said = await machine.kubectl('logs -l app=sum --prefix=false');
    expect(said.split('\n').filter(Boolean).sort()).toEqual(['index 0', 'index 1', 'index 2']);
    await machine.kubectl('wait --for=condition=Failed job/fails --timeout=30s');
    // As `kubectl create job --from` does, which before 1.21 looks for an older API.
    const tick = await machine.get<CronJob>('cronjob tick');
    const owner = { apiVersion: 'batch/v1', kind: 'CronJob', name: 'tick', uid: tick.metadata.uid, controller: true };
    for (const n of [1, 2]) {
      await machine.apply({
        apiVersion: 'batch/v1',
        kind: 'Job',
        metadata: { name: `by-hand-${n}`, ownerReferences: [owner] },
        spec: tick.spec.jobTemplate.spec,
      });
      await machine.kubectl(`wait --for=condition=Complete job/by-hand-${n} --timeout=30s`);
    }
    await waitFor('the first minute', 90_000, async () =>
      (await machine.get<{ items: Job[] }>('jobs')).items.some(
        (job) => /^tick-\d+$/.test(job.metadata.name ?? '') && job.status?.succeeded === 1,
      ),
    );
    await machine.kubectl('delete job --all --wait');
    await machine.kubectl('delete cronjob tick');
    await expect.poll(() => pods(`'app in (sum,fails,tick)'`), { timeout: 30_000, interval: 200 }).toEqual([]); // they follow their jobs
  });

  it('a DaemonSet runs here; drain evicts what may go, and waits for a budget', async () => {
    await machine.apply(
      {
        apiVersion: 'apps/v1',
        kind: 'DaemonSet',
        metadata: { name: 'agent' },
        spec: { selector: { matchLabels: { app: 'agent' } }, template: template({ app: 'agent' }, FOREVER) },
      },
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'held' },
        spec: { replicas: 1, selector: { matchLabels: { app: 'held' } }, template: template({ app: 'held' }, FOREVER) },
      },
      {
        apiVersion: 'policy/v1',
        kind: 'PodDisruptionBudget',
        metadata: { name: 'held' },
        spec: { minAvailable: 1, selector: { matchLabels: { app: 'held' } } },
      },
    );
    await machine.kubectl('rollout status daemonset/agent --timeout=30s');
    await machine.kubectl('rollout status deployment/held --timeout=30s');
    const node = (await machine.kubectl('get nodes -o name')).trim();
    const refused = await machine.run('sh', ['-c', `kubectl drain ${node} --ignore-daemonsets --timeout=2s`]);
    expect(refused.text).toContain("Cannot evict pod as it would violate the pod's disruption budget");
    await machine.kubectl('delete pdb held');
    await machine.kubectl(`drain ${node} --ignore-daemonsets --timeout=20s`);
    expect((await pods('app=held')).every((p) => p.spec.nodeName === undefined)).toBe(true);
    await machine.kubectl(`uncordon ${node}`);
    await machine.kubectl('rollout status deployment/held --timeout=30s');
    await machine.kubectl('delete daemonset/agent deployment/held --wait');
  });

  it('a Service and the cluster’s DNS lead to pods, port-forward too', async () => {
    await machine.apply(
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'shop' },
        spec: {
          replicas: 2,
          selector: { matchLabels: { app: 'shop' } },
          template: template({ app: 'shop' }, 'echo shop > /index.html; httpd -f -p 8080', {
            ports: [{ name: 'web', containerPort: 8080 }],
          }),
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'shop' },
        spec: { selector: { app: 'shop' }, ports: [{ port: 80, targetPort: 'web' }] },
      },
      { apiVersion: 'v1', kind: 'Pod', ...template({}, FOREVER), metadata: { name: 'client' } },
    );
    await machine.kubectl('rollout status deployment/shop --timeout=30s');
    await machine.kubectl('wait --for=condition=Ready pod/client --timeout=30s');
    // By name and by address apart: the static busybox cannot look names up in its wget.
    const inside = async (line: string): Promise<string> =>
      (await machine.run('sh', ['-c', `kubectl exec client -- ${line}`])).text;
    const address = (await machine.kubectl('get service shop -o jsonpath={.spec.clusterIP}')).trim();
    await waitFor(
      'the Service',
      PATIENCE_MS,
      async () => (await inside(`wget -qO- http://${address}:80`)) === 'shop\n',
    );
    expect(await inside('nslookup shop.default.svc.cluster.local')).toContain(address);
    expect(await inside('nc -w 2 10.96.0.1 443 -e echo reached')).toBe('');
    const forward = machine.spawn('kubectl', ['port-forward', 'deployment/shop', '18080:8080']);
    const asked = (): Promise<{ text: string }> => machine.run('busybox', ['wget', '-qO-', 'http://127.0.0.1:18080']);
    await waitFor('the forwarded port', PATIENCE_MS, async () => (await asked()).text === 'shop\n');
    await machine.run('pkill', ['-x', 'kubectl']); // on this machine alone
    await waitFor('kubectl to end', PATIENCE_MS, () => forward.exitCode !== null || forward.signalCode !== null);
  });
});
