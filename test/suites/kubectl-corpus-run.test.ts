import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import type { Container, IntOrString, Pod, PodSpec, Probe } from '#spec/kubernetes/types.gen.ts';
import { Machine, waitFor } from '../cluster/machine.ts';
import { type StandIn, standInArchive } from './stand-in/images.ts';

const CORPUS = resolve(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/manifests');
const PATIENCE_MS = 90_000;

/** Manifests with pods that one machine without their surroundings cannot run, and what it says of them. */
const HELD: Readonly<Record<string, RegExp>> = {
  'calico-manifests-csi-driver.yaml': /hostPath type check failed: \/var\/lib\/kubelet is not a directory/,
  'k8s-device-plugin-deployments-static-nvidia-device-plugin.yaml': /hostPath type check failed/,
  'kubernetes-AI-vllm-deployment-vllm-deployment.yaml': /Insufficient nvidia\.com\/gpu/,
  'kubernetes-archived-storage-minio-minio-distributed-statefulset.yaml':
    /storageclass\.storage\.k8s\.io "standard" not found/,
  'kubernetes-databases-cassandra-cassandra-statefulset.yaml': /k8s\.io\/minikube-hostpath/,
  'kubernetes-databases-mysql-cinder-pd-mysql.yaml': /volumes of kind cinder cannot be mounted by this node/,
};

/** Programs that scripts of the manifests call, by the image they are in. */
const CALLED: readonly [image: RegExp, programs: readonly string[]][] = [
  [/\/cassandra:/, ['/usr/bin/nodetool', '/ready-probe.sh']],
  [/\/controller:/, ['/wait-shutdown']],
  [/\/cockroach:/, ['/cockroach/cockroach']],
  [/\/flannel-cni-plugin:/, ['/flannel']],
];

/** Runs against what another file of its project serves. */
const NEEDS: Readonly<Record<string, string>> = {
  'GoogleCloudPlatform-kubernetes-manifests-loadgenerator.yaml':
    'GoogleCloudPlatform-kubernetes-manifests-frontend.yaml',
};

/** Not served here; `kubectl.test.ts` shows how they are refused. */
const REFUSED = /^(CustomResourceDefinition|ValidatingWebhookConfiguration|APIService|CSIDriver|PodDisruptionBudget)$/;

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  spec?: {
    template?: { spec?: PodSpec };
    jobTemplate?: { spec: { template: { spec: PodSpec } } };
    ttlSecondsAfterFinished?: number;
  } & Partial<PodSpec>;
}

/**
 * Every manifest of the corpus with pods, on a daemon of its own machine, under the images' own names. An image holds a program that
 * stands in (`stand-in/stand-in.c`) at the paths the manifest starts. All else is as published, but for what needs a registry (digests,
 * `Always`) and time (delays of probes).
 */
describe('workloads of the shared corpus, their programs stood in for', () => {
  let machine: Machine;
  const dir = mkdtempSync(join(tmpdir(), 'estiba-kube-corpus-'));
  const files = existsSync(CORPUS) ? readdirSync(CORPUS).filter((f) => f.endsWith('.yaml')) : [];
  const objectsOf = new Map(files.map((file) => [file, read(file)]));
  const withPods = files.filter((file) => objectsOf.get(file)?.some((object) => podSpecOf(object)));

  beforeAll(async () => {
    machine = await Machine.open('corp');
    // Manifests that write to the node write to this machine: layers of its own over what all of this host share.
    for (const folder of ['/etc', '/opt', '/var/lib', '/run']) await overlay(machine, folder);
    const specs = [...objectsOf.values()].flat().flatMap((object) => podSpecOf(object) ?? []);
    const archive = standInArchive(dir, standInsFor(specs));
    const loaded = await machine.run('docker', ['load', '-q', '-i', archive]);
    expect(loaded.code, loaded.text).toBe(0);
  });
  afterAll(async () => {
    await machine.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('are there', () => expect(files.length, 'ESTIBA_SHARED must name the shared folder').toBe(36));

  for (const file of withPods)
    it(`${file}: ${HELD[file] ? `held, ${HELD[file].source}` : 'its pods run'}`, async () => {
      const needed = NEEDS[file];
      const all = [...(needed ? (objectsOf.get(needed) ?? []) : []), ...(objectsOf.get(file) ?? [])];
      const objects = all.filter((object) => !REFUSED.test(object.kind));
      const namespaces = new Set(objects.flatMap((o) => o.metadata.namespace ?? []));
      for (const name of namespaces) await machine.run('kubectl', ['create', 'namespace', name]);
      const others = missing(objects);
      if (others.length > 0) await machine.apply(...others);
      const answer = await machine.run('kubectl', ['apply', '-f', machine.file('list.json', listOf(objects))]);
      expect(answer.code, answer.text).toBe(0);
      for (const { kind, metadata } of objects)
        if (kind === 'CronJob')
          await machine.kubectl(
            `create job by-hand --from=cronjob/${metadata.name} -n ${metadata.namespace ?? 'default'}`,
          );
      try {
        await settled(machine, file, objects);
      } finally {
        await clear(machine, objects, namespaces);
      }
    });
});

async function overlay(machine: Machine, folder: string): Promise<void> {
  const room = join(machine.runRoot, 'over', folder);
  const options = `lowerdir=${folder},upperdir=${room}/upper,workdir=${room}/work`;
  const script = `mkdir -p ${room}/upper ${room}/work && mount -t overlay overlay -o ${options} ${folder}`;
  const { code, text } = await machine.run('sh', ['-c', script]);
  expect(code, text).toBe(0);
}

/** All pods that were asked for are ready or done; or the node has said what it was expected to say. */
async function settled(machine: Machine, file: string, objects: readonly Manifest[]): Promise<void> {
  const held = HELD[file];
  const wanted = objects.reduce((sum, object) => sum + replicasOf(object), 0);
  let seen = '';
  try {
    await waitFor('its pods', PATIENCE_MS, async () => {
      const { items } = await machine.get<{ items: Pod[] }>('pods -A');
      const gone = await finishedAndGone(machine, objects, items);
      if (items.length + gone >= wanted && items.every(isGood)) return true;
      if (!held) return false;
      seen = await stateOf(machine);
      return held.test(seen);
    });
  } catch (error) {
    throw new Error(await stateOf(machine), { cause: error });
  }
  if (held) expect(seen).toMatch(held);
}

/** Jobs that go when they are done (`ttlSecondsAfterFinished: 0`) and whose pods went with them: the event of their end is all there is. */
async function finishedAndGone(machine: Machine, objects: readonly Manifest[], pods: readonly Pod[]): Promise<number> {
  const fleeting = objects.filter(({ kind, spec }) => kind === 'Job' && spec?.ttlSecondsAfterFinished !== undefined);
  if (fleeting.length === 0) return 0;
  const ended = await machine.kubectl(
    'get events -A --field-selector reason=Completed -o custom-columns=o:.involvedObject.name',
  );
  const seen = new Set(pods.map(({ metadata }) => metadata.labels?.['batch.kubernetes.io/job-name']));
  return fleeting.filter(({ metadata: { name } }) => ended.split('\n').includes(name) && !seen.has(name)).length;
}

async function stateOf(machine: Machine): Promise<string> {
  const pods = await machine.kubectl('get pods -A -o wide');
  return `${pods}\n${await machine.kubectl('get events -A --sort-by=.lastTimestamp -o custom-columns=o:.involvedObject.name,r:.reason,m:.message')}`;
}

function isGood({ status }: Pod): boolean {
  if (status?.phase === 'Succeeded') return true;
  return status?.phase === 'Running' && (status.containerStatuses ?? []).every((c) => c.ready);
}

function replicasOf({ kind, spec }: Manifest): number {
  const { replicas } = (spec ?? {}) as { replicas?: number };
  if (kind === 'Deployment' || kind === 'StatefulSet') return replicas ?? 1;
  return ['DaemonSet', 'Job', 'CronJob', 'Pod'].includes(kind) ? 1 : 0;
}

async function clear(machine: Machine, objects: readonly Manifest[], namespaces: ReadonlySet<string>): Promise<void> {
  const file = machine.file('list.json', listOf([...objects, ...missing(objects)]));
  await machine.run('kubectl', ['delete', '-f', file, '--wait=false', '--grace-period=1', '--ignore-not-found']);
  await machine.run('kubectl', ['delete', 'jobs,pvc', '--all', '-A', '--wait=false']);
  await machine.run('kubectl', ['delete', 'pods', '--all', '-A', '--wait=false', '--grace-period=1']);
  await waitFor(
    'its pods to go',
    PATIENCE_MS,
    async () => (await machine.get<{ items: [] }>('pods -A')).items.length === 0,
  );
  for (const name of namespaces)
    if (!/^(default|kube-)/.test(name))
      await machine.run('kubectl', ['delete', 'namespace', name, '--ignore-not-found']);
  await machine.run('kubectl', ['delete', 'events', '--all', '-A']);
}

// ---- reading manifests

function read(file: string): Manifest[] {
  const documents = parseAllDocuments(readFileSync(join(CORPUS, file), 'utf8'));
  const objects = documents.flatMap((d) => (d.toJS() as Manifest | null) ?? []);
  for (const object of objects) {
    const spec = podSpecOf(object);
    for (const container of [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]) {
      container.image = container.image?.replace(/@sha256:.*/, '') ?? '';
      container.imagePullPolicy = 'IfNotPresent';
      for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe])
        if (probe) Object.assign(probe, { initialDelaySeconds: 0, periodSeconds: 1, failureThreshold: 30 });
    }
  }
  return objects;
}

function podSpecOf(object: Manifest): PodSpec | undefined {
  if (object.kind === 'Pod') return object.spec as PodSpec;
  return object.spec?.template?.spec ?? object.spec?.jobTemplate?.spec.template.spec;
}

function listOf(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** Config maps, secrets and accounts that other files of the project make, or its programs at run time. */
function missing(objects: readonly Manifest[]): Manifest[] {
  const made = new Map<string, Manifest & { data?: Record<string, string> }>();
  const add = (kind: string, name: string, namespace: string, keys: readonly string[]): void => {
    const is = (o: Manifest): boolean =>
      o.kind === kind && o.metadata.name === name && (o.metadata.namespace ?? 'default') === namespace;
    if (objects.some(is)) return;
    const data = Object.fromEntries(keys.map((key) => [key, kind === 'Secret' ? 'eA==' : 'x']));
    const had = made.get(`${kind}/${namespace}/${name}`)?.data ?? {};
    const rest = kind === 'ServiceAccount' ? {} : { data: { ...had, ...data } };
    made.set(`${kind}/${namespace}/${name}`, { apiVersion: 'v1', kind, metadata: { name, namespace }, ...rest });
  };
  for (const object of objects) {
    const spec = podSpecOf(object);
    const namespace = object.metadata.namespace ?? 'default';
    const account = spec?.serviceAccountName ?? spec?.serviceAccount;
    if (account) add('ServiceAccount', account, namespace, []);
    for (const { configMap, secret } of spec?.volumes ?? []) {
      const keys = (configMap ?? secret)?.items?.map((item) => item.key) ?? ['x'];
      if (configMap && !configMap.optional) add('ConfigMap', configMap.name ?? '', namespace, keys);
      if (secret && !secret.optional) add('Secret', secret.secretName ?? '', namespace, keys);
    }
    for (const { env } of [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])])
      for (const { valueFrom } of env ?? []) {
        const { configMapKeyRef: map, secretKeyRef: secret } = valueFrom ?? {};
        if (map && !map.optional) add('ConfigMap', map.name ?? '', namespace, [map.key]);
        if (secret && !secret.optional) add('Secret', secret.name ?? '', namespace, [secret.key]);
      }
  }
  return [...made.values()];
}

// ---- what the images have to hold

/** A role of an image: a container, whether its program is to end, and whether the image has to name a user who is not root. */
function rolesOf(specs: readonly PodSpec[]): { container: Container; ends: boolean; unprivileged: boolean }[] {
  return specs.flatMap((spec) => {
    const role = (container: Container, ends: boolean) => {
      const security = { ...spec.securityContext, ...container.securityContext };
      return { container, ends, unprivileged: security.runAsNonRoot === true && security.runAsUser === undefined };
    };
    const once = /^(Never|OnFailure)$/.test(spec.restartPolicy ?? '');
    return [
      ...(spec.initContainers ?? []).map((container) => role(container, container.restartPolicy !== 'Always')),
      ...spec.containers.map((container) => role(container, once)),
    ];
  });
}

function standInsFor(specs: readonly PodSpec[]): StandIn[] {
  const all = rolesOf(specs);
  const byImage = new Map(
    all.map(({ container: { image = '' } }) => [image, all.filter((r) => r.container.image === image)]),
  );
  return [...byImage].map(([image, roles]) => ({
    image,
    ports: [...new Set(roles.flatMap(({ container }) => portsOf(container)))],
    programs: [
      ...roles.flatMap(({ container }) => programOf(container) ?? []),
      ...CALLED.flatMap(([of, programs]) => (of.test(image) ? programs : [])),
    ],
    ends: roles.filter(({ ends }) => ends).map(({ container }) => basename(container.command?.[0] ?? 'stand-in')),
    ...(roles.some(({ unprivileged }) => unprivileged) ? { user: '65534' } : {}),
  }));
}

/** The path at which the manifest starts the program; what has no slash is looked for in PATH. A shell and `cp` are real. */
function programOf({ command }: Container): string | undefined {
  const [program] = command ?? [];
  if (program === undefined || /^(.*\/)?((ba)?sh|cp)$/.test(program)) return undefined;
  return program.includes('/') ? join('/', program) : join('/usr/local/bin', program);
}

/** TCP ports that the container or its probes name. */
function portsOf(container: Container): number[] {
  const named = (port: IntOrString): number =>
    container.ports?.find((p) => p.name === port)?.containerPort ?? Number(port);
  const asked = (probe: Probe | undefined): number[] =>
    [probe?.httpGet?.port, probe?.tcpSocket?.port, probe?.grpc?.port].flatMap((p) => (p === undefined ? [] : named(p)));
  const own = (container.ports ?? []).filter((p) => (p.protocol ?? 'TCP') === 'TCP').map((p) => p.containerPort);
  return [...own, ...[container.startupProbe, container.readinessProbe, container.livenessProbe].flatMap(asked)];
}
