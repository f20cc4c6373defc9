import { describe, expect, it } from 'vitest';
import type { ContainerStatus, Ingress, PersistentVolumeClaim, Pod, Service } from '#spec/kubernetes/types.gen.ts';
import { renderFindings } from '#up/why/finding.ts';
import { explainPod } from '#up/why/pod.ts';
import { explainClaim, explainIngress, explainService } from '#up/why/service.ts';
import { EMPTY_WORLD, type World } from '#up/why/world.ts';

const READY_NODE = {
  metadata: { name: 'n1' },
  spec: {},
  status: { conditions: [{ type: 'Ready', status: 'True' }] },
} as World['nodes'][number];
const world = (changes: Partial<World> = {}): World => ({ ...EMPTY_WORLD, nodes: [READY_NODE], ...changes });

function pod(status: Partial<ContainerStatus> & object, more: Partial<Pod['spec']> = {}, phase = 'Running'): Pod {
  const base = { name: 'c', image: 'shop:1', imageID: '', ready: false, restartCount: 0 };
  const ready = status.ready ? 'True' : 'False';
  return {
    metadata: { name: 'p', labels: { app: 'web' } },
    spec: { nodeName: 'n1', containers: [{ name: 'c', ...(more.containers?.[0] ?? {}) }], ...more } as Pod['spec'],
    status: {
      phase,
      containerStatuses: [{ ...base, ...status }],
      conditions: [{ type: 'Ready', status: ready }],
    } as NonNullable<Pod['status']>,
  };
}
const waits = (reason: string, message = ''): Partial<ContainerStatus> => ({ state: { waiting: { reason, message } } });
const ended = (exitCode: number, reason = 'Error'): Partial<ContainerStatus> => ({
  restartCount: 3,
  state: { waiting: { reason: 'CrashLoopBackOff' } },
  lastState: { terminated: { exitCode, reason } },
});
const event = (kind: string, name: string, reason: string, message: string): World['events'][number] => ({
  metadata: {},
  involvedObject: { kind, name },
  reason,
  message,
});

describe('why a pod is as it is', () => {
  const pending = (spec: Partial<Pod['spec']>, conditions: object[] = []): Pod =>
    ({
      metadata: { name: 'p' },
      spec: { containers: [], ...spec },
      status: { phase: 'Pending', conditions },
    }) as unknown as Pod;
  const unfit = [
    {
      type: 'PodScheduled',
      status: 'False',
      reason: 'Unschedulable',
      message: '0/1 nodes are available: 1 Insufficient cpu.',
    },
  ];
  const gate = {
    ...pending({ schedulingGates: [{ name: 'estiba.dev/depends-on' }] }),
    metadata: { name: 'p', annotations: { 'estiba.dev/depends-on': '{"db":"service_healthy"}' } },
  };
  const rows: [code: string, says: string, pod: Pod, world?: Partial<World>][] = [
    ['POD_FINE', 'all containers run', pod({ ready: true, state: { running: {} } })],
    ['POD_DONE', 'exit code 0', pod({ state: { terminated: { exitCode: 0 } } }, {}, 'Succeeded')],
    ['POD_IMAGE_PULL', 'no registry that was asked has it', pod(waits('ImagePullBackOff', 'manifest unknown'))],
    ['POD_IMAGE_PULL', 'imagePullSecrets', pod(waits('ErrImagePull', '401 unauthorized'))],
    ['POD_IMAGE_PULL', 'cannot be reached', pod(waits('ErrImagePull', 'getaddrinfo ENOTFOUND r'))],
    ['POD_IMAGE_ABSENT', 'imagePullPolicy is Never', pod(waits('ErrImageNeverPull'))],
    ['POD_IMAGE_INVALID', 'no name of an image', pod(waits('InvalidImageName'))],
    ['POD_CONFIG', 'secret "x" not found', pod(waits('CreateContainerConfigError', 'secret "x" not found'))],
    ['POD_COMMAND', 'no such file', pod(waits('RunContainerError', 'exec: no such file'))],
    ['POD_COMMAND', 'the command is not in the image', pod(ended(127))],
    ['POD_CRASH_LOOP', 'the program itself gave that code', pod(ended(1))],
    ['POD_CRASH_LOOP', 'SIGSEGV', pod(ended(139))],
    [
      'POD_OOM',
      'more memory than 64Mi',
      pod(ended(137, 'OOMKilled'), { containers: [{ name: 'c', resources: { limits: { memory: '64Mi' } } }] }),
    ],
    [
      'POD_EXITED',
      'exit code 3',
      pod({ state: { terminated: { exitCode: 3 } } }, { restartPolicy: 'Never' }, 'Failed'),
    ],
    [
      'POD_NOT_READY',
      'GET :80/healthy',
      pod(
        { state: { running: {} }, started: true },
        { containers: [{ name: 'c', readinessProbe: { httpGet: { port: 80, path: '/healthy' } } }] },
      ),
    ],
    [
      'POD_STARTING',
      'exec check',
      pod(
        { state: { running: {} }, started: false },
        { containers: [{ name: 'c', startupProbe: { exec: { command: ['check'] } } }] },
      ),
    ],
    ['POD_RESTARTED', 'after 3 restarts', pod({ ...ended(1), ready: true, state: { running: {} } })],
    ['POD_UNSCHEDULABLE', 'Insufficient cpu', pending({}, unfit)],
    [
      'POD_NO_CLAIM',
      'there is no claim data',
      pending({ volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }] }, unfit),
    ],
    ['POD_NO_NODES', 'the cluster has no node', pending({}), { nodes: [] }],
    ['POD_NOT_SCHEDULED', 'the scheduler has not looked', pending({})],
    ['POD_WAITS_FOR', 'depends_on names db (service_healthy)', gate],
    ['POD_PREPARING', 'images, volumes and network', pending({ nodeName: 'n1' })],
    [
      'POD_VOLUME',
      'no such device',
      pending({ nodeName: 'n1' }),
      { events: [event('Pod', 'p', 'FailedMount', 'no such device')] },
    ],
    [
      'POD_SANDBOX',
      'no address left',
      pending({ nodeName: 'n1' }),
      { events: [event('Pod', 'p', 'FailedCreatePodSandBox', 'no address left')] },
    ],
    [
      'POD_NODE_LOST',
      'n1 is not ready',
      pod({}),
      { nodes: [{ ...READY_NODE, status: { conditions: [{ type: 'Ready', status: 'Unknown' }] } }] },
    ],
    [
      'POD_EVICTED',
      'low on memory',
      { ...pod({}), status: { phase: 'Failed', reason: 'Evicted', message: 'low on memory' } },
    ],
  ];
  it.each(rows)('%s: %s', (code, says, subject, changes = {}) => {
    const findings = explainPod(subject, world(changes));
    expect(findings.map((f) => f.code)).toEqual([code]);
    expect(renderFindings('pod/p', findings)).toContain(says);
  });

  it('tells of a pod that is being deleted what holds it', () => {
    const subject = {
      ...pod({}),
      metadata: { name: 'p', deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['a/b'] },
    };
    expect(explainPod(subject, world())[0]).toMatchObject({
      code: 'POD_TERMINATING',
      cause: 'finalizers hold it: a/b',
    });
  });
});

describe('why a service does not answer', () => {
  const service = (spec: object): Service => ({
    metadata: { name: 's' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80 }], ...spec },
  });
  const up = pod(
    { ready: true, state: { running: {} } },
    { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 80 }] }] },
  );
  const rows: [code: string, says: string, service: Service, world: Partial<World>][] = [
    ['SVC_FINE', '1 of 1 pods', service({}), { pods: [up] }],
    ['SVC_NO_PODS', 'tier is absent, not front', service({ selector: { app: 'web', tier: 'front' } }), { pods: [up] }],
    ['SVC_NO_SELECTOR', 'somebody else', service({ selector: {} }), {}],
    ['SVC_NO_READY_PODS', 'manifest unknown', service({}), { pods: [pod(waits('ErrImagePull', 'manifest unknown'))] }],
    ['SVC_NO_SUCH_PORT', 'a port named web', service({ ports: [{ port: 80, targetPort: 'web' }] }), { pods: [up] }],
    [
      'SVC_UNDECLARED_PORT',
      'which no container declares',
      service({ ports: [{ port: 80, targetPort: 81 }] }),
      { pods: [up] },
    ],
    ['SVC_NO_ADDRESS', 'no pool has a free address', service({ type: 'LoadBalancer' }), { pods: [up] }],
    [
      'SVC_POLICY',
      'chosen by only',
      service({}),
      {
        pods: [up],
        policies: [
          { metadata: { name: 'only' }, spec: { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] } },
        ],
      },
    ],
    ['SVC_EXTERNAL', 'another name for x.org', service({ type: 'ExternalName', externalName: 'x.org' }), {}],
  ];
  it.each(rows)('%s: %s', (code, says, subject, changes) => {
    const findings = explainService(subject, world(changes));
    expect(findings.map((f) => f.code)).toEqual([code]);
    const text = renderFindings('svc/s', findings);
    expect(text).toContain(says === 'manifest unknown' ? 'no registry that was asked has it' : says);
  });

  const ingress = (spec: object): Ingress => ({
    metadata: { name: 'i' },
    spec: { defaultBackend: { service: { name: 's', port: { number: 80 } } }, ...spec },
  });
  it.each([
    ['ING_FINE', ingress({}), { services: [service({})], pods: [up] }],
    ['ING_NO_SERVICE', ingress({}), {}],
    ['ING_NO_PORT', ingress({}), { services: [service({ ports: [{ port: 81 }] })], pods: [up] }],
    ['ING_NO_CLASS', ingress({ ingressClassName: 'x' }), { services: [service({})], pods: [up] }],
    ['ING_NO_CERTIFICATE', ingress({ tls: [{ secretName: 't' }] }), { services: [service({})], pods: [up] }],
    ['SVC_NO_PODS', ingress({}), { services: [service({})] }],
  ])('an ingress: %s', (code, subject, changes) => {
    expect(explainIngress(subject, world(changes)).map((f) => f.code)).toEqual([code]);
  });
});

describe('why a claim is not bound', () => {
  const claim = (spec: object, phase = 'Pending', metadata: object = {}): PersistentVolumeClaim =>
    ({ metadata: { name: 'data', ...metadata }, spec, status: { phase } }) as PersistentVolumeClaim;
  const local = {
    metadata: { name: 'local' },
    provisioner: 'estiba.dev/local',
    volumeBindingMode: 'WaitForFirstConsumer',
  } as World['storageClasses'][number];
  it.each([
    ['PVC_FINE', claim({ volumeName: 'v' }, 'Bound'), {}],
    ['PVC_LOST', claim({ volumeName: 'v' }, 'Lost'), {}],
    ['PVC_NO_CLASS', claim({}), {}],
    ['PVC_NO_CLASS', claim({ storageClassName: 'fast' }), { storageClasses: [local] }],
    ['PVC_WAITS_FOR_POD', claim({ storageClassName: 'local' }), { storageClasses: [local] }],
    [
      'PVC_PROVISIONING',
      claim({ storageClassName: 'local' }),
      { storageClasses: [local], events: [event('PersistentVolumeClaim', 'data', 'ProvisioningFailed', 'full')] },
    ],
    ['PVC_NO_VOLUME', claim({ storageClassName: '' }), {}],
    ['PVC_IN_USE', claim({}, 'Bound', { deletionTimestamp: 'x', finalizers: ['kubernetes.io/pvc-protection'] }), {}],
  ])('%s', (code, subject, changes) => {
    expect(explainClaim(subject, world(changes)).map((f) => f.code)).toEqual([code]);
  });
});
