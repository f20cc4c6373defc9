import { EstibaError } from '#base/errors.ts';
import type { ListMeta, Status } from '#spec/kubernetes/types.gen.ts';

/**
 * Every refusal is a Kubernetes `Status`: code, reason, message in upstream's words (clients and people match on them), and for
 * invalid objects one cause a field. `StatusError` is what handlers throw; the HTTP edge writes it.
 */
export class StatusError extends EstibaError {
  readonly status: Status & { code: number; metadata: ListMeta };
  /** Seconds for `Retry-After`. */
  readonly retryAfterSeconds: number | undefined;

  constructor(
    code: number,
    reason: string,
    message: string,
    more: { details?: Status['details']; cause?: unknown; retryAfterSeconds?: number } = {},
  ) {
    super(`KUBE_${reason === '' ? code : reason.toUpperCase()}`, message, { data: { code }, cause: more.cause });
    this.retryAfterSeconds = more.retryAfterSeconds;
    this.status = {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message,
      ...(reason === '' ? {} : { reason }),
      ...(more.details === undefined ? {} : { details: more.details }),
      code,
    };
  }
}

export function badRequest(message: string, cause?: unknown): StatusError {
  return new StatusError(400, 'BadRequest', message, cause === undefined ? {} : { cause });
}
