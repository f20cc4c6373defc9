import { stringify } from 'yaml';
import { isCode } from '#base/errors.ts';
import { internalError, StatusError } from '../status.ts';
import type { WholeResponse } from './types.ts';

export function json(
  code: number,
  value: unknown,
  format: 'json' | 'yaml' = 'json',
  warnings: readonly string[] = [],
): WholeResponse {
  const headers = {
    'content-type': format === 'yaml' ? 'application/yaml' : 'application/json',
    ...warningHeaders(warnings),
  };
  if (format === 'yaml') return { code, headers, body: stringify(value, { aliasDuplicateObjects: false }) };
  return typeof value === 'string' ? { code, headers, body: `${value}\n` } : new JsonResponse(code, headers, value);
}

/** Becomes text when somebody asks for it: clients in this process do not. */
class JsonResponse implements WholeResponse {
  readonly code: number;
  readonly headers: Record<string, string | string[]>;
  readonly value: unknown;

  constructor(code: number, headers: Record<string, string | string[]>, value: unknown) {
    this.code = code;
    this.headers = headers;
    this.value = value;
  }

  get body(): string {
    return `${JSON.stringify(this.value)}\n`;
  }
}

export function text(code: number, body: string, type = 'text/plain; charset=utf-8'): WholeResponse {
  return { code, headers: { 'content-type': type }, body };
}

/** RFC 7234's form, which kubectl prints as `Warning: …`. */
function warningHeaders(warnings: readonly string[]): Record<string, string[]> {
  if (warnings.length === 0) return {};
  return { warning: warnings.map((w) => `299 - "${w.replaceAll(/[\\"]/g, '\\$&').replaceAll(/[^\x20-\x7e]/g, '?')}"`) };
}

/** Every error as a Status. What is not one of ours is 500, and `report` gets it. */
export function errorResponse(error: unknown, report: (error: unknown) => void): WholeResponse {
  const known = error instanceof StatusError ? error : undefined;
  if (!known && !isCode(error, 'STORE_CLOSED')) report(error);
  const refusal = known ?? internalError(error);
  const response = json(refusal.status.code, refusal.status);
  // Clients wait and try again by themselves wherever they find the header: only for what mends itself.
  if (refusal.retryAfterSeconds) response.headers['retry-after'] = String(refusal.retryAfterSeconds);
  return response;
}
