import type { KubeObject } from '#cluster/store/objects.ts';
import { readBody } from '../http/body.ts';
import { negotiate } from '../http/negotiate.ts';
import { json } from '../http/respond.ts';
import type { ApiResponse } from '../http/types.ts';
import { renderList, renderOne, viewOf } from '../print/render.ts';
import { decodeBody } from '../registry/decode.ts';
import { deleteObject } from '../registry/delete.ts';
import { listObjects } from '../registry/list.ts';
import { preparePatch } from '../registry/patch.ts';
import { subject } from '../registry/registry.ts';
import { prepareWatch } from '../registry/watch.ts';
import { badRequest, methodNotAllowed, notFound } from '../status.ts';
import type { Call, Handler } from './call.ts';
import { deleteOptions, listQuery, watchQuery } from './options.ts';

/** The verbs every stored resource has, a handler each. */
export const RESOURCE_VERBS: Record<string, Handler> = {
  get,
  list,
  watch,
  create,
  update,
  patch,
  delete: remove,
  deletecollection,
};

export function place({ route }: Call): { namespace: string | undefined; name: string } {
  return { namespace: route.namespace, name: route.name ?? '' };
}

export function answer(call: Call, code: number, object: KubeObject): ApiResponse {
  const { services, request, route, context } = call;
  const accepted = negotiate(request.headers['accept']);
  const view = viewOf(accepted, route.query, services.clock.now());
  return json(code, renderOne(route.resource, object, view), accepted.format, context.warnings);
}

async function get(call: Call): Promise<ApiResponse> {
  const { registry } = call.services;
  // `resourceVersion=0` takes what the cache has; anything else sees every acknowledged write.
  const at = place(call);
  const stored =
    call.route.query.get('resourceVersion') === '0'
      ? registry.peek(call.route.resource, at)
      : await registry.get(call.route.resource, at);
  return answer(call, 200, stored.object);
}

async function list(call: Call): Promise<ApiResponse> {
  const { services, request, route } = call;
  const view = viewOf(negotiate(request.headers['accept']), route.query, services.clock.now());
  const listing = await listObjects(services.registry, route.resource, listQuery(call));
  return renderList(route.resource, listing, view);
}

async function watch(call: Call): Promise<ApiResponse> {
  const { services, request, route } = call;
  const view = viewOf(negotiate(request.headers['accept']), route.query, services.clock.now());
  const stream = await prepareWatch({
    registry: services.registry,
    resource: route.resource,
    query: watchQuery(call),
    view,
    clock: services.clock,
    random: services.random,
  });
  return { code: 200, headers: { 'content-type': 'application/json', 'cache-control': 'no-cache, private' }, stream };
}

async function create(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const object = decodeBody(route.resource, readBody(request, context), context);
  if (route.name !== undefined) throw methodNotAllowed(subject(route.resource), 'create');
  const namespace = route.namespace ?? (route.resource.facts.namespaced ? object.metadata.namespace : undefined);
  if (route.resource.facts.namespaced && !namespace)
    throw badRequest('an empty namespace may not be set during creation');
  return answer(call, 201, await services.registry.create(route.resource, namespace, object, context));
}

async function update(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const body = readBody(request, context);
  const object = decodeBody(route.resource, body, context);
  checkName(call, object);
  const insists = (object.metadata.resourceVersion ?? '') !== '';
  const { object: result, created } = await services.registry.update(
    route.resource,
    place(call),
    context,
    {
      part: 'main',
      insists,
      // A PUT may create, except where a name alone would make a false start (upstream: AllowCreateOnUpdate).
      ...(CREATE_ON_UPDATE.has(route.resource.facts.resource) ? { createIfAbsent: () => object } : {}),
    },
    (live) => ({ ...object, metadata: { ...object.metadata, ...keptManaged(object, live) } }),
  );
  return answer(call, created ? 201 : 200, result);
}

const CREATE_ON_UPDATE = new Set([
  'endpoints',
  'events',
  'leases',
  'limitranges',
  'roles',
  'rolebindings',
  'clusterroles',
  'clusterrolebindings',
  'services',
]);

export function keptManaged(object: KubeObject, live: KubeObject): object {
  const sent = object.metadata.managedFields;
  if (sent?.every((e) => e.manager === undefined)) return { managedFields: [] };
  return live.metadata.managedFields ? { managedFields: live.metadata.managedFields } : {};
}

export function checkName(call: Call, object: KubeObject): void {
  const { name, namespace } = call.route;
  if (!object.metadata.name) throw badRequest('name must be provided');
  if (object.metadata.name !== name)
    throw badRequest(
      `the name of the object (${object.metadata.name}) does not match the name on the URL (${name ?? ''})`,
    );
  if (object.metadata.namespace && namespace !== undefined && object.metadata.namespace !== namespace)
    throw badRequest(
      `the namespace of the object (${object.metadata.namespace}) does not match the namespace on the request (${namespace})`,
    );
}

async function patch(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const { registry } = services;
  const prepared = preparePatch(route.resource, request, route.query, context);
  const writing = prepared.isApply ? { ...context, verb: 'apply' } : context;
  const { object, created } = await registry.update(
    route.resource,
    place(call),
    writing,
    {
      part: 'main',
      ...(prepared.isApply ? { createIfAbsent: () => named(call, prepared.change(undefined, registry.now())) } : {}),
    },
    (live) => prepared.change(live, registry.now()),
  );
  return answer(call, created ? 201 : 200, object);
}

function named(call: Call, object: KubeObject): KubeObject {
  if (object.metadata.name && object.metadata.name !== call.route.name)
    throw badRequest(
      `the name of the object (${object.metadata.name}) does not match the name on the URL (${call.route.name ?? ''})`,
    );
  if (object.metadata.uid) throw notFound(subject(call.route.resource, call.route.name));
  return { ...object, metadata: { ...object.metadata, name: call.route.name ?? '' } };
}

async function remove(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const options = deleteOptions(request, route.query, context);
  const { object } = await deleteObject(services.registry, route.resource, place(call), options, context);
  if (object.kind === 'Status') return json(200, object, negotiate(request.headers['accept']).format, context.warnings);
  return answer(call, 200, object as KubeObject);
}

async function deletecollection(call: Call): Promise<ApiResponse> {
  const { services, request, route, context } = call;
  const options = deleteOptions(request, route.query, context);
  const listing = await listObjects(services.registry, route.resource, listQuery(call));
  for (const object of listing.items) {
    const { namespace, name } = object.metadata;
    try {
      await deleteObject(services.registry, route.resource, { namespace, name }, options, context);
    } catch (error) {
      // Somebody else deleted it first: that is what was asked for.
      if (!(error instanceof Error && 'code' in error && error.code === 'KUBE_NOTFOUND')) throw error;
    }
  }
  return renderList(
    route.resource,
    listing,
    viewOf(negotiate(request.headers['accept']), route.query, services.clock.now()),
  );
}
