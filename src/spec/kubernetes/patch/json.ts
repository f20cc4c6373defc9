import { cloneJson, equalJson, isObject, type JsonObject, put } from '#spec/kubernetes/json.ts';
import { badRequest, StatusError } from '#spec/kubernetes/status.ts';

// RFC 6902. A patch larger than this would be a program, not a change (upstream's bound).
const MAX_OPERATIONS = 10_000;

interface Operation {
  op: string;
  path: string;
  from?: string;
  value?: unknown;
}

/** Applies a JSON patch to a copy. Operations that do not fit the object are 422, a malformed patch is 400. */
export function applyJsonPatch(target: JsonObject, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw badRequest('error decoding patch: a JSON patch is a list of operations');
  if (patch.length > MAX_OPERATIONS)
    throw new StatusError(
      413,
      'RequestEntityTooLarge',
      `The allowed maximum operations in a JSON patch is ${MAX_OPERATIONS}, got ${patch.length}`,
    );
  let root: unknown = cloneJson(target);
  for (const raw of patch) root = applyOne(root, operation(raw));
  return root;
}

function operation(raw: unknown): Operation {
  if (!isObject(raw) || typeof raw['op'] !== 'string' || typeof raw['path'] !== 'string')
    throw badRequest('error decoding patch: every operation needs "op" and "path"');
  return raw as unknown as Operation;
}

function applyOne(root: unknown, op: Operation): unknown {
  switch (op.op) {
    case 'add':
      return write(root, op.path, cloneJson(op.value), 'insert');
    case 'replace':
      read(root, op.path, op.op);
      return write(root, op.path, cloneJson(op.value), 'replace');
    case 'remove':
      read(root, op.path, op.op);
      return remove(root, op.path);
    case 'move': {
      if (`${op.path}/`.startsWith(`${op.from}/`) && op.path !== op.from)
        throw unfit(op.op, op.path, 'cannot move a value into itself');
      const value = read(root, op.from ?? '', op.op);
      return write(remove(root, op.from ?? ''), op.path, value, 'insert');
    }
    case 'copy':
      return write(root, op.path, cloneJson(read(root, op.from ?? '', op.op)), 'insert');
    case 'test':
      if (
        !equalJson(lookup(root, op.path), op.value ?? null) &&
        !(op.value === null && lookup(root, op.path) === undefined)
      )
        throw unfit('test', op.path, 'testing value failed');
      return root;
    default:
      throw badRequest(`error decoding patch: unexpected kind: ${op.op}`);
  }
}

function unfit(op: string, path: string, why: string): StatusError {
  return new StatusError(
    422,
    'Invalid',
    `the server rejected our request due to an error in our request: ${op} operation does not apply: doc is missing path: ${JSON.stringify(path)}: ${why}`,
  );
}

function pointer(path: string): string[] {
  if (path === '') return [];
  if (!path.startsWith('/')) throw badRequest(`error decoding patch: ${JSON.stringify(path)} is not a JSON pointer`);
  return path
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function lookup(root: unknown, path: string): unknown {
  let at = root;
  for (const part of pointer(path)) {
    if (Array.isArray(at)) at = /^(0|[1-9]\d*)$/.test(part) ? at[Number(part)] : undefined;
    else if (isObject(at) && Object.hasOwn(at, part)) at = at[part];
    else return undefined;
  }
  return at;
}

function read(root: unknown, path: string, op: string): unknown {
  const value = lookup(root, path);
  if (value === undefined) throw unfit(op, path, 'missing value');
  return value;
}

function write(root: unknown, path: string, value: unknown, mode: 'insert' | 'replace'): unknown {
  const parts = pointer(path);
  const last = parts.pop();
  if (last === undefined) return value;
  const parent = lookup(root, parts.map((p) => `/${p.replaceAll('~', '~0').replaceAll('/', '~1')}`).join(''));
  if (Array.isArray(parent)) {
    const at = last === '-' ? parent.length : Number(last);
    if (!/^(0|[1-9]\d*|-)$/.test(last) || at > parent.length) throw unfit('add', path, 'index is out of bounds');
    if (mode === 'insert') parent.splice(at, 0, value);
    else parent[at] = value;
  } else if (isObject(parent)) put(parent, last, value);
  else throw unfit('add', path, 'the parent does not exist');
  return root;
}

function remove(root: unknown, path: string): unknown {
  const parts = pointer(path);
  const last = parts.pop() ?? '';
  const parent = lookup(root, parts.map((p) => `/${p.replaceAll('~', '~0').replaceAll('/', '~1')}`).join(''));
  if (Array.isArray(parent)) parent.splice(Number(last), 1);
  else if (isObject(parent)) delete parent[last];
  return root;
}
