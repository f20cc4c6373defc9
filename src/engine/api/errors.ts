import { defineError, EstibaError, messageOf } from '#base/errors.ts';

export const NoSuchRoute = defineError('NO_SUCH_ROUTE', (d: { method: string; path: string }) => ({
  message: `page not found: ${d.method} ${d.path}`,
}));

export const NotAWebSocket = defineError('INVALID_ARGUMENT', (_: Record<never, never>) => ({
  message: 'this call is for WebSocket clients alone',
  hint: 'send Upgrade: websocket with a Sec-WebSocket-Key (RFC 6455), or use POST /containers/{id}/attach',
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

/** Docker's words and status of a daemon outside a swarm: clients ask, and look for them. */
export const NoSwarm = defineError('NO_SWARM', () => ({
  message: 'This node is not a swarm manager',
  hint: 'swarms are not part of this engine; for services over several nodes use the Kubernetes API or `estiba up`',
}));

/**
 * Docker's clients take a 404 of a create for an image that is missing: they pull it, and tell of that instead. Whatever else a create
 * names that is not here is a 400.
 */
export const BadCreate = defineError('INVALID_ARGUMENT', (d: { message: string }) => ({ message: d.message }));

export const BadBody = defineError('BAD_BODY', (d: { problem: string }) => ({ message: `request body: ${d.problem}` }));

/** The edge's table: error codes of every layer below → Docker's HTTP status. What is not listed is 500. */
const STATUS: Readonly<Record<string, number>> = {
  ...sameStatus(
    304, // nothing to do
    'NOT_MODIFIED',
  ),
  ...sameStatus(
    400,
    'ADDRESS_TAKEN',
    'AMBIGUOUS_ID',
    'API_VERSION',
    'BAD_ADDRESS',
    'BAD_BODY',
    'BAD_CGROUPS_PATH',
    'BAD_ID_MAP',
    'BAD_MOUNT_OPTION',
    'BAD_NETWORK_OPTION',
    'BAD_SUBPATH',
    'BAD_VOLUME_NAME',
    'BAD_VOLUME_OPTION',
    'BUILD_ARCHIVE',
    'BUILD_FETCH',
    'BUILD_OPTION',
    'BUILD_PLAN',
    'BUILD_TARGET',
    'CONTEXT_INVALID',
    'DIGEST_INVALID',
    'DOCKERFILE_INVALID',
    'DOCKERFILE_MISSING',
    'IMAGE_AMBIGUOUS',
    'IMAGE_ARCHIVE_INVALID',
    'INVALID_ARGUMENT',
    'INVALID_VALUE',
    'LAYER_INVALID',
    'MANIFEST_INVALID',
    'MEDIA_TYPE_UNSUPPORTED',
    'NO_COMMAND',
    'NO_SUCH_CAPABILITY',
    'NO_SUCH_USER',
    'NOT_REACHABLE',
    'PLATFORM_INVALID',
    'REFERENCE_INVALID',
    'TOO_MANY_FILES',
  ),
  ...sameStatus(401, 'REGISTRY_UNAUTHORIZED'),
  ...sameStatus(
    403,
    'ENDPOINT_EXISTS',
    'NETWORK_IN_USE',
    'NETWORK_IS_PREDEFINED',
    'NO_FREE_SUBNET',
    'READ_ONLY',
    'REFERENCE_DENIED',
    'SUBNET_OVERLAPS',
  ),
  ...sameStatus(
    404,
    'BUILD_NOT_FAILED',
    'ENDPOINT_NOT_FOUND',
    'IMAGE_NOT_FOUND',
    'IMAGE_PLATFORM_NOT_HERE',
    'NETWORK_NOT_FOUND',
    'NO_SUCH_CONTAINER',
    'NO_SUCH_CONTEXT',
    'NO_SUCH_EXEC',
    'NO_SUCH_FILE',
    'NO_SUCH_IMAGE',
    'NO_SUCH_ROUTE',
    'PATH_NOT_BENEATH',
    'PLATFORM_MISSING',
    'VOLUME_DRIVER_NOT_FOUND',
    'UI_OFF',
    'VOLUME_NOT_FOUND',
  ),
  ...sameStatus(405, 'METHOD_NOT_ALLOWED'),
  ...sameStatus(
    409,
    'CONTEXT_FILE_LOST',
    'IMAGE_IN_USE',
    'NAME_TAKEN',
    'ID_RANGE_TAKEN',
    'NETWORK_EXISTS',
    'SHIM_TOO_OLD',
    'VOLUME_IN_USE',
    'WRONG_PHASE',
    'WRONG_STATE',
  ),
  ...sameStatus(501, 'NOT_SUPPORTED'),
  ...sameStatus(503, 'NO_SWARM', 'QUEUE_FULL', 'STORE_FULL'),
};

function sameStatus(status: number, ...codes: string[]): Record<string, number> {
  return Object.fromEntries(codes.map((code) => [code, status]));
}

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
