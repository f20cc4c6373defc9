import { createHash } from 'node:crypto';
import type { ComposeService } from '#spec/compose/model.ts';
import { START_GATE } from '#spec/estiba/cluster.ts';
import type { Container, EnvVar, PodSpec, PodTemplateSpec, ResourceRequirements } from '#spec/kubernetes/types.gen.ts';
import {
  annotationsOf,
  type ComposeInput,
  dnsName,
  literal,
  refuseAttribute,
  seconds,
  selectorOf,
} from '#up/compose/context.ts';
import { type DeployWish, spreadOver } from '#up/compose/deploy.ts';
import { dependenciesOf } from '#up/compose/gate.ts';
import { mountsOf } from '#up/compose/mounts.ts';
import { networkLabels } from '#up/compose/networks.ts';
import { probesOf } from '#up/compose/probes.ts';
import { numericId, only, onlyNumbers, type PodDraft, takeRest } from '#up/compose/rest.ts';
import { compact, unlessBare, unlessEmpty } from '#up/objects.ts';

// Compose file specification, "stop_grace_period".
const STOP_GRACE_MS = 10_000;

/** The pod of a service. */
export function podOf(
  input: ComposeInput,
  service: ComposeService,
  deploy: DeployWish,
  image: string,
): PodTemplateSpec {
  const draft: PodDraft = {
    annotations: annotationsOf(service.labels, service.where('labels'), `services.${service.name}.labels`),
    pod: { ...(unlessBare(deploy.nodeSelector) ? { nodeSelector: deploy.nodeSelector } : {}) },
    podSecurity: {},
    container: {},
    security: securityOf(service),
  };
  takeRest(service, draft);
  const mounts = mountsOf(input, service);
  const selector = selectorOf(input, service.name);
  const waitsFor = dependenciesOf(input.project, service);
  const gated = input.cluster === 'estiba' && Object.keys(waitsFor).length > 0;
  const annotations = compact<Record<string, string>>({
    ...draft.annotations,
    [START_GATE]: Object.keys(waitsFor).length === 0 ? undefined : JSON.stringify(waitsFor),
    'estiba.dev/files': mounts.filesHash,
    'estiba.dev/built': input.built?.[service.name],
    'estiba.dev/restart-with': restartWith(input, service),
  });
  const container = compact<Container>({
    name: 'main',
    image,
    imagePullPolicy: 'IfNotPresent',
    command: wordsOf(service, 'entrypoint'),
    args: wordsOf(service, 'command'),
    workingDir: service.workingDir,
    env: unlessEmpty(environmentOf(input, service)),
    ports: unlessEmpty(containerPorts(service)),
    resources: resourcesOf(service),
    ...probesOf(service),
    ...draft.container,
    lifecycle: lifecycleOf(service, draft.container.lifecycle),
    securityContext: unlessBare(draft.security as Record<string, unknown>),
    stdin: service.stdinOpen || undefined,
    tty: service.tty || undefined,
    volumeMounts: unlessEmpty(mounts.volumeMounts),
  });
  const spec = compact<PodSpec>({
    ...draft.pod,
    ...hostNetwork(service),
    hostname:
      service.hostname && dnsName(service.hostname, service.where('hostname'), `services.${service.name}.hostname`),
    // Upstream wants the system named where a stop signal is (Lifecycle.stopSignal).
    os: service.stopSignal === undefined ? undefined : { name: 'linux' },
    restartPolicy: deploy.restartPolicy,
    schedulingGates: gated ? [{ name: START_GATE }] : undefined,
    securityContext: unlessBare(draft.podSecurity as Record<string, unknown>),
    // The reaping PID 1 of `init: true`: a pod with shared process ids has one.
    shareProcessNamespace: service.init || undefined,
    terminationGracePeriodSeconds: seconds(service.stopGracePeriodMs ?? STOP_GRACE_MS),
    topologySpreadConstraints: unlessEmpty(deploy.spread.map((key) => spreadOver(key, selector))),
    // Variables such as DB_PORT=tcp://…, which Kubernetes would add for each Service, break programs that read DB_PORT.
    enableServiceLinks: false,
    automountServiceAccountToken: false,
    containers: [container],
    volumes: unlessEmpty(mounts.volumes),
  });
  return {
    metadata: compact({ labels: { ...selector, ...networkLabels(service) }, annotations: unlessBare(annotations) }),
    spec,
  };
}

function wordsOf(service: ComposeService, attribute: 'command' | 'entrypoint'): string[] | undefined {
  const words = service[attribute];
  if (words === undefined || words === null) return undefined;
  if (words.length === 0)
    refuseAttribute(service, attribute, "is empty, but Kubernetes cannot take the image's own away");
  return words.map(literal);
}

function environmentOf(input: ComposeInput, service: ComposeService): EnvVar[] {
  return Object.entries(service.environment).flatMap(([name, given]) => {
    const value = given ?? input.environment[name];
    if (name === '' || name.includes('='))
      refuseAttribute(service, 'environment', `${JSON.stringify(name)} is no name of a variable`);
    return value === undefined ? [] : [{ name, value: literal(value) }];
  });
}

function containerPorts(service: ComposeService): NonNullable<Container['ports']> {
  return declaredPorts(service).map(({ port, protocol }) => ({ containerPort: port, protocol }));
}

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** Ports that the service says it listens on: those it publishes and those it exposes, once each. */
export function declaredPorts(service: ComposeService): { port: number; protocol: Protocol }[] {
  const found = new Map<string, { port: number; protocol: Protocol }>();
  const add = (port: number, written: string): void => {
    const protocol = protocolOf(written);
    found.set(`${port}/${protocol}`, { port, protocol });
  };
  for (const port of service.ports) add(port.target, port.protocol);
  for (const written of service.expose) {
    const [, first = '', last = first, protocol = 'tcp'] =
      /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/.exec(written) ??
      refuseAttribute(service, 'expose', `${JSON.stringify(written)} is no port`);
    for (let port = Number(first); port <= Number(last); port++) add(port, protocol);
  }
  return [...found.values()];
}

export function protocolOf(written: string): Protocol {
  return written.toUpperCase() as Protocol;
}

/** Limits as written. Without a reservation nothing is set aside: Kubernetes would reserve the whole limit. */
function resourcesOf(service: ComposeService): ResourceRequirements | undefined {
  const { cpus, memoryBytes, reservedCpus, reservedMemoryBytes, pids } = service.resources;
  if (pids !== undefined) refuseAttribute(service, 'pids_limit', 'Kubernetes limits processes by node only');
  const amount = (cpu: number | undefined, memory: number | undefined): Record<string, string> =>
    compact<Record<string, string>>({
      cpu: cpu === undefined ? undefined : cpuQuantity(cpu),
      memory: memory === undefined ? undefined : memoryQuantity(memory),
    });
  const limits = amount(cpus, memoryBytes);
  const reserved = amount(reservedCpus, reservedMemoryBytes);
  const requests = { ...Object.fromEntries(Object.keys(limits).map((k) => [k, '0'])), ...reserved };
  const all = compact<ResourceRequirements>({ limits: unlessBare(limits), requests: unlessBare(requests) });
  return Object.keys(all).length === 0 ? undefined : all;
}

function cpuQuantity(cpus: number): string {
  return Number.isInteger(cpus) ? String(cpus) : `${Math.round(cpus * 1000)}m`;
}

function memoryQuantity(bytes: number): string {
  const power = [3, 2, 1].find((p) => bytes >= 1024 ** p && bytes % 1024 ** p === 0);
  return power === undefined ? String(bytes) : `${bytes / 1024 ** power}${['Ki', 'Mi', 'Gi'][power - 1]}`;
}

function securityOf(service: ComposeService): PodDraft['security'] {
  const [user = '', group] = (service.user ?? '').split(':');
  const id = (name: string): number => numericId(name) ?? refuseAttribute(service, 'user', onlyNumbers(name));
  const names = (caps: readonly string[]): string[] | undefined =>
    unlessEmpty(caps.map((c) => c.replace(/^CAP_/i, '').toUpperCase()));
  const capabilities = compact({ add: names(service.capAdd), drop: names(service.capDrop) });
  return compact({
    runAsUser: user === '' ? undefined : id(user),
    runAsGroup: group === undefined ? undefined : id(group),
    privileged: service.privileged || undefined,
    readOnlyRootFilesystem: service.readOnly || undefined,
    capabilities: Object.keys(capabilities).length === 0 ? undefined : capabilities,
  });
}

function lifecycleOf(service: ComposeService, hooks: Container['lifecycle']): Container['lifecycle'] | undefined {
  const { stopSignal } = service;
  if (stopSignal === undefined) return hooks;
  const name = stopSignal.toUpperCase();
  const signal = name.startsWith('SIG') ? name : `SIG${name}`;
  if (/^SIG\d/.test(signal)) refuseAttribute(service, 'stop_signal', 'Kubernetes takes the name of a signal');
  return { ...hooks, stopSignal: signal as NonNullable<NonNullable<Container['lifecycle']>['stopSignal']> };
}

function hostNetwork(service: ComposeService): Partial<PodSpec> {
  const mode = service.rest.get('network_mode');
  if (!mode || only(mode, `services.${service.name}.network_mode`, ['host', 'bridge']) === 'bridge') return {};
  return { hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' };
}

/** `depends_on: {db: {restart: true}}`: whoever changes db restarts this one too. */
function restartWith(input: ComposeInput, service: ComposeService): string | undefined {
  const names = Object.entries(service.dependsOn).flatMap(([name, { restart }]) => (restart ? [name] : []));
  if (names.length === 0) return undefined;
  const hash = createHash('sha256');
  for (const name of names.sort()) {
    const { where, at, rest, ...told } = input.project.services[name] ?? service;
    hash.update(JSON.stringify([told, [...rest.keys()], input.built?.[name]]));
  }
  return hash.digest('hex').slice(0, 16);
}
