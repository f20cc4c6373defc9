import type { KubeObject } from '#cluster/store/objects.ts';
import { applyJsonPatch } from '#spec/kubernetes/patch/json.ts';
import { applyMergePatch } from '#spec/kubernetes/patch/merge.ts';
import { applyStrategicPatch } from '#spec/kubernetes/patch/strategic.ts';
import { applyConfig } from '../apply/managed.ts';
import { decodeUtf8, isObject, type JsonObject, own, parseJson, parseYaml } from '../codec/json.ts';
import { mediaType } from '../http/body.ts';
import type { ApiRequest } from '../http/types.ts';
import type { Resource } from '../resources/table.ts';
import { badRequest, unsupportedMediaType } from '../status.ts';
import type { Context } from './context.ts';
import { decodeTyped, present, toStored } from './decode.ts';

/** A patch parsed once; `change` makes the new object out of a live one, as often as races need it. */
export interface PreparedPatch {
  /** Server-side apply creates what does not exist. */
  isApply: boolean;
  change: (live: KubeObject | undefined, time: string) => KubeObject;
}

const TYPES = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
  'application/apply-patch+yaml',
];

export function preparePatch(
  resource: Resource,
  request: ApiRequest,
  query: URLSearchParams,
  context: Context,
): PreparedPatch {
  const type = mediaType(request);
  if (type === 'application/apply-patch+yaml') return prepareApply(resource, request, query, context);
  if (query.get('force') !== null && query.get('force') !== 'false')
    throw badRequest(
      'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    );
  if (!TYPES.includes(type)) throw unsupportedMediaType(type, TYPES);
  const { value } = parseJson(decodeUtf8(request.body), { findDuplicates: false });
  const onJson = PATCHES[type];
  return {
    isApply: false,
    change: (live) => {
      const shown = present(resource, live as KubeObject) as unknown as JsonObject;
      const patched = onJson?.(resource, shown, value);
      if (!isObject(patched)) throw badRequest('the patch does not leave an object');
      return redecode(resource, live as KubeObject, patched, context);
    },
  };
}

const PATCHES: Record<string, (resource: Resource, live: JsonObject, patch: unknown) => unknown> = {
  'application/json-patch+json': (_, live, patch) => applyJsonPatch(live, patch),
  'application/merge-patch+json': (_, live, patch) => {
    if (!isObject(patch)) throw badRequest('error decoding patch: a merge patch is an object');
    return applyMergePatch(live, patch);
  },
  'application/strategic-merge-patch+json': (resource, live, patch) => {
    if (!isObject(patch)) throw badRequest('error decoding patch: a strategic merge patch is an object');
    return applyStrategicPatch(resource.facts.type, live, patch);
  },
};

/** The patched JSON as a typed object again; a patch may not turn it into something else. */
function redecode(resource: Resource, live: KubeObject, patched: JsonObject, context: Context): KubeObject {
  const { apiVersion, kind } = resource.facts;
  if (own(patched, 'kind') !== kind || own(patched, 'apiVersion') !== apiVersion)
    throw badRequest(
      `a patch may not change apiVersion or kind (${String(own(patched, 'apiVersion'))}, ${String(own(patched, 'kind'))})`,
    );
  const object = toStored(resource, decodeTyped(resource, patched, [], context));
  // `managedFields: [{}]` and `[]` ask to forget who owns what; anything else a client sends there does not count.
  const sent = object.metadata.managedFields;
  if (sent?.every((e) => e.manager === undefined)) object.metadata.managedFields = [];
  else if (live.metadata.managedFields) object.metadata.managedFields = live.metadata.managedFields;
  return object;
}

function prepareApply(
  resource: Resource,
  request: ApiRequest,
  query: URLSearchParams,
  context: Context,
): PreparedPatch {
  if ((query.get('fieldManager') ?? '') === '')
    throw badRequest(
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    );
  const { value, duplicates } = parseYaml(decodeUtf8(request.body));
  if (!isObject(value)) throw badRequest('the configuration to apply is not an object');
  const { apiVersion, kind } = resource.facts;
  if (own(value, 'kind') !== kind || own(value, 'apiVersion') !== apiVersion)
    throw badRequest(
      `the configuration to apply is a ${String(own(value, 'apiVersion'))} ${String(own(value, 'kind'))}, the request is for ${apiVersion} ${kind}`,
    );
  const decoded = toStored(resource, decodeTyped(resource, value, duplicates, context));
  if (decoded.metadata.managedFields !== undefined && decoded.metadata.managedFields.length > 0)
    throw badRequest('metadata.managedFields must be nil');
  const { resourceVersion, uid } = decoded.metadata;
  const config = { ...decoded, metadata: { ...decoded.metadata } };
  delete config.metadata.resourceVersion;
  delete config.metadata.managedFields;
  const force = query.get('force') === 'true' || query.get('force') === '1';
  return {
    isApply: true,
    change: (live, time) => {
      const writer = {
        manager: context.manager,
        subresource: context.subresource,
        hasStatus: resource.hasStatus,
        apiVersion,
        time,
      };
      const result = applyConfig({
        type: resource.storedType,
        live,
        config: config as unknown as JsonObject,
        writer,
        force,
      });
      // Preconditions travel in the configuration's metadata, the merge must not make them the object's.
      if (live) {
        result.metadata.resourceVersion = resourceVersion ?? live.metadata.resourceVersion ?? '';
        if (uid !== undefined) result.metadata.uid = uid;
      }
      return result;
    },
  };
}
