import type { KubeObject } from '#cluster/store/objects.ts';
import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import { applyJsonPatch } from '#spec/kubernetes/patch/json.ts';
import { applyMergePatch } from '#spec/kubernetes/patch/merge.ts';
import { formatRequirements, matchesSelector, requirementsOf } from '#spec/kubernetes/selector.ts';
import type {
  Binding,
  DeleteOptions,
  LabelSelector,
  Pod,
  PodDisruptionBudget,
  Scale,
  TokenRequest,
} from '#spec/kubernetes/types.gen.ts';
import { decodeObject, WrongType } from '../codec/decode.ts';
import { decodeUtf8, isObject, type JsonObject, own, parseJson } from '../codec/json.ts';
import { mediaType, readBody } from '../http/body.ts';
import { negotiate } from '../http/negotiate.ts';
import { json } from '../http/respond.ts';
import type { ApiResponse } from '../http/types.ts';
import { decodeBody } from '../registry/decode.ts';
import { deleteObject } from '../registry/delete.ts';
import { preparePatch } from '../registry/patch.ts';
import { subject } from '../registry/registry.ts';
import type { Resource } from '../resources/table.ts';
import {
  badRequest,
  conflict,
  invalid,
  invalidObject,
  methodNotAllowed,
  notFound,
  tooManyRequests,
  unsupportedMediaType,
} from '../status.ts';
import type { Call, Handler } from './call.ts';
import { podLog } from './log.ts';
import { answer, checkName, keptManaged, place, RESOURCE_VERBS } from './resource.ts';

/** Sub-resources, a row each: the verbs they answer. Connections (exec, attach, portforward) are upgrades and live in streams/. */
export const SUBRESOURCES: Record<string, Record<string, Handler>> = {
  status: { get, update: updatePart('status'), patch: patchStatus },
  finalize: { update: updatePart('finalize') },
  scale: { get: getScale, update: updateScale, patch: patchScale },
  eviction: { create: evict },
  binding: { create: bind },
  token: { create: createToken },
  log: { get: podLog },
};

async function get(call: Call): Promise<ApiResponse> {
  const handler = RESOURCE_VERBS['get'];
  if (!handler) throw methodNotAllowed(subject(call.route.resource), 'get');
  return handler(call);
}

function updatePart(part: 'status' | 'finalize'): Handler {
  return async (call) => {
    const { services, request, route, context } = call;
    const object = decodeBody(route.resource, readBody(request, context), context);
    checkName(call, object);
    const rules = { part, insists: (object.metadata.resourceVersion ?? '') !== '' };
    const result = await services.registry.update(
      route.resource,
      place(call),
      { ...context, subresource: part },
      rules,
      (live) => ({
        ...object,
        metadata: { ...object.metadata, ...keptManaged(object, live) },
      }),
    );
    return answer(call, 200, result.object);
  };
}

async function patchStatus(call: Call): Promise<ApiResponse> {
  const { services, request, route } = call;
  const context = { ...call.context, subresource: 'status' };
  const prepared = preparePatch(route.resource, request, route.query, context);
  const writing = prepared.isApply ? { ...context, verb: 'apply' } : context;
  const result = await services.registry.update(route.resource, place(call), writing, { part: 'status' }, (live) =>
    prepared.change(live, services.registry.now()),
  );
  return answer(call, 200, result.object);
}

// ---- scale: replicas and selector of any workload in one shape

function scaleOf(object: KubeObject): Scale {
  const spec = isObject(object['spec']) ? object['spec'] : {};
  const status = isObject(object['status']) ? object['status'] : {};
  const selector = spec['selector'] as LabelSelector | Record<string, string> | undefined;
  const labels =
    selector && ('matchLabels' in selector || 'matchExpressions' in selector)
      ? (selector as LabelSelector)
      : { matchLabels: (selector ?? {}) as Record<string, string> };
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(uid === undefined ? {} : { uid }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
    },
    spec: { replicas: Number(spec['replicas'] ?? 0) },
    status: { replicas: Number(status['replicas'] ?? 0), selector: formatRequirements(requirementsOf(labels)) },
  };
}

function scaleAnswer(call: Call, object: KubeObject): ApiResponse {
  return json(200, scaleOf(object), negotiate(call.request.headers['accept']).format, call.context.warnings);
}

async function getScale(call: Call): Promise<ApiResponse> {
  const stored = await call.services.registry.get(call.route.resource, place(call));
  return scaleAnswer(call, stored.object);
}

async function updateScale(call: Call): Promise<ApiResponse> {
  const scale = readTyped<Scale>(call, 'autoscaling.v1.Scale');
  return writeScale(call, () => scale);
}

async function patchScale(call: Call): Promise<ApiResponse> {
  const type = mediaType(call.request);
  const patches: Record<string, (live: JsonObject, patch: unknown) => unknown> = {
    'application/json-patch+json': applyJsonPatch,
    'application/merge-patch+json': applyMergePatch,
    // A Scale has no lists: strategic and plain merge are the same.
    'application/strategic-merge-patch+json': applyMergePatch,
  };
  const apply = patches[type];
  if (!apply) throw unsupportedMediaType(type, Object.keys(patches));
  const { value } = parseJson(decodeUtf8(call.request.body), { findDuplicates: false });
  return writeScale(call, (live) => checkedScale(apply(scaleOf(live) as unknown as JsonObject, value)));
}

function checkedScale(value: unknown): Scale {
  if (!isObject(value)) throw badRequest('the patch does not leave a Scale');
  return decodeNamed<Scale>('autoscaling.v1.Scale', value);
}

async function writeScale(call: Call, wanted: (live: KubeObject) => Scale): Promise<ApiResponse> {
  const { services, route, context } = call;
  const { object } = await services.registry.update(
    route.resource,
    place(call),
    { ...context, subresource: 'scale' },
    { part: 'main' },
    (live) => {
      const scale = wanted(live);
      const replicas = scale.spec?.replicas ?? 0;
      if (replicas < 0)
        throw invalidObject({ group: 'autoscaling', resource: 'Scale', name: route.name }, [
          invalid('spec.replicas', replicas, 'must be greater than or equal to 0'),
        ]);
      const asked = scale.metadata.resourceVersion;
      return {
        ...live,
        metadata: { ...live.metadata, ...(asked ? { resourceVersion: asked } : {}) },
        spec: { ...(live['spec'] as object), replicas },
      };
    },
  );
  return scaleAnswer(call, object);
}

// ---- eviction: a delete that a disruption budget may refuse. Old clients send policy/v1beta1, which says the same.

async function evict(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const body = readBody(request, context).value;
  if (
    !isObject(body) ||
    !['policy/v1', 'policy/v1beta1'].includes(String(own(body, 'apiVersion'))) ||
    own(body, 'kind') !== 'Eviction'
  )
    throw badRequest('the body must be an Eviction of policy/v1');
  const eviction = decodeNamed<{ metadata?: { name?: string }; deleteOptions?: DeleteOptions }>(
    'policy.v1.Eviction',
    body,
  );
  if (eviction.metadata?.name && eviction.metadata.name !== route.name)
    throw badRequest(
      `name in URL does not match name in Eviction object: ${route.name ?? ''} and ${eviction.metadata.name}`,
    );
  const options = eviction.deleteOptions ?? {};
  const dry = context.dryRun || (options.dryRun ?? []).includes('All');
  const pod = await services.registry.get(route.resource, place(call));
  await spendDisruption(call, pod.object, dry);
  await deleteObject(services.registry, route.resource, place(call), options, { ...context, dryRun: dry });
  return json(201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 });
}

async function spendDisruption(call: Call, pod: KubeObject, dryRun: boolean): Promise<void> {
  const { registry, table } = call.services;
  const phase = isObject(pod['status']) ? pod['status']['phase'] : undefined;
  // What has ended, or is going already, disturbs nobody.
  if (
    phase === 'Succeeded' ||
    phase === 'Failed' ||
    phase === 'Pending' ||
    pod.metadata.deletionTimestamp !== undefined
  )
    return;
  const budgets = table.get('policy/v1 poddisruptionbudgets');
  if (!budgets) return;
  const selecting = [...registry.cache.resource(budgets.storage).all(pod.metadata.namespace)].filter(({ object }) =>
    matchesSelector((object as unknown as PodDisruptionBudget).spec.selector, pod.metadata.labels),
  );
  if (selecting.length > 1)
    throw badRequest(
      'This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.',
    );
  const [budget] = selecting;
  if (!budget) return;
  const { name } = budget.object.metadata;
  if (mayGoUnwell(budget.object as unknown as PodDisruptionBudget, pod as unknown as Pod)) return;
  await registry.update(
    budgets,
    { namespace: pod.metadata.namespace, name },
    { ...call.context, dryRun, subresource: 'status' },
    { part: 'status' },
    (live) => {
      const status = ((live as unknown as PodDisruptionBudget).status ?? {}) as Record<string, unknown>;
      const allowed = Number(status['disruptionsAllowed'] ?? 0);
      if (Number(status['observedGeneration'] ?? 0) < (live.metadata.generation ?? 0))
        throw tooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", {
          retryAfterSeconds: 10,
          causes: [
            {
              reason: 'DisruptionBudget',
              message: `The disruption budget ${name} is still being processed by the server.`,
            },
          ],
        });
      if (allowed <= 0) {
        const { desiredHealthy = 0, currentHealthy = 0 } = status as {
          desiredHealthy?: number;
          currentHealthy?: number;
        };
        throw tooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", {
          retryAfterSeconds: 0,
          causes: [
            {
              reason: 'DisruptionBudget',
              message: `The disruption budget ${name} needs ${desiredHealthy} healthy pods and has ${currentHealthy} currently`,
            },
          ],
        });
      }
      const disrupted = isObject(status['disruptedPods']) ? status['disruptedPods'] : {};
      return {
        ...live,
        status: {
          ...status,
          disruptionsAllowed: allowed - 1,
          disruptedPods: { ...disrupted, [pod.metadata.name]: registry.now() },
        },
      };
    },
  );
}

/** A pod that is not ready is not what a budget protects: it goes as the budget's policy says, and costs nothing. */
function mayGoUnwell({ spec, status }: PodDisruptionBudget, pod: Pod): boolean {
  if (pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True')) return false;
  if (spec.unhealthyPodEvictionPolicy === 'AlwaysAllow') return true;
  const { currentHealthy = 0, desiredHealthy = 0 } = status ?? {};
  return desiredHealthy > 0 && currentHealthy >= desiredHealthy;
}

// ---- binding: the scheduler's verdict, written once

export async function bind(call: Call): Promise<ApiResponse> {
  const { services, route, context } = call;
  const binding = readTyped<Binding>(call, 'core.v1.Binding');
  const pods = services.table.get('v1 pods') as Resource;
  const name = route.name ?? binding.metadata.name ?? '';
  const node = binding.target?.name;
  if (!node || (binding.target.kind ?? 'Node') !== 'Node')
    throw invalidObject({ group: '', resource: 'Binding', name }, [
      invalid('target', binding.target ?? null, 'must name a Node'),
    ]);
  await services.registry.update(
    pods,
    { namespace: route.namespace, name },
    { ...context, subresource: 'binding' },
    { part: 'binding' },
    (live) => {
      const spec = live['spec'] as JsonObject;
      if (live.metadata.deletionTimestamp !== undefined)
        throw conflict(subject(pods, name), `pod ${name} is being deleted, cannot be assigned to a host`);
      if (spec['nodeName'])
        throw conflict(
          subject(pods, name),
          `pod ${name} is already assigned to node ${JSON.stringify(spec['nodeName'])}`,
        );
      if (Array.isArray(spec['schedulingGates']) && spec['schedulingGates'].length > 0)
        throw conflict(subject(pods, name), `pod ${name} has non-empty .spec.schedulingGates`);
      if (binding.metadata.uid && binding.metadata.uid !== live.metadata.uid)
        throw conflict(
          subject(pods, name),
          `Precondition failed: UID in precondition: ${binding.metadata.uid}, UID in object meta: ${live.metadata.uid ?? ''}`,
        );
      return boundPod(live, node, services.registry.now());
    },
  );
  return json(201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 });
}

function boundPod(object: KubeObject, node: string, now: string): KubeObject {
  const status = isObject(object['status']) ? object['status'] : {};
  const others = (Array.isArray(status['conditions']) ? status['conditions'] : []).filter(
    (c) => isObject(c) && c['type'] !== 'PodScheduled',
  );
  return {
    ...object,
    spec: { ...(object['spec'] as object), nodeName: node },
    status: {
      ...status,
      conditions: [...others, { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime: now }],
    },
  };
}

// ---- token: a bound service account token

async function createToken(call: Call): Promise<ApiResponse> {
  const { services, route } = call;
  const account = await services.registry.get(route.resource, place(call));
  const request = readTyped<TokenRequest>(call, 'authentication.v1.TokenRequest');
  const seconds = request.spec?.expirationSeconds ?? 3600;
  if (seconds < 600 || seconds > 2 ** 32)
    throw invalidObject({ group: 'authentication.k8s.io', resource: 'TokenRequest', name: route.name }, [
      invalid('spec.expirationSeconds', seconds, 'may not specify a duration less than 10 minutes'),
    ]);
  const bound = boundObject(call, request);
  const { name, namespace = '', uid = '' } = account.object.metadata;
  const issued = await services.tokens.issue({
    namespace,
    name,
    uid,
    audiences: request.spec?.audiences ?? [],
    seconds,
    ...(bound === undefined ? {} : { bound }),
  });
  const answerBody = {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { name, namespace, creationTimestamp: services.registry.now() },
    spec: { ...request.spec, audiences: issued.audiences, expirationSeconds: seconds },
    status: { token: issued.token, expirationTimestamp: issued.expiresAt },
  };
  return json(201, answerBody);
}

/** The object whose end ends the token: it must exist, and be the very one that is meant. */
function boundObject(
  { services, route }: Call,
  request: TokenRequest,
): { kind: string; name: string; uid: string; node?: string } | undefined {
  const ref = request.spec?.boundObjectRef;
  if (!ref?.name) return undefined;
  const plural = { Pod: 'pods', Secret: 'secrets', Node: 'nodes' }[ref.kind ?? ''];
  const resource = plural === undefined ? undefined : services.table.get(`v1 ${plural}`);
  if (!resource)
    throw badRequest(`cannot bind token to object of type ${ref.apiVersion ?? ''}, Kind=${ref.kind ?? ''}`);
  const { object } = services.registry.peek(resource, {
    namespace: resource.facts.namespaced ? route.namespace : undefined,
    name: ref.name,
  });
  if (ref.uid && ref.uid !== object.metadata.uid)
    throw conflict(
      subject(resource, ref.name),
      `the UID in the bound object reference (${ref.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  const spec = isObject(object['spec']) ? object['spec'] : {};
  if (ref.kind === 'Pod' && spec['serviceAccountName'] !== route.name) throw notFound(subject(resource, ref.name));
  const node = typeof spec['nodeName'] === 'string' ? { node: spec['nodeName'] } : {};
  return { kind: ref.kind ?? '', name: ref.name, uid: object.metadata.uid ?? '', ...node };
}

// ---- bodies of types that are not stored

export function readTyped<T>(call: Call, typeName: string): T {
  const body = readBody(call.request, call.context).value;
  if (!isObject(body)) throw badRequest('the object provided is unrecognized (must be of type Object)');
  const type = kubernetesFacts().types.get(typeName);
  if (type?.kind && (own(body, 'kind') ?? type.kind) !== type.kind)
    throw badRequest(`${String(own(body, 'kind'))} cannot be handled as a ${type.kind}`);
  return decodeNamed<T>(typeName, body);
}

function decodeNamed<T>(typeName: string, body: JsonObject): T {
  const type = kubernetesFacts().types.get(typeName);
  if (!type) throw badRequest(`the type ${typeName} is not served`);
  try {
    const { object } = decodeObject(type, body);
    return { ...object, metadata: isObject(object['metadata']) ? object['metadata'] : {} } as T;
  } catch (error) {
    if (error instanceof WrongType)
      throw badRequest(`${type.kind ?? typeName} cannot be handled: ${error.message}`, error);
    throw error;
  }
}
