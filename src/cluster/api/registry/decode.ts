import type { KubeObject } from '#cluster/store/objects.ts';
import { decodeObject, WrongType } from '../codec/decode.ts';
import { isObject, type JsonObject, own, type ParsedBody } from '../codec/json.ts';
import type { Resource } from '../resources/table.ts';
import { badRequest } from '../status.ts';
import { type Context, warn } from './context.ts';

/** A body as an object of the resource's stored type: pruned, typed, converted. */
export function decodeBody(resource: Resource, body: ParsedBody, context: Context): KubeObject {
  if (!isObject(body.value)) throw badRequest('the object provided is unrecognized (must be of type Object)');
  const value = body.value;
  const { apiVersion, kind } = resource.facts;
  // As upstream's decoder: what the body leaves out, the URL has said. @kubernetes/client-node leaves out both.
  const sentVersion = own(value, 'apiVersion') || apiVersion;
  const sentKind = own(value, 'kind') || kind;
  if (sentKind !== kind)
    throw badRequest(`${String(sentVersion)}, Kind=${String(sentKind)} cannot be handled as a ${kind}`);
  if (sentVersion !== apiVersion)
    throw badRequest(
      `the API version in the data (${String(sentVersion)}) does not match the expected API version (${apiVersion})`,
    );
  return toStored(resource, decodeTyped(resource, value, body.duplicates, context));
}

export function decodeTyped(
  resource: Resource,
  value: JsonObject,
  duplicates: readonly string[],
  context: Context,
): KubeObject {
  const { kind, version, apiVersion } = resource.facts;
  try {
    const { object, unknown } = decodeObject(resource.facts.type, value);
    report([...unknown, ...duplicates.map((path) => `duplicate field "${path}"`)], kind, version, context);
    const metadata = isObject(object['metadata']) ? object['metadata'] : {};
    return { ...object, apiVersion, kind, metadata: metadata as KubeObject['metadata'] };
  } catch (error) {
    if (error instanceof WrongType)
      throw badRequest(`${kind} in version "${version}" cannot be handled as a ${kind}: ${error.message}`, error);
    throw error;
  }
}

function report(findings: readonly string[], kind: string, version: string, context: Context): void {
  if (findings.length === 0 || context.fieldValidation === 'Ignore') return;
  if (context.fieldValidation === 'Strict')
    throw badRequest(
      `${kind} in version "${version}" cannot be handled as a ${kind}: strict decoding error: ${findings.join(', ')}`,
    );
  for (const finding of findings) warn(context, finding);
}

export function toStored(resource: Resource, object: KubeObject): KubeObject {
  return resource.conversion ? resource.conversion.toStored(object) : object;
}

/** The object in the version the resource is served in. */
export function present(resource: Resource, object: KubeObject): KubeObject {
  return resource.conversion ? resource.conversion.fromStored(object) : object;
}
