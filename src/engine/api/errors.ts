import { defineError, EstibaError, messageOf } from '#base/errors.ts';

export const NoSuchRoute = defineError('NO_SUCH_ROUTE', (d: { method: string; path: string }) => ({
  message: `page not found: ${d.method} ${d.path}`,
}));

export const MethodNotAllowed = defineError(
  'METHOD_NOT_ALLOWED',
  (d: { method: string; path: string; methods: string[] }) => ({
    message: `${d.path} does not take ${d.method}`,
    hint: `it takes ${d.methods.join(', ')}`,
  }),
);

export const NotSupported = defineError('NOT_SUPPORTED', (d: { what: string; instead: string }) => ({
  message: `${d.what} is not supported`,
  hint: d.instead,
}));

export const BadBody = defineError('BAD_BODY', (d: { problem: string }) => ({ message: `request body: ${d.problem}` }));

/** The edge's table: error codes of every layer below → Docker's HTTP status. What is not listed is 500. */
const STATUS: Readonly<Record<string, number>> = {
  API_VERSION: 400,
  BAD_BODY: 400,
  INVALID_VALUE: 400,
  INVALID_REFERENCE: 400,
  INVALID_ARGUMENT: 400,
  DOCKERFILE_INVALID: 400,
  BUILD_PLAN: 400,
  BUILD_TARGET: 400,
  NO_SUCH_ROUTE: 404,
  METHOD_NOT_ALLOWED: 405,
  NOT_SUPPORTED: 501,
  QUEUE_FULL: 503,
};

/** `status` of an error's own data wins: layers that know Docker's answer for their case say it there. */
export function statusOf(error: unknown, table: Readonly<Record<string, number>> = {}): number {
  if (!(error instanceof EstibaError)) return 500;
  return table[error.code] ?? STATUS[error.code] ?? 500;
}

/** Docker's error body. The hint follows the message: clients print this one line. */
export function errorBody(error: unknown): { message: string } {
  const hint = error instanceof EstibaError && error.hint ? `: ${error.hint}` : '';
  return { message: `${messageOf(error)}${hint}` };
}
