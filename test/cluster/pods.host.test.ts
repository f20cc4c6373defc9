import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerStatus, Pod } from '#spec/kubernetes/types.gen.ts';
import { Machine, waitFor } from './machine.ts';

/** A pod of busybox containers: name → shell script, or a whole container. */
function pod(name: string, containers: Record<string, string | object>, spec: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: Object.entries(containers).map(([container, what]) => busybox(container, what)),
      ...spec,
    },
  };
}
function busybox(name: string, what: string | object): object {
  const own = typeof what === 'string' ? { command: ['sh', '-c', what] } : what;
  return { name, image: 'busybox', imagePullPolicy: 'IfNotPresent', ...own };
}
const FOREVER = 'trap exit TERM; while :; do sleep 0.05; done';

describe('pods on a node, asked for by kubectl', () => {
  let machine: Machine;
  const statusOf = async (name: string, container = 0): Promise<ContainerStatus> => {
    const { status } = await machine.get<Pod>(`pod ${name}`);
    return status?.containerStatuses?.[container] ?? ({ restartCount: -1 } as ContainerStatus);
  };
  const until = (name: string, what: (pod: Pod) => boolean): Promise<void> =>
    waitFor(`pod ${name}`, 20_000, async () => what(await machine.get<Pod>(`pod ${name}`)));
  const waiting = (name: string, reason: string): Promise<void> =>
    until(name, (p) => p.status?.containerStatuses?.[0]?.state?.waiting?.reason === reason);
  const remove = (...names: string[]): Promise<string> => machine.kubectl(`delete pod ${names.join(' ')} --wait`);

  beforeAll(async () => {
    machine = await Machine.open('pods');
  });
  afterAll(async () => {
    const left = await machine.run('sh', [
      '-c',
      `kubectl delete pods --all --wait --grace-period=1 >/dev/null; ls ${machine.runRoot}/pods ${machine.runRoot}/sandboxes ${machine.runRoot}/shims ${machine.dataRoot}/pods ${machine.dataRoot}/containers; find /sys/fs/cgroup/*/${machine.name}/kubepods -name 'pod*' -type d`,
    ]);
    await machine.close();
    expect(left.text.split('\n').filter((line) => line !== '' && !line.endsWith(':'))).toEqual([]);
  });

  it('kubectl run: the pod runs, its log follows, exec answers with its exit code, its input and its terminal', async () => {
    await machine.kubectl(
      `run web --image=busybox --image-pull-policy=IfNotPresent -- sh -c 'echo hello; echo oops >&2; ${FOREVER}'`,
    );
    await machine.kubectl('wait --for=condition=Ready pod/web --timeout=20s');
    expect(await machine.kubectl('logs web')).toBe('hello\noops\n');
    expect(await machine.kubectl('logs web --tail=1 --timestamps')).toMatch(/^20\d\d-\S+Z oops\n$/);
    expect(await machine.run('kubectl', ['exec', 'web', '--', 'sh', '-c', 'hostname; exit 7'])).toEqual({
      code: 7,
      text: expect.stringContaining('web\n'),
    });
    expect(await machine.kubectl('exec -i web -- cat', 'through and back')).toBe('through and back');
    const terminal = await machine.run('script', [
      '-qec',
      'kubectl exec -it web -- sh -c "tty; stty size"',
      '/dev/null',
    ]);
    expect(terminal.text).toMatch(/\/dev\/pts\/\d/);
    await remove('web');
  });

  it('kubectl logs -f ends with the pod; cp brings files in and out', async () => {
    await machine.apply(
      pod('talk', { c: 'for i in 1 2 3; do echo line $i; sleep 0.1; done; sleep 1' }, { restartPolicy: 'Never' }),
    );
    await until('talk', (p) => p.status?.phase === 'Running');
    const from = machine.file('in.txt', 'some bytes');
    await machine.kubectl(`cp ${from} talk:/tmp/there`);
    await machine.kubectl(`cp talk:/tmp/there ${machine.dir}/out.txt`);
    expect((await machine.run('cat', [`${machine.dir}/out.txt`])).text).toBe('some bytes');
    expect(await machine.kubectl('logs -f talk')).toBe('line 1\nline 2\nline 3\n');
    await until('talk', (p) => p.status?.phase === 'Succeeded');
    await remove('talk');
  });

  it('its containers reach each other, the host and other pods; its files say who it is', async () => {
    const serve = 'echo from $HOSTNAME > /index.html; httpd -f -p 8080';
    await machine.apply(
      pod(
        'one',
        { a: serve, b: FOREVER },
        { hostname: 'boat', subdomain: 'sea', hostAliases: [{ ip: '192.0.2.9', hostnames: ['far'] }] },
      ),
      pod('two', { c: FOREVER }),
    );
    await machine.kubectl('wait --for=condition=Ready pod/one pod/two --timeout=20s');
    const { podIP } = (await machine.get<Pod>('pod one')).status ?? {};
    expect(await machine.kubectl('exec one -c b -- wget -qO- http://127.0.0.1:8080')).toBe('from boat\n');
    expect(await machine.kubectl(`exec two -- wget -qO- http://${podIP}:8080`)).toBe('from boat\n');
    const { text } = await machine.run('busybox', ['wget', '-qO-', `http://${podIP}:8080`]);
    expect(text).toBe('from boat\n');
    const hosts = await machine.kubectl('exec one -c b -- cat /etc/hosts');
    expect(hosts).toContain(`${podIP}\tboat.sea.default.svc.cluster.local\tboat\n`);
    expect(hosts).toContain('192.0.2.9\tfar\n');
    await remove('one', 'two');
  });

  it('environment and files come from config maps, secrets and the pod itself; changed files follow, whole', async () => {
    await machine.apply(
      {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'settings' },
        data: { color: 'blue', 'app.ini': 'x=1' },
      },
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'key' }, stringData: { password: 'hunter2' } },
      pod(
        'told',
        {
          c: {
            command: [
              'sh',
              '-c',
              `echo "$(BOTH) $(NOPE) $$(A)"; ${FOREVER}`.replace('$(NOPE)', '\\$(NOPE)').replace('$$(A)', ''),
            ],
            resources: { limits: { memory: '64Mi', cpu: '500m' } },
            env: [
              { name: 'COLOR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'color' } } },
              { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: 'key', key: 'password' } } },
              { name: 'BOTH', value: '$(COLOR)-$(PASSWORD)' },
              { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
              { name: 'MEMORY', valueFrom: { resourceFieldRef: { resource: 'limits.memory', divisor: '1Mi' } } },
            ],
            envFrom: [{ prefix: 'CM_', configMapRef: { name: 'settings' } }],
            volumeMounts: [
              { name: 'all', mountPath: '/all' },
              { name: 'all', mountPath: '/one.ini', subPath: 'app.ini' },
            ],
          },
        },
        {
          volumes: [
            {
              name: 'all',
              projected: {
                sources: [
                  { configMap: { name: 'settings' } },
                  { secret: { name: 'key', items: [{ key: 'password', path: 'deep/secret', mode: 0o400 }] } },
                  { downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
                ],
              },
            },
          ],
        },
      ),
    );
    await machine.kubectl('wait --for=condition=Ready pod/told --timeout=20s');
    expect(await machine.kubectl('logs told')).toContain('blue-hunter2');
    const env = await machine.kubectl('exec told -- env');
    expect(env).toMatch(/^IP=10\.42\./m);
    expect(env).toContain('MEMORY=64\n');
    expect(env).toContain('CM_color=blue\n');
    expect(env).toContain('KUBERNETES_SERVICE_HOST=10.96.0.1\n');
    const files = await machine.kubectl(
      'exec told -- sh -c "cd /all; cat color app.ini deep/secret labels /one.ini; stat -Lc %a deep/secret"',
    );
    expect(files).toBe('bluex=1hunter2app="told"x=1400\n');
    expect(await machine.kubectl('exec told -- cat /sys/fs/cgroup/memory/memory.limit_in_bytes')).toBe(`${64 << 20}\n`);
    await machine.kubectl(`patch configmap settings -p '{"data":{"color":"green"}}'`);
    await waitFor(
      'the file to follow',
      5_000,
      async () => (await machine.kubectl('exec told -- cat /all/color')) === 'green',
    );
    await remove('told');
    await machine.kubectl('delete configmap/settings secret/key');
  });

  it('init containers, then sidecars, then the rest; a sidecar ends last', async () => {
    const shared = { volumeMounts: [{ name: 'out', mountPath: '/out' }] };
    const say = (name: string, more: string): object => ({
      command: ['sh', '-c', `echo ${name} >> /out/order; trap 'echo ${name} ends >> /out/order; exit' TERM; ${more}`],
      ...shared,
    });
    const rest = 'while :; do sleep 0.02; done';
    await machine.apply(
      pod(
        'order',
        { main: say('main', rest) },
        {
          volumes: [{ name: 'out', hostPath: { path: `${machine.dir}/order`, type: 'DirectoryOrCreate' } }],
          initContainers: [
            busybox('first', say('first', 'exit')),
            {
              ...busybox('side', say('side', rest)),
              restartPolicy: 'Always',
              startupProbe: { exec: { command: ['grep', 'side', '/out/order'] } },
            },
            busybox('second', say('second', 'exit')),
          ],
        },
      ),
    );
    await machine.kubectl('wait --for=condition=Ready pod/order --timeout=20s');
    expect(await machine.kubectl('get pod order --no-headers')).toMatch(/2\/2 +Running/);
    await remove('order');
    const { text } = await machine.run('cat', [`${machine.dir}/order/order`]);
    expect(text).toBe('first\nside\nsecond\nmain\nmain ends\nside ends\n');
  });

  it('says why a pod does not run, in the words of Kubernetes', async () => {
    await machine.apply(
      pod('crash', { c: 'echo last words > /dev/termination-log; exit 7' }),
      pod('noimage', { c: { image: '127.0.0.1:1/none:1' } }),
      pod('badimage', { c: { image: 'BAD//name' } }),
      pod('never', { c: { image: 'not-here:1', imagePullPolicy: 'Never' } }),
      pod('noconfig', { c: { command: ['sh', '-c', FOREVER], envFrom: [{ configMapRef: { name: 'late' } }] } }),
      pod('nocommand', { c: { command: ['/no/such/program'] } }, { restartPolicy: 'Never' }),
      pod(
        'oom',
        {
          c: {
            command: ['sh', '-c', 'x=0123456789abcdef; while :; do x=$x$x; done'],
            resources: { limits: { memory: '16Mi' } },
          },
        },
        { restartPolicy: 'Never' },
      ),
      pod('root', { c: { command: ['true'] } }, { securityContext: { runAsNonRoot: true } }),
      pod('late', { c: FOREVER }, { activeDeadlineSeconds: 1 }),
    );
    await waiting('crash', 'CrashLoopBackOff');
    expect((await statusOf('crash')).lastState?.terminated).toMatchObject({
      exitCode: 7,
      reason: 'Error',
      message: 'last words\n',
    });
    await waiting('noimage', 'ImagePullBackOff');
    await waiting('badimage', 'InvalidImageName');
    await waiting('never', 'ErrImageNeverPull');
    await waiting('root', 'CreateContainerConfigError');
    await waiting('noconfig', 'CreateContainerConfigError');
    await machine.kubectl('create configmap late --from-literal=x=1');
    await machine.kubectl('wait --for=condition=Ready pod/noconfig --timeout=20s');
    await until('nocommand', (p) => p.status?.phase === 'Failed');
    expect((await statusOf('nocommand')).state?.terminated).toMatchObject({ reason: 'StartError', exitCode: 128 });
    await until('oom', (p) => p.status?.phase === 'Failed');
    expect((await statusOf('oom')).state?.terminated).toMatchObject({ reason: 'OOMKilled', exitCode: 137 });
    await until('late', (p) => p.status?.phase === 'Failed' && p.status.reason === 'DeadlineExceeded');
    await machine.kubectl('delete pods --all --grace-period=1 --wait');
    await machine.kubectl('delete configmap late');
  });

  it('a container that is killed is back within a second; kubectl logs --previous still has what it said', async () => {
    await machine.apply(pod('phoenix', { c: `echo run; ${FOREVER}` }));
    await machine.kubectl('wait --for=condition=Ready pod/phoenix --timeout=20s');
    const { containerID = '' } = await statusOf('phoenix');
    const id = containerID.replace('estiba://', '');
    const pid = JSON.parse((await machine.run('docker', ['inspect', id])).text)[0].State.Pid as number;
    const before = performance.now();
    await machine.run('kill', ['-9', String(pid)]);
    await until(
      'phoenix',
      (p) => p.status?.containerStatuses?.[0]?.restartCount === 1 && p.status.containerStatuses[0].ready,
    );
    expect(performance.now() - before).toBeLessThan(1_000);
    expect(await machine.kubectl('logs phoenix --previous')).toBe('run\n');
    expect((await statusOf('phoenix')).lastState?.terminated).toMatchObject({ exitCode: 137, reason: 'Error' });
    await remove('phoenix');
  });

  it('probes decide on readiness and restarts: exec, http, tcp', async () => {
    const period = { periodSeconds: 1 };
    await machine.apply(
      pod('asked', {
        web: {
          command: ['sh', '-c', 'echo ok > /ok; httpd -f -p 8080 -h /'],
          ports: [{ name: 'http', containerPort: 8080 }],
          startupProbe: { tcpSocket: { port: 'http' }, ...period },
          readinessProbe: { httpGet: { path: '/ok', port: 'http' }, ...period, failureThreshold: 1 },
          livenessProbe: { exec: { command: ['test', '!', '-e', '/dead'] }, ...period, failureThreshold: 1 },
        },
      }),
    );
    await machine.kubectl('wait --for=condition=Ready pod/asked --timeout=20s');
    await machine.kubectl('exec asked -- mv /ok /away');
    await machine.kubectl('wait --for=condition=Ready=false pod/asked --timeout=20s');
    expect((await statusOf('asked')).restartCount).toBe(0);
    await machine.kubectl('exec asked -- mv /away /ok');
    await machine.kubectl('wait --for=condition=Ready pod/asked --timeout=20s');
    await machine.kubectl('exec asked -- touch /dead');
    await until(
      'asked',
      (p) => p.status?.containerStatuses?.[0]?.restartCount === 1 && p.status.containerStatuses[0].ready,
    );
    expect(await machine.kubectl('get events --field-selector involvedObject.name=asked,reason=Unhealthy')).toContain(
      'Liveness probe failed',
    );
    await remove('asked');
  });

  it('hooks run, the grace is kept, and security contexts hold', async () => {
    await machine.run('mkdir', ['-m', '777', `${machine.dir}/careful`]);
    await machine
      .apply(
        pod(
          'careful',
          {
            c: {
              command: ['sh', '-c', `trap 'echo term >> /v/log; exit' TERM; while :; do sleep 0.02; done`],
              volumeMounts: [{ name: 'v', mountPath: '/v' }],
              lifecycle: {
                postStart: { exec: { command: ['sh', '-c', 'echo post >> /v/log'] } },
                preStop: { exec: { command: ['sh', '-c', 'sleep 0.2; echo pre >> /v/log'] } },
              },
              securityContext: {
                runAsUser: 1000,
                runAsGroup: 3000,
                readOnlyRootFilesystem: true,
                allowPrivilegeEscalation: false,
                capabilities: { drop: ['ALL'] },
              },
            },
          },
          {
            terminationGracePeriodSeconds: 10,
            securityContext: { fsGroup: 2000, sysctls: [{ name: 'net.core.somaxconn', value: '512' }] },
            volumes: [
              { name: 'v', hostPath: { path: `${machine.dir}/careful`, type: 'Directory' } },
              { name: 'e', emptyDir: { medium: 'Memory' } },
            ],
          },
        ),
      )
      .catch((error: unknown) => expect.fail(String(error)));
    await machine.kubectl('wait --for=condition=Ready pod/careful --timeout=20s');
    const inside = await machine.kubectl(
      'exec careful -- sh -c "id -u; id -g; id -G; cat /proc/sys/net/core/somaxconn; grep -E NoNewPrivs /proc/self/status; touch /x" || true',
    );
    expect(inside).toMatch(/^1000\n3000\n3000 2000\n512\nNoNewPrivs:\t1\ntouch: \/x: Read-only file system\n/);
    await remove('careful');
    expect((await machine.run('cat', [`${machine.dir}/careful/log`])).text).toBe('post\npre\nterm\n');
  });

  it('a claim on the default class gets a volume, and another pod finds what the first wrote', async () => {
    await machine.apply(
      {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        metadata: { name: 'data' },
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
      },
      ...['writer', 'reader'].map((name) =>
        pod(
          name,
          {
            c: {
              command: [
                'sh',
                '-c',
                name === 'writer' ? 'echo kept > /data/x' : 'until cat /data/x; do sleep 0.05; done',
              ],
              volumeMounts: [{ name: 'd', mountPath: '/data' }],
            },
          },
          { restartPolicy: 'Never', volumes: [{ name: 'd', persistentVolumeClaim: { claimName: 'data' } }] },
        ),
      ),
    );
    await until('reader', (p) => p.status?.phase === 'Succeeded');
    expect(await machine.kubectl('logs reader')).toContain('kept');
    await remove('writer', 'reader');
    await machine.kubectl('delete pvc data --wait');
    await waitFor('the volume to go', 5_000, async () => (await machine.kubectl('get pv')).includes('No resources'));
  });
});

describe('pods and the end of the daemon', () => {
  let machine: Machine;
  const workload = pod('steady', { c: FOREVER }, { restartPolicy: 'Always' });
  const ids = async (): Promise<unknown> =>
    (await machine.get<{ items: Pod[] }>('pods')).items.map((p) => [
      p.metadata.name,
      p.status?.podIP,
      p.status?.containerStatuses?.[0]?.containerID,
      p.status?.containerStatuses?.[0]?.restartCount,
    ]);

  beforeAll(async () => {
    machine = await Machine.open('life');
    await machine.apply(workload);
    await machine.kubectl('create deployment three --image=busybox --replicas=3 -- sh -c "httpd -f -p 8080"');
    await machine.kubectl('wait --for=condition=Available deployment/three --timeout=20s');
    await machine.kubectl('wait --for=condition=Ready pod/steady --timeout=20s');
  });
  afterAll(() => machine.close());

  it('killed, it finds every pod as it was: nothing is started anew', async () => {
    const before = await ids();
    await machine.kill();
    await machine.start();
    expect(await ids()).toEqual(before);
    await machine.kubectl('exec steady -- true');
    await machine.kubectl('scale deployment three --replicas=4');
    await machine.kubectl('rollout status deployment/three --timeout=20s');
    const after = (await ids()) as [string, string, string, number][];
    expect(after.filter((row) => row[3] !== 0)).toEqual([]);
  });

  it('what the API forgot meanwhile is swept', async () => {
    await machine.kubectl('delete pod steady --grace-period=0 --force --wait=false');
    await machine.kill();
    await machine.start();
    await waitFor(
      'the orphan to go',
      10_000,
      async () => !(await machine.run('docker', ['ps', '--format', '{{.Names}}'])).text.includes('steady'),
    );
  });

  it('after a boot all pods run again, in place', async () => {
    const names = (rows: unknown): unknown => (rows as unknown[][]).map((row) => row[0]);
    const before = await ids();
    await machine.reboot();
    await waitFor('the pods to run', 20_000, async () => {
      const { items } = await machine.get<{ items: Pod[] }>('pods');
      return items.every(
        (p) => p.status?.containerStatuses?.[0]?.restartCount === 1 && p.status.containerStatuses[0].ready,
      );
    });
    expect(names(await ids())).toEqual(names(before));
  });
});
