import type { Resource } from '../resources/table.ts';
import { methodNotAllowed, noSuchResource, StatusError } from '../status.ts';

/**
 * What a URL and a method ask for:
 *
 *     /api/v1/…  /apis/GROUP/VERSION/…    [namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/PATH]]]
 *
 * everything else is a path without a resource (`/version`, `/openapi/v2`), which authorization knows by its path alone.
 */
export type Route = ResourceRoute | { is: 'path'; path: string; verb: string; query: URLSearchParams };

export interface ResourceRoute {
  is: 'resource';
  path: string;
  verb: string;
  method: string;
  resource: Resource;
  namespace: string | undefined;
  name: string | undefined;
  subresource: string;
  /** What follows the sub-resource: `…/proxy/some/path`. */
  rest: string;
  query: URLSearchParams;
}

const VERBS: Record<string, { one: string; many: string }> = {
  GET: { one: 'get', many: 'list' },
  HEAD: { one: 'get', many: 'list' },
  POST: { one: 'create', many: 'create' },
  PUT: { one: 'update', many: 'update' },
  PATCH: { one: 'patch', many: 'patch' },
  DELETE: { one: 'delete', many: 'deletecollection' },
};

export function parseRoute(method: string, url: string, table: ReadonlyMap<string, Resource>): Route {
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const query = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1));
  const parts = path.split('/').slice(1).map(decodeSegment);
  const apiVersion =
    parts[0] === 'api' ? parts[1] : parts[0] === 'apis' ? `${parts[1] ?? ''}/${parts[2] ?? ''}` : undefined;
  const tail = parts.slice(parts[0] === 'api' ? 2 : 3).filter((p, i, all) => p !== '' || i < all.length - 1);
  if (apiVersion === undefined || tail.length === 0) return { is: 'path', path, verb: method.toLowerCase(), query };
  return resourceRoute(method, path, apiVersion, tail, query, table);
}

function resourceRoute(
  method: string,
  path: string,
  apiVersion: string,
  tail: readonly string[],
  query: URLSearchParams,
  table: ReadonlyMap<string, Resource>,
): ResourceRoute {
  // `namespaces/NS/status` is the namespace's own sub-resource, `namespaces/NS/pods` a resource inside it.
  const inside = tail[0] === 'namespaces' && tail.length > 2 && !NAMESPACE_SUBRESOURCES.has(tail[2] ?? '');
  const [plural = '', name, subresource = '', ...rest] = inside ? tail.slice(2) : tail;
  const namespace = inside ? tail[1] : undefined;
  const resource = table.get(`${apiVersion} ${plural}`);
  if (!resource) throw laterOrUnknown(apiVersion, plural, path);
  if (namespace !== undefined && !resource.facts.namespaced) throw noSuchResource(path);
  if (resource.facts.namespaced && namespace === undefined && name !== undefined) throw noSuchResource(path);
  if (subresource !== '' && !resource.facts.subresources.has(subresource)) throw noSuchResource(path);
  const verbs = VERBS[method];
  if (!verbs) throw methodNotAllowed({ group: resource.facts.group, resource: plural }, method.toLowerCase());
  const watching = method === 'GET' && name === undefined && ['true', '1'].includes(query.get('watch') ?? '');
  const verb = watching ? 'watch' : name === undefined ? verbs.many : verbs.one;
  return { is: 'resource', path, verb, method, resource, namespace, name, subresource, rest: rest.join('/'), query };
}

const NAMESPACE_SUBRESOURCES = new Set(['status', 'finalize']);

function decodeSegment(segment: string): string {
  let text: string;
  try {
    text = decodeURIComponent(segment);
  } catch (error) {
    throw new StatusError(
      400,
      'BadRequest',
      `the path segment ${JSON.stringify(segment)} is not valid percent-encoding`,
      { cause: error },
    );
  }
  // A slash or control character in a name would make another key of it.
  if ([...text].some((c) => c === '/' || c < ' ' || c > '\ud7ff'))
    throw new StatusError(400, 'BadRequest', `invalid path segment ${JSON.stringify(segment)}`);
  return text;
}

// Served by Kubernetes, not by this round: refused by name, so that nobody looks for a typing error.
const LATER: Record<string, string> = {
  'apiextensions.k8s.io': 'CustomResourceDefinitions',
  'apiregistration.k8s.io': 'APIServices',
  'admissionregistration.k8s.io': 'admission webhooks and policies',
  'certificates.k8s.io': 'certificate signing requests',
  'flowcontrol.apiserver.k8s.io': 'API priority and fairness',
  'resource.k8s.io': 'dynamic resource allocation',
  'gateway.networking.k8s.io': 'the Gateway API',
};

function laterOrUnknown(apiVersion: string, plural: string, path: string): StatusError {
  const group = apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '';
  const what = LATER[group] ?? (group === 'storage.k8s.io' && plural.startsWith('csi') ? 'CSI drivers' : undefined);
  if (what === undefined) return noSuchResource(path);
  return new StatusError(
    404,
    'NotFound',
    `the server could not find the requested resource: ${what} (${group}) are not served by this version of Estiba`,
    {
      details: { group, kind: plural },
    },
  );
}
