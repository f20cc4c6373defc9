import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import type { DeleteOptions } from '#spec/kubernetes/types.gen.ts';
import { decodeObject } from '../codec/decode.ts';
import { isObject } from '../codec/json.ts';
import { readOptionalBody } from '../http/body.ts';
import type { ApiRequest } from '../http/types.ts';
import type { Context } from '../registry/context.ts';
import type { ListQuery } from '../registry/list.ts';
import type { WatchQuery } from '../registry/watch.ts';
import { parseSelection } from '../selectors.ts';
import { badRequest } from '../status.ts';
import type { Call } from './call.ts';

/** Query parameters and option bodies, parsed once. */
export function flag(query: URLSearchParams, name: string): boolean | undefined {
  const value = query.get(name);
  if (value === null || value === '') return value === '' ? true : undefined;
  if (value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw badRequest(`strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax (${name})`);
}

export function wholeNumber(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  if (!/^\d{1,15}$/.test(value))
    throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax (${name})`);
  return Number(value);
}

export function listQuery({ route }: Call): ListQuery {
  const { query, resource, namespace, name } = route;
  const fields = [query.get('fieldSelector') ?? '', name === undefined ? '' : `metadata.name=${name}`]
    .filter(Boolean)
    .join(',');
  return {
    namespace,
    selection: parseSelection(
      { labels: query.get('labelSelector'), fields },
      resource.fields,
      resource.facts.apiVersion,
    ),
    limit: wholeNumber(query, 'limit') ?? 0,
    continueToken: query.get('continue') ?? '',
    resourceVersion: query.get('resourceVersion') ?? '',
    resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
  };
}

export function watchQuery(call: Call): WatchQuery {
  const { query } = call.route;
  const { namespace, selection, resourceVersion, resourceVersionMatch } = listQuery(call);
  return {
    namespace,
    selection,
    resourceVersion,
    resourceVersionMatch,
    sendInitialEvents: flag(query, 'sendInitialEvents'),
    bookmarks: flag(query, 'allowWatchBookmarks') ?? false,
    timeoutSeconds: wholeNumber(query, 'timeoutSeconds') || undefined,
  };
}

const PROPAGATION = new Set(['Background', 'Foreground', 'Orphan']);

/** Delete options come in the body; old clients put some in the query. */
export function deleteOptions(request: ApiRequest, query: URLSearchParams, context: Context): DeleteOptions {
  const body = readOptionalBody(request, { ...context, fieldValidation: 'Ignore' });
  const type = kubernetesFacts().types.get('meta.v1.DeleteOptions');
  if (body !== undefined && !isObject(body)) throw badRequest('delete options must be an object');
  const sent = body && type ? (decodeObject(type, body).object as DeleteOptions) : {};
  const grace = wholeNumber(query, 'gracePeriodSeconds');
  const policy = query.get('propagationPolicy');
  const orphan = flag(query, 'orphanDependents');
  const options: DeleteOptions = {
    ...sent,
    ...(grace === undefined ? {} : { gracePeriodSeconds: grace }),
    ...(policy === null ? {} : { propagationPolicy: policy }),
    ...(orphan === undefined ? {} : { orphanDependents: orphan }),
  };
  if (options.propagationPolicy !== undefined && !PROPAGATION.has(options.propagationPolicy))
    throw badRequest(
      `DeleteOptions is invalid: propagationPolicy: Unsupported value: ${JSON.stringify(options.propagationPolicy)}: supported values: "Foreground", "Background", "Orphan", "nil"`,
    );
  if ((options.dryRun ?? []).includes('All')) context.dryRun = true;
  return options;
}

/** `dryRun`, `fieldManager`, `fieldValidation`: what every write may carry. */
export function writeOptions(
  request: ApiRequest,
  query: URLSearchParams,
): Pick<Context, 'dryRun' | 'manager' | 'fieldValidation'> {
  const dryRun = query.getAll('dryRun');
  if (dryRun.some((d) => d !== 'All' && d !== ''))
    throw badRequest(`Invalid value: ${JSON.stringify(dryRun)}: dryRun: Unsupported value: supported values: "All"`);
  const validation = query.get('fieldValidation') ?? '';
  if (!['', 'Ignore', 'Warn', 'Strict'].includes(validation))
    throw badRequest(
      `fieldValidation: Unsupported value: ${JSON.stringify(validation)}: supported values: "Ignore", "Strict", "Warn"`,
    );
  const manager = query.get('fieldManager') || ((request.headers['user-agent'] ?? '').split('/')[0] ?? '') || 'unknown';
  if (manager.length > 128 || /[^\x20-\x7e]/.test(manager))
    throw badRequest('fieldManager: Invalid value: must be at most 128 printable characters');
  return {
    dryRun: dryRun.includes('All'),
    manager,
    fieldValidation: validation === '' ? 'Warn' : (validation as Context['fieldValidation']),
  };
}
