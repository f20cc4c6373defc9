import { defineError, type EstibaError } from '#base/errors.ts';
import type { Status } from '#spec/kubernetes/types.gen.ts';

type Refusal = { reason: string; status: number; message: string; details?: Status['details'] };

const refusal = (code: string, hint?: string) =>
  defineError(code, (d: Refusal) => ({ message: d.message, ...(hint === undefined ? {} : { hint }) }));

export const KubeNotFound = refusal('KUBE_NOT_FOUND');
export const KubeAlreadyExists = refusal('KUBE_ALREADY_EXISTS');
export const KubeConflict = refusal('KUBE_CONFLICT', 'somebody else changed the object: read it again');
export const KubeGone = refusal('KUBE_GONE', 'the revision was compacted away: list again');
export const KubeInvalid = refusal('KUBE_INVALID');
export const KubeForbidden = refusal('KUBE_FORBIDDEN');
export const KubeTooMany = refusal('KUBE_TOO_MANY', 'try again later');
/** Any other answer that is no success. */
export const KubeRefused = refusal('KUBE_REFUSED');

/** No answer came. Whether the server did what was asked is not known: retry only what can be done twice. */
export const KubeUnreachable = defineError('KUBE_UNREACHABLE', (d: { what: string }) => ({
  message: `${d.what}: the API server gave no answer`,
  hint: 'check that the server runs and the address in the kubeconfig is right',
}));

// `reason` decides (API conventions, "Response Status Kind"); answers without one (proxies) fall back to the HTTP status.
const BY_REASON: Record<string, ReturnType<typeof refusal>> = {
  NotFound: KubeNotFound,
  AlreadyExists: KubeAlreadyExists,
  Conflict: KubeConflict,
  Gone: KubeGone,
  Expired: KubeGone,
  Invalid: KubeInvalid,
  Forbidden: KubeForbidden,
  TooManyRequests: KubeTooMany,
};
const BY_STATUS: Record<number, ReturnType<typeof refusal>> = {
  403: KubeForbidden,
  404: KubeNotFound,
  409: KubeConflict,
  410: KubeGone,
  422: KubeInvalid,
  429: KubeTooMany,
};

export function refusalFrom(httpStatus: number, body: unknown): EstibaError {
  const status: Status =
    typeof body === 'object' && body !== null && (body as Status).kind === 'Status' ? (body as Status) : {};
  const reason = status.reason ?? '';
  const code = status.code ?? httpStatus;
  const Class = BY_REASON[reason] ?? (reason === '' ? BY_STATUS[code] : undefined) ?? KubeRefused;
  const message = status.message ?? `the API server answered ${code}`;
  return new Class({ reason, status: code, message, ...(status.details ? { details: status.details } : {}) });
}
