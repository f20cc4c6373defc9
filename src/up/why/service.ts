import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { Ingress, PersistentVolumeClaim, Pod, Service, ServicePort } from '#spec/kubernetes/types.gen.ts';
import type { Finding } from '#up/why/finding.ts';
import { explainPod, readyOf } from '#up/why/pod.ts';
import { eventsOf, type World } from '#up/why/world.ts';

/** Why a Service does or does not answer. */
export function explainService(service: Service, world: World): Finding[] {
  const { name = '' } = service.metadata;
  const { selector, type, ports = [] } = service.spec ?? {};
  const kubectl = `kubectl -n ${world.namespace}`;
  if (type === 'ExternalName')
    return [
      info(
        'SVC_EXTERNAL',
        `is another name for ${service.spec?.externalName ?? ''}`,
        'type ExternalName',
        `${kubectl} get svc ${name}`,
      ),
    ];
  if (!selector || Object.keys(selector).length === 0)
    return [
      info(
        'SVC_NO_SELECTOR',
        'has no selector',
        'its endpoints are made by somebody else',
        `${kubectl} get endpointslices`,
      ),
    ];
  const pods = world.pods.filter((p) => matches(selector, p) && !p.metadata.deletionTimestamp);
  if (pods.length === 0)
    return [
      {
        code: 'SVC_NO_PODS',
        level: 'broken',
        fact: 'has nobody behind it',
        cause: `no pod has the labels ${textOf(selector)}`,
        evidence: nearest(selector, world.pods),
        next: `${kubectl} get pods --show-labels`,
      },
    ];
  const ready = pods.filter((p) => readyOf(p.status?.conditions) === 'True');
  if (ready.length === 0) {
    const [first] = pods;
    const why = first ? explainPod(first, world)[0] : undefined;
    return [
      {
        code: 'SVC_NO_READY_PODS',
        level: 'waiting',
        fact: `has ${pods.length} pods behind it, none of them ready`,
        cause: why ? `${first?.metadata.name}: ${why.fact}: ${why.cause}` : 'they are starting',
        evidence: why?.evidence ?? [],
        next: `estiba why pod/${first?.metadata.name ?? ''}`,
      },
    ];
  }
  const found = [
    ...ports.flatMap((port) => explainPort(port, ready, kubectl, name)),
    ...loadBalancer(service, kubectl),
    ...policies(ready, world, kubectl),
  ];
  return found.length > 0
    ? found
    : [
        info(
          'SVC_FINE',
          `answers with ${ready.length} of ${pods.length} pods`,
          'its selector finds ready pods that have its ports',
          `${kubectl} get endpointslices -l kubernetes.io/service-name=${name}`,
        ),
      ];
}

function info(code: string, fact: string, cause: string, next: string): Finding {
  return { code, level: 'info', fact, cause, evidence: [], next };
}

function matches(selector: Readonly<Record<string, string>>, pod: Pod): boolean {
  return matchesSelector({ matchLabels: selector }, pod.metadata.labels ?? {});
}

function textOf(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([k, v]) => `${k}=${v}`)
    .join(',');
}

/** The pods that miss the fewest labels: most often one letter is wrong. */
function nearest(selector: Readonly<Record<string, string>>, pods: readonly Pod[]): string[] {
  const wrong = (pod: Pod): string[] =>
    Object.entries(selector).flatMap(([k, v]) =>
      pod.metadata.labels?.[k] === v ? [] : [`${k} is ${pod.metadata.labels?.[k] ?? 'absent'}, not ${v}`],
    );
  const [best] = pods.map((pod) => ({ pod, wrong: wrong(pod) })).sort((a, b) => a.wrong.length - b.wrong.length);
  if (!best || best.wrong.length === Object.keys(selector).length) return [`${pods.length} pods in the namespace`];
  return [`nearest is ${best.pod.metadata.name}: ${best.wrong.join('; ')}`];
}

function explainPort(port: ServicePort, ready: readonly Pod[], kubectl: string, service: string): Finding[] {
  const target = port.targetPort ?? port.port;
  const declared = ready.flatMap((p) => p.spec.containers.flatMap((c) => c.ports ?? []));
  if (typeof target === 'string') {
    if (declared.some((p) => p.name === target)) return [];
    return [
      {
        code: 'SVC_NO_SUCH_PORT',
        level: 'broken',
        fact: `port ${port.port} leads nowhere`,
        cause: `no container of its pods has a port named ${target}`,
        evidence: [`they declare ${declared.map((p) => p.name ?? p.containerPort).join(', ') || 'none'}`],
        next: `${kubectl} edit svc ${service}`,
      },
    ];
  }
  // What is declared is a hint only: a port that is not may well be listened on.
  if (declared.length === 0 || declared.some((p) => p.containerPort === target)) return [];
  return [
    {
      code: 'SVC_UNDECLARED_PORT',
      level: 'info',
      fact: `port ${port.port} leads to ${target}, which no container declares`,
      cause:
        'targetPort and containerPort differ: connections are refused unless the program listens there all the same',
      evidence: [`they declare ${declared.map((p) => p.containerPort).join(', ')}`],
      next: `${kubectl} port-forward svc/${service} ${port.port}`,
    },
  ];
}

function loadBalancer({ metadata, spec, status }: Service, kubectl: string): Finding[] {
  if (spec?.type !== 'LoadBalancer' || (status?.loadBalancer?.ingress ?? []).length > 0) return [];
  return [
    {
      code: 'SVC_NO_ADDRESS',
      level: 'waiting',
      fact: 'has no address outside the cluster',
      cause: 'nobody has given it one: no pool has a free address, or its ports are taken on the node',
      evidence: ['status.loadBalancer is empty'],
      next: `${kubectl} describe svc ${metadata.name ?? ''}`,
    },
  ];
}

function policies(pods: readonly Pod[], world: World, kubectl: string): Finding[] {
  const closed = world.policies.filter(({ spec }) => {
    const types = spec?.policyTypes ?? ['Ingress'];
    return types.includes('Ingress') && pods.some((p) => matchesSelector(spec?.podSelector, p.metadata.labels ?? {}));
  });
  // An empty selector, or a rule without `from`, lets everybody in somewhere: then policies are not the whole story.
  if (
    closed.length === 0 ||
    closed.some(({ spec }) => (spec?.ingress ?? []).some((rule) => (rule.from ?? []).length === 0))
  )
    return [];
  return [
    {
      code: 'SVC_POLICY',
      level: 'info',
      fact: 'answers only those whom policies name',
      cause: `its pods are chosen by ${closed.map((p) => p.metadata.name).join(', ')}`,
      evidence: closed.map(
        (p) => `${p.metadata.name}: from ${JSON.stringify((p.spec?.ingress ?? []).flatMap((r) => r.from ?? []))}`,
      ),
      next: `${kubectl} describe networkpolicy`,
    },
  ];
}

/** Why an Ingress does or does not lead to a service. */
export function explainIngress(ingress: Ingress, world: World): Finding[] {
  const { name = '' } = ingress.metadata;
  const kubectl = `kubectl -n ${world.namespace}`;
  const out: Finding[] = [];
  const wanted = ingress.spec?.ingressClassName;
  if (wanted !== undefined && !world.ingressClasses.includes(wanted))
    out.push({
      code: 'ING_NO_CLASS',
      level: 'broken',
      fact: 'is served by nobody',
      cause: `there is no IngressClass ${wanted}`,
      evidence: [`classes: ${world.ingressClasses.join(', ') || 'none'}`],
      next: `${kubectl} edit ingress ${name}`,
    });
  for (const { secretName } of ingress.spec?.tls ?? [])
    if (secretName && !world.secrets.includes(secretName))
      out.push({
        code: 'ING_NO_CERTIFICATE',
        level: 'broken',
        fact: 'has no certificate',
        cause: `there is no secret ${secretName}`,
        evidence: [`spec.tls names ${secretName}`],
        next: `${kubectl} create secret tls ${secretName} --cert=… --key=…`,
      });
  const backends = [
    ingress.spec?.defaultBackend,
    ...(ingress.spec?.rules ?? []).flatMap((r) => (r.http?.paths ?? []).map((p) => p.backend)),
  ];
  const seen = new Set<string>();
  for (const backend of backends) {
    const wish = backend?.service;
    if (!wish || seen.has(wish.name)) continue;
    seen.add(wish.name);
    const service = world.services.find((s) => s.metadata.name === wish.name);
    const port = (service?.spec?.ports ?? []).find(({ port: number, name: portName }) =>
      wish.port?.name === undefined ? number === wish.port?.number : portName === wish.port.name,
    );
    if (!service || !port)
      out.push({
        code: service ? 'ING_NO_PORT' : 'ING_NO_SERVICE',
        level: 'broken',
        fact: `leads to ${wish.name}, which ${service ? 'has no such port' : 'is not there'}`,
        cause: service
          ? `it has ${(service.spec?.ports ?? []).map((p) => p.port).join(', ')}, not ${wish.port?.number ?? wish.port?.name}`
          : `there is no Service ${wish.name}`,
        evidence: [`services: ${world.services.map((s) => s.metadata.name).join(', ') || 'none'}`],
        next: `${kubectl} edit ingress ${name}`,
      });
    else out.push(...explainService(service, world).filter((f) => f.level !== 'info'));
  }
  return out.length > 0
    ? out
    : [
        info(
          'ING_FINE',
          'leads to services that answer',
          'class, certificates and backends are there',
          `${kubectl} describe ingress ${name}`,
        ),
      ];
}

/** Why a claim is or is not bound. */
export function explainClaim(claim: PersistentVolumeClaim, world: World): Finding[] {
  const { name = '' } = claim.metadata;
  const kubectl = `kubectl -n ${world.namespace}`;
  const users = world.pods.filter((p) =>
    (p.spec.volumes ?? []).some((v) => v.persistentVolumeClaim?.claimName === name),
  );
  const answer = (
    code: string,
    level: Finding['level'],
    fact: string,
    cause: string,
    evidence: string[],
    next: string,
  ): Finding[] => [{ code, level, fact, cause, evidence, next }];
  if (claim.metadata.deletionTimestamp)
    return answer(
      'PVC_IN_USE',
      'waiting',
      'is being deleted',
      `pods use it: ${users.map((p) => p.metadata.name).join(', ') || 'none any more'}`,
      [`finalizers ${(claim.metadata.finalizers ?? []).join(', ')}`],
      `${kubectl} delete pod ${users[0]?.metadata.name ?? ''}`.trim(),
    );
  const phase = claim.status?.phase;
  if (phase === 'Bound')
    return [
      info(
        'PVC_FINE',
        `is bound to ${claim.spec.volumeName ?? 'a volume'}`,
        'volume and claim fit',
        `${kubectl} describe pvc ${name}`,
      ),
    ];
  if (phase === 'Lost')
    return answer(
      'PVC_LOST',
      'broken',
      'has lost its volume',
      `${claim.spec.volumeName ?? 'it'} is gone, and its data with it`,
      ['status.phase Lost'],
      'restore the volume, or delete the claim and make it anew',
    );
  const wanted = claim.spec.storageClassName;
  const fallback = world.storageClasses.find(
    (c) => c.metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
  );
  const storage = wanted === undefined ? fallback : world.storageClasses.find((c) => c.metadata.name === wanted);
  const classes = `classes: ${world.storageClasses.map((c) => c.metadata.name).join(', ') || 'none'}`;
  if (wanted !== '' && !storage)
    return answer(
      'PVC_NO_CLASS',
      'broken',
      'is not bound',
      wanted === undefined ? 'it names no StorageClass and there is no default' : `there is no StorageClass ${wanted}`,
      [classes],
      `${kubectl} get storageclass`,
    );
  const failed = eventsOf(world, 'PersistentVolumeClaim', name).find((e) => e.reason === 'ProvisioningFailed');
  if (failed)
    return answer(
      'PVC_PROVISIONING',
      'waiting',
      'is not bound',
      failed.message ?? 'the provisioner failed',
      [`event ProvisioningFailed: ${failed.message ?? ''}`],
      `${kubectl} describe pvc ${name}`,
    );
  if (storage?.volumeBindingMode === 'WaitForFirstConsumer' && users.length === 0)
    return answer(
      'PVC_WAITS_FOR_POD',
      'info',
      'is not bound yet',
      'its class binds when the first pod that uses it is scheduled',
      [`${storage.metadata.name}: WaitForFirstConsumer`],
      'start a pod that uses it',
    );
  if (wanted === '')
    return answer(
      'PVC_NO_VOLUME',
      'waiting',
      'is not bound',
      'it wants a volume that somebody made, and none fits',
      [`volumes: ${world.volumes.map((v) => v.metadata.name).join(', ') || 'none'}`],
      `${kubectl} get pv`,
    );
  return answer(
    'PVC_PENDING',
    'waiting',
    'is not bound yet',
    `${storage?.provisioner ?? 'the provisioner'} has not made a volume yet`,
    [classes],
    `${kubectl} describe pvc ${name}`,
  );
}
