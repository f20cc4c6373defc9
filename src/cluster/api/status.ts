import { StatusError } from '#spec/kubernetes/status.ts';
import type { Status, StatusCause } from '#spec/kubernetes/types.gen.ts';

export { badRequest, StatusError } from '#spec/kubernetes/status.ts';

/** What a message and its details name: `deployments.apps "web"`. */
export interface Subject {
  group: string;
  /** Plural in most errors, Kind in `invalid`. */
  resource: string;
  name?: string | undefined;
}

export function qualified(s: Subject): string {
  return s.group === '' ? s.resource : `${s.resource}.${s.group}`;
}

function details(s: Subject, more: Partial<NonNullable<Status['details']>> = {}): NonNullable<Status['details']> {
  return {
    ...(s.name ? { name: s.name } : {}),
    ...(s.group === '' ? {} : { group: s.group }),
    ...(s.resource === '' ? {} : { kind: s.resource }),
    ...more,
  };
}

export function notFound(s: Subject): StatusError {
  return new StatusError(404, 'NotFound', `${qualified(s)} ${quote(s.name)} not found`, { details: details(s) });
}

export function alreadyExists(s: Subject): StatusError {
  return new StatusError(409, 'AlreadyExists', `${qualified(s)} ${quote(s.name)} already exists`, {
    details: details(s),
  });
}

export function conflict(s: Subject, why: string): StatusError {
  return new StatusError(409, 'Conflict', `Operation cannot be fulfilled on ${qualified(s)} ${quote(s.name)}: ${why}`, {
    details: details(s),
  });
}

export const STALE = 'the object has been modified; please apply your changes to the latest version and try again';

export function forbidden(s: Subject, why: string): StatusError {
  const subject = s.resource === '' ? '' : `${qualified(s)}${s.name === undefined ? '' : ` ${quote(s.name)}`} is `;
  return new StatusError(403, 'Forbidden', `${subject}forbidden: ${why}`, { details: details(s) });
}

export function unauthorized(): StatusError {
  return new StatusError(401, 'Unauthorized', 'Unauthorized');
}

export function methodNotAllowed(s: Subject, verb: string): StatusError {
  return new StatusError(405, 'MethodNotAllowed', `${verb} is not supported on resources of kind "${qualified(s)}"`, {
    details: details(s),
  });
}

export function noSuchResource(path: string): StatusError {
  return new StatusError(404, 'NotFound', 'the server could not find the requested resource', {
    details: { causes: [{ reason: 'UnexpectedServerResponse', message: `404 page not found: ${path}` }] },
  });
}

export function unsupportedMediaType(sent: string, supported: readonly string[]): StatusError {
  return new StatusError(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${supported.join(', ')}${sent === '' ? '' : ` (sent: ${sent})`}`,
  );
}

export function notAcceptable(supported: readonly string[]): StatusError {
  return new StatusError(406, 'NotAcceptable', `only the following media types are accepted: ${supported.join(', ')}`);
}

export function tooLarge(limitBytes: number): StatusError {
  return new StatusError(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${limitBytes}`);
}

export function expired(message: string): StatusError {
  return new StatusError(410, 'Expired', message);
}

export function tooOldResourceVersion(asked: number, oldest: number): StatusError {
  return expired(`too old resource version: ${asked} (${oldest})`);
}

export function tooManyRequests(
  message: string,
  more: { retryAfterSeconds?: number; causes?: StatusCause[] } = {},
): StatusError {
  return new StatusError(429, 'TooManyRequests', message, {
    retryAfterSeconds: more.retryAfterSeconds ?? 1,
    ...(more.causes === undefined ? {} : { details: { causes: more.causes } }),
  });
}

export function timedOut(message: string): StatusError {
  return new StatusError(504, 'Timeout', `Timeout: ${message}`);
}

export function unavailable(message: string): StatusError {
  return new StatusError(503, 'ServiceUnavailable', message);
}

export function internalError(cause: unknown): StatusError {
  // The cause is logged where it is handled; its text may hold paths or values that are not the caller's business.
  return new StatusError(500, 'InternalError', 'Internal error occurred', { cause });
}

// ---- invalid objects: one entry a field, as `k8s.io/apimachinery/pkg/util/validation/field` words them

export interface FieldError {
  reason:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueDuplicate'
    | 'FieldValueForbidden'
    | 'FieldValueTooLong'
    | 'FieldValueTooMany'
    | 'FieldValueTypeInvalid'
    | 'FieldValueNotFound';
  field: string;
  message: string;
}

export const required = (field: string, detail = ''): FieldError => ({
  reason: 'FieldValueRequired',
  field,
  message: detail === '' ? 'Required value' : `Required value: ${detail}`,
});
export const invalid = (field: string, value: unknown, detail: string): FieldError => ({
  reason: 'FieldValueInvalid',
  field,
  message: `Invalid value: ${shown(value)}: ${detail}`,
});
export const notSupported = (field: string, value: unknown, allowed: readonly string[]): FieldError => ({
  reason: 'FieldValueNotSupported',
  field,
  message: `Unsupported value: ${shown(value)}: supported values: ${[...allowed]
    .sort()
    .map((v) => JSON.stringify(v))
    .join(', ')}`,
});
export const duplicate = (field: string, value: unknown): FieldError => ({
  reason: 'FieldValueDuplicate',
  field,
  message: `Duplicate value: ${shown(value)}`,
});
export const fieldForbidden = (field: string, detail: string): FieldError => ({
  reason: 'FieldValueForbidden',
  field,
  message: `Forbidden: ${detail}`,
});
export const tooLong = (field: string, limit: number): FieldError => ({
  reason: 'FieldValueTooLong',
  field,
  message: `Too long: may not be more than ${limit} bytes`,
});
export const fieldNotFound = (field: string, value: unknown): FieldError => ({
  reason: 'FieldValueNotFound',
  field,
  message: `Not found: ${shown(value)}`,
});

const MAX_CAUSES = 100;

export function invalidObject(s: Subject, errors: readonly FieldError[]): StatusError {
  const listed = errors.slice(0, MAX_CAUSES);
  const lines = listed.map((e) => `${e.field}: ${e.message}`);
  const text = lines.length === 1 ? lines[0] : `[${lines.join(', ')}]`;
  return new StatusError(422, 'Invalid', `${qualified(s)} ${quote(s.name)} is invalid: ${text}`, {
    details: details(s, { causes: listed.map((e) => ({ reason: e.reason, message: e.message, field: e.field })) }),
  });
}

function quote(name: string | undefined): string {
  return JSON.stringify(name ?? '');
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null';
  return text.length > 200 ? `${text.slice(0, 197)}...` : text;
}
