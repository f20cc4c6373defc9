import type { ComposeService, ComposeVolume } from '#spec/compose/model.ts';
import * as read from '#spec/compose/read.ts';
import { refuse } from '#spec/compose/tree.ts';
import { SERVICE_LABEL } from '#spec/estiba/cluster.ts';
import type { PodTemplateSpec } from '#spec/kubernetes/types.gen.ts';
import { type ComposeInput, dnsName, objectName, refuseAttribute, selectorOf } from '#up/compose/context.ts';
import { type DeployWish, deployOf } from '#up/compose/deploy.ts';
import { claimNameOf, contentOf, fileObjectName } from '#up/compose/mounts.ts';
import { policiesOf } from '#up/compose/networks.ts';
import { podOf } from '#up/compose/pod.ts';
import { servicesOf } from '#up/compose/ports.ts';
import { UpInvalid } from '#up/errors.ts';
import {
  type AppPlan,
  type BuildWish,
  compact,
  inOrder,
  KEEP_LABEL,
  nameOf,
  type UpObject,
  unlessBare,
} from '#up/objects.ts';

/** A Compose application as Kubernetes objects: the mapping of `docs/specs/up.md`, and nothing else. */
export function planCompose(input: ComposeInput): AppPlan {
  const { project } = input;
  const services = Object.values(project.services);
  const objects = [
    namespaceObject(input),
    ...filesOf(input, 'secrets'),
    ...filesOf(input, 'configs'),
    ...claimsOf(input),
    ...policiesOf(input),
    ...services.flatMap((service) => servicesOf(input, service)),
    ...services.map((service) => workloadOf(input, service)),
  ];
  checkUnique(objects);
  const builds = services.flatMap((service) => buildOf(input, service) ?? []);
  return { app: project.name, namespace: input.namespace, builds, objects: inOrder(objects) };
}

function namespaceObject({ namespace }: ComposeInput): UpObject {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } };
}

function workloadOf(input: ComposeInput, service: ComposeService): UpObject {
  const name = dnsName(service.name, service.at, `services.${service.name}`);
  const deploy = deployOf(input.project, service);
  const template = podOf(input, service, deploy, imageOf(input, service));
  const metadata = compact({
    name,
    namespace: input.namespace,
    labels: { [SERVICE_LABEL]: name },
    annotations: unlessBare(deploy.annotations),
  });
  const [apiVersion, spec] = workloadSpec(input, service, deploy, template);
  return { apiVersion, kind: deploy.kind, metadata, spec } as UpObject;
}

function workloadSpec(
  input: ComposeInput,
  service: ComposeService,
  deploy: DeployWish,
  template: PodTemplateSpec,
): [apiVersion: string, spec: object] {
  const selector = { matchLabels: selectorOf(input, service.name) };
  const { replicas, name } = service;
  const { minReadySeconds, strategy, backoffLimit } = deploy;
  switch (deploy.kind) {
    case 'Deployment':
      return ['apps/v1', compact({ replicas: replicas ?? 1, minReadySeconds, strategy, selector, template })];
    case 'StatefulSet':
      return [
        'apps/v1',
        compact({
          replicas: replicas ?? 1,
          minReadySeconds,
          serviceName: name,
          podManagementPolicy: 'Parallel',
          selector,
          template,
        }),
      ];
    case 'DaemonSet':
      if (replicas !== undefined) refuseAttribute(service, 'deploy', 'mode global has one pod a node and no replicas');
      return ['apps/v1', compact({ minReadySeconds, selector, template })];
    case 'Job':
      return ['batch/v1', compact({ completions: replicas, parallelism: replicas, backoffLimit, template })];
  }
}

function imageOf(input: ComposeInput, service: ComposeService): string {
  return service.image ?? `${input.project.name}-${service.name}:latest`;
}

const BUILD_HARMLESS = new Set(['labels', 'tags', 'pull', 'no_cache', 'cache_from', 'cache_to', 'provenance', 'sbom']);

function buildOf(input: ComposeInput, service: ComposeService): BuildWish | undefined {
  const { build } = service;
  if (!build) return undefined;
  const path = `services.${service.name}.build`;
  if (input.cluster === 'other' && service.image === undefined)
    refuse(
      service.where('build'),
      path,
      'an image that is built here needs an image: name under which the other cluster can pull it',
    );
  for (const [key, value] of build.rest)
    if (!key.startsWith('x-'))
      refuse(value.at, `${path}.${key}`, BUILD_HARMLESS.has(key) ? 'give it to `estiba build`' : 'is not supported');
  const args = Object.entries(build.args).flatMap(([k, given]): [string, string][] => {
    const value = given ?? input.environment[k];
    return value === undefined ? [] : [[k, value]];
  });
  return compact<BuildWish>({
    service: service.name,
    image: imageOf(input, service),
    context: build.context,
    dockerfile: build.dockerfile,
    dockerfileInline: build.dockerfileInline,
    args: Object.fromEntries(args),
    target: build.target,
  });
}

function filesOf(input: ComposeInput, section: 'secrets' | 'configs'): UpObject[] {
  const used = new Set(Object.values(input.project.services).flatMap((s) => s[section].map((f) => f.source)));
  return Object.entries(input.project[section]).flatMap(([source, given]) => {
    if (given.external || !used.has(source)) return [];
    for (const [key, value] of given.rest)
      if (key !== 'labels') refuse(value.at, `${section}.${source}.${key}`, 'has no counterpart in Kubernetes');
    const { name, key } = fileObjectName(section, source, given);
    const metadata = { name, namespace: input.namespace };
    const content = Buffer.from(contentOf(input, given));
    if (section === 'secrets')
      return [{ apiVersion: 'v1', kind: 'Secret', metadata, data: { [key]: content.toString('base64') } }];
    const text = content.toString('utf8');
    const isText = Buffer.from(text).equals(content);
    const body = isText ? { data: { [key]: text } } : { binaryData: { [key]: content.toString('base64') } };
    return [{ apiVersion: 'v1', kind: 'ConfigMap', metadata, ...body }];
  });
}

// A local provisioner does not hold anybody to it; others make a disk of this size. `driver_opts: {size: 20g}` says another.
const CLAIM_SIZE = '1Gi';

function claimsOf(input: ComposeInput): UpObject[] {
  const services = Object.values(input.project.services);
  const used = new Set(
    services.flatMap((s) => s.volumes.flatMap((v) => (v.type === 'volume' && v.source ? [v.source] : []))),
  );
  return Object.entries(input.project.volumes).flatMap(([source, volume]) => {
    if (volume.external || !used.has(source)) return [];
    const metadata = { name: claimNameOf(input, source), namespace: input.namespace, labels: { [KEEP_LABEL]: 'true' } };
    const spec = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: claimSize(volume, source) } } };
    return [{ apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata, spec }];
  });
}

function claimSize(volume: ComposeVolume, source: string): string {
  let size = CLAIM_SIZE;
  for (const [key, value] of volume.rest) {
    const path = `volumes.${source}.${key}`;
    if (key === 'labels') continue;
    if (key === 'driver' && value.is === 'scalar' && value.text === 'local') continue;
    if (key !== 'driver_opts') refuse(value.at, path, 'has no counterpart in Kubernetes');
    for (const [option, given] of read.map(value, path).entries) {
      if (option !== 'size') refuse(given.at, `${path}.${option}`, 'has no counterpart in Kubernetes; size has');
      size = String(read.bytes(given, `${path}.size`));
    }
  }
  return size;
}

/** Two things that come to one name would overwrite each other without a word. */
function checkUnique(objects: readonly UpObject[]): void {
  const seen = new Set<string>();
  for (const object of objects) {
    const name = nameOf(object);
    if (seen.has(name))
      throw new UpInvalid({ where: name, problem: 'two things of this file come to the same name in Kubernetes' });
    seen.add(name);
  }
}

/** `my_shop` is a project of Compose; a namespace has no underscore. */
export function namespaceFor(app: string): string {
  return objectName(app);
}
