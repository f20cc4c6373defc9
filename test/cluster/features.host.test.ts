import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Container, Job, Pod, PodSpec } from '#spec/kubernetes/types.gen.ts';
import { ESTIBA, Machine, waitFor } from './machine.ts';

const FOREVER = 'trap exit TERM; while :; do sleep 0.05; done';
const PATIENCE_MS = 60_000;

/** A pod of one container. */
function pod(name: string, script: string, container: Partial<Container> = {}, spec: Partial<PodSpec> = {}): Pod {
  const c = { name: 'c', image: 'busybox', imagePullPolicy: 'IfNotPresent' as const, command: ['sh', '-c', script] };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 1, containers: [{ ...c, ...container }], ...spec },
  };
}

describe('what pods may ask for, with real pods', () => {
  let machine: Machine;
  const ready = (name: string): Promise<string> =>
    machine.kubectl(`wait --for=condition=Ready pod/${name} --timeout=60s`);

  beforeAll(async () => {
    machine = await Machine.open('feat', ['--lb-pool', '192.0.2.8/29', '--drain', '1']);
  });
  afterAll(() => machine.close());

  it('an ephemeral volume is a claim of the pod’s own, gone with it', async () => {
    const volumeClaimTemplate = {
      spec: { accessModes: ['ReadWriteOnce' as const], resources: { requests: { storage: '1Mi' } } },
    };
    await machine.apply(
      pod(
        'scratch',
        `echo kept > /v/x; ${FOREVER}`,
        { volumeMounts: [{ name: 'v', mountPath: '/v' }] },
        { volumes: [{ name: 'v', ephemeral: { volumeClaimTemplate } }] },
      ),
    );
    await ready('scratch');
    expect(await machine.kubectl('get pvc scratch-v -o jsonpath={.status.phase}')).toBe('Bound');
    expect(await machine.kubectl('exec scratch -- cat /v/x')).toBe('kept\n');
    await machine.kubectl('delete pod scratch --wait');
    await waitFor(
      'its claim and volume to go',
      PATIENCE_MS,
      async () => (await machine.kubectl('get pvc,pv -o name')) === '',
    );
  });

  it('a volume is mounted inside a config map’s', async () => {
    await machine.kubectl('create configmap outer --from-literal=a=1');
    await machine.kubectl('create configmap inner --from-literal=b=2');
    const volumes = ['outer', 'inner'].map((name) => ({ name, configMap: { name } }));
    const volumeMounts = [
      { name: 'outer', mountPath: '/etc/app' },
      { name: 'inner', mountPath: '/etc/app/more/inner' },
    ];
    await machine.apply(pod('nested', FOREVER, { volumeMounts }, { volumes }));
    await ready('nested');
    expect(await machine.kubectl('exec nested -- cat /etc/app/a /etc/app/more/inner/b')).toBe('12');
    await machine.kubectl('delete pod nested --wait');
  });

  it('a sub-path stays in its volume whatever links lie there, and a container that runs again finds it anew', async () => {
    const mounted = (mountPath: string, subPath?: string) => ({
      name: 'v',
      mountPath,
      ...(subPath ? { subPath } : {}),
    });
    const prepare = { name: 'prepare', image: 'busybox', imagePullPolicy: 'IfNotPresent' as const };
    await machine.apply(
      pod(
        'parts',
        `echo $(ls /all) $(ls /part) $(ls /new) > /dev/termination-log; [ -e /new/again ] && { ${FOREVER}; }; touch /new/again; exit 1`,
        { volumeMounts: [mounted('/part', 'link'), mounted('/new', 'deep/er'), mounted('/all')] },
        {
          initContainers: [
            { ...prepare, command: ['sh', '-c', 'ln -s / /v/link; touch /v/mine'], volumeMounts: [mounted('/v')] },
          ],
          volumes: [{ name: 'v', emptyDir: {} }],
        },
      ),
    );
    await waitFor('its second run', PATIENCE_MS, async () => {
      const [status] = (await machine.get<Pod>('pod parts')).status?.containerStatuses ?? [];
      return status?.restartCount === 1 && status.state?.running !== undefined;
    });
    const [status] = (await machine.get<Pod>('pod parts')).status?.containerStatuses ?? [];
    expect(status?.lastState?.terminated?.message).toBe('deep link mine deep link mine\n');
    expect(await machine.kubectl('exec parts -c c -- ls /part /new')).toBe(
      '/new:\nagain\n\n/part:\ndeep\nlink\nmine\n',
    );
    const mounts = async (): Promise<string> => (await machine.run('cat', ['/proc/1/mounts'])).text;
    expect(await mounts()).toContain('/subpaths/c/');
    await machine.kubectl('delete pod parts --wait');
    expect(await mounts()).not.toContain('/subpaths/');
  });

  it('port-forward reaches what listens on the pod’s loopback alone', async () => {
    await machine.apply(pod('shy', 'echo inside > /index.html; httpd -f -p 127.0.0.1:8080 -h /'));
    await ready('shy');
    const forward = machine.spawn('kubectl', ['port-forward', 'pod/shy', '18081:8080', '18082:8081']);
    let said = '';
    forward.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const get = (port: number) => machine.run('busybox', ['wget', '-qO-', `http://127.0.0.1:${port}`]);
    await waitFor('the page', PATIENCE_MS, async () => (await get(18_081)).text === 'inside\n');
    await get(18_082);
    await waitFor('the reason', PATIENCE_MS, () => said.includes('dial tcp 127.0.0.1 port 8081: Connection refused'));
    await machine.run('pkill', ['-x', 'kubectl']); // on this machine alone
    await machine.kubectl('delete pod shy --wait');
  });

  it('a pod that goes over its emptyDir’s limit is evicted, and its disk is free again; one below it stays', async () => {
    const filler = (megabytes: number) => `dd if=/dev/zero of=/v/x bs=1M count=${megabytes} 2>/dev/null; ${FOREVER}`;
    const mounted = { volumeMounts: [{ name: 'v', mountPath: '/v' }] };
    const volumes = [{ name: 'v', emptyDir: { sizeLimit: '2Mi' } }];
    const limits = { limits: { 'ephemeral-storage': '2Mi' } };
    await machine.apply(
      pod('greedy', filler(3), mounted, { volumes }),
      pod('modest', filler(1), mounted, { volumes }),
      pod('writer', `dd if=/dev/zero of=/x bs=1M count=3 2>/dev/null; ${FOREVER}`, { resources: limits }),
    );
    await waitFor('two evictions', 60_000, async () => {
      const reasons = await machine.kubectl("get pod greedy writer -o jsonpath='{.items[*].status.reason}'");
      return reasons === 'Evicted Evicted';
    });
    const greedy = await machine.get<Pod>('pod greedy');
    expect(greedy.status).toMatchObject({
      phase: 'Failed',
      message: 'Usage of EmptyDir volume "v" exceeds the limit "2Mi". ',
    });
    expect(greedy.status?.conditions).toContainEqual(
      expect.objectContaining({ type: 'DisruptionTarget', reason: 'TerminationByKubelet' }),
    );
    expect((await machine.get<Pod>('pod writer')).status?.message).toMatch(
      /^Pod ephemeral local storage usage exceeds/,
    );
    // Events are written behind the status.
    await waitFor('the event', PATIENCE_MS, async () =>
      (await machine.kubectl('get events --field-selector involvedObject.name=greedy,reason=Evicted')).includes('2Mi'),
    );
    const left = `${machine.dataRoot}/pods/${greedy.metadata.uid}/volumes`;
    await waitFor('its disk', PATIENCE_MS, async () => (await machine.run('ls', [left])).code !== 0);
    await ready('modest');
    await machine.kubectl('delete pods --all --wait');
  });

  it('after a boot Jobs are as they were: what is done stays done, what ran is run again and counted once', async () => {
    const job = (name: string, restartPolicy: 'Never' | 'OnFailure', script: string) => ({
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name },
      spec: {
        template: {
          spec: {
            ...pod(name, script, { volumeMounts: [{ name: 'v', mountPath: '/v' }] }).spec,
            restartPolicy,
            volumes: [{ name: 'v', hostPath: { path: `${machine.dataRoot}/jobs`, type: 'DirectoryOrCreate' } }],
          },
        },
      },
    });
    const once = (name: string): string => `[ -e /v/${name} ] && exit 0; touch /v/${name}; sleep 1000`;
    await machine.apply(
      job('done', 'Never', 'echo done'),
      job('anew', 'Never', once('anew')),
      job('again', 'OnFailure', once('again')),
    );
    await machine.kubectl('wait --for=condition=Complete job/done --timeout=60s');
    const began = async (name: string) => (await machine.run('ls', [`${machine.dataRoot}/jobs/${name}`])).code === 0;
    await waitFor('both to run', PATIENCE_MS, async () => (await began('anew')) && (await began('again')));
    await machine.reboot();
    await machine.kubectl('wait --for=condition=Complete job/done job/anew job/again --timeout=60s');
    const counts = async (name: string) => {
      const {
        succeeded = 0,
        failed = 0,
        uncountedTerminatedPods = {},
      } = (await machine.get<Job>(`job ${name}`)).status ?? {};
      const { items } = await machine.get<{ items: Pod[] }>(`pods -l job-name=${name}`);
      return { succeeded, failed, uncountedTerminatedPods, pods: items.length };
    };
    expect(await counts('done')).toEqual({ succeeded: 1, failed: 0, uncountedTerminatedPods: {}, pods: 1 });
    expect(await counts('anew')).toEqual({ succeeded: 1, failed: 1, uncountedTerminatedPods: {}, pods: 2 });
    expect(await counts('again')).toEqual({ succeeded: 1, failed: 0, uncountedTerminatedPods: {}, pods: 1 });
    await machine.kubectl('delete jobs --all --wait');
  });

  it('addresses of load balancers are on lo, and --remove takes them off', async () => {
    const service = (name: string) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: { type: 'LoadBalancer', ports: [{ port: 80 }] },
    });
    await machine.apply(service('one'), service('two'));
    const onLo = async (): Promise<string> =>
      (await machine.run('ip', ['-brief', 'address', 'show', 'dev', 'lo'])).text;
    await waitFor('both addresses', PATIENCE_MS, async () => /192\.0\.2\.9\/32.*192\.0\.2\.10\/32/.test(await onLo()));
    await machine.kubectl('delete service one');
    await waitFor('one to go', PATIENCE_MS, async () => !(await onLo()).includes('192.0.2.9'));
    await machine.kill();
    const { code, text } = await machine.run(ESTIBA, [
      ...['daemon', '--remove', '--name', machine.name],
      ...['--data-root', machine.dataRoot, '--run-root', machine.runRoot],
    ]);
    expect({ code, text }).toMatchObject({ code: 0 });
    expect(await onLo()).not.toContain('192.0.2');
  });
});
