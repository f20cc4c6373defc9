import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import { decodeUtf8, type ParsedBody, parseJson, parseYaml } from '../codec/json.ts';
import { decodeProtobuf, openEnvelope } from '../codec/protobuf.ts';
import type { Context } from '../registry/context.ts';
import { badRequest, unsupportedMediaType } from '../status.ts';
import type { ApiRequest } from './types.ts';

/** Upstream's limit of a request's body. */
export const BODY_MAX_BYTES = 3 * 1024 * 1024;

export function mediaType(request: ApiRequest): string {
  return (request.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}

/** The body of a create or update. */
export function readBody(request: ApiRequest, context: Context): ParsedBody {
  if (request.body.length === 0) throw badRequest('the request has no body');
  const type = mediaType(request);
  const findDuplicates = context.fieldValidation !== 'Ignore';
  if (type === '' || type === 'application/json' || type === 'text/plain')
    return parseJson(decodeUtf8(request.body), { findDuplicates });
  if (type === 'application/yaml' || type === 'application/x-yaml' || type === 'text/yaml')
    return parseYaml(decodeUtf8(request.body));
  if (type === PROTOBUF) return { value: readProtobuf(request.body), duplicates: [] };
  throw unsupportedMediaType(type, ['application/json', 'application/yaml', PROTOBUF]);
}

const PROTOBUF = 'application/vnd.kubernetes.protobuf';

function readProtobuf(body: Uint8Array): unknown {
  const envelope = openEnvelope(body);
  const { types, typesByKind } = kubernetesFacts();
  // Delete options come under the version of what is deleted.
  const type = typesByKind.get(`${envelope.apiVersion} ${envelope.kind}`) ?? types.get(`meta.v1.${envelope.kind}`);
  if (!type)
    throw badRequest(
      `no kind ${JSON.stringify(envelope.kind)} is registered for version ${JSON.stringify(envelope.apiVersion)}`,
    );
  return decodeProtobuf(type, envelope);
}

/** A body that may be absent: delete options. */
export function readOptionalBody(request: ApiRequest, context: Context): unknown {
  return request.body.length === 0 ? undefined : readBody(request, context).value;
}
