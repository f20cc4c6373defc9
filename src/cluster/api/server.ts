import { randomUUID } from 'node:crypto';
import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { authenticate, impersonation } from './authn/authenticate.ts';
import { AUTHENTICATED, type User } from './authn/user.ts';
import type { Attributes } from './authz/authorizer.ts';
import { discover } from './discovery.ts';
import { errorResponse } from './http/respond.ts';
import { parseRoute, type ResourceRoute, type Route } from './http/route.ts';
import type { ApiRequest, ApiResponse } from './http/types.ts';
import { Metrics } from './metrics.ts';
import { answerPath } from './paths.ts';
import type { Context } from './registry/context.ts';
import { subject } from './registry/registry.ts';
import { METRICS_GROUP } from './resources/figures.ts';
import { isStored, type Resource } from './resources/table.ts';
import { forbidden, methodNotAllowed } from './status.ts';
import type { Call, Handler, Services } from './verbs/call.ts';
import { FIGURE_VERBS } from './verbs/figures.ts';
import { writeOptions } from './verbs/options.ts';
import { RESOURCE_VERBS } from './verbs/resource.ts';
import { REVIEWS } from './verbs/reviews.ts';
import { SUBRESOURCES } from './verbs/subresources.ts';

/**
 * The API server without a transport. `handle` is the main path of every request, whoever brings it: a socket, an in-process
 * client, the simulation.
 *
 *     route → who (authentication, impersonation) → may they (authorization) → handler of the verb → answer
 */
export interface ApiServerOptions {
  services: Services;
  log: Logger;
  /** `HOST:PORT` that discovery tells clients. */
  serverAddress: () => string;
  /** Is everything up that a client may rely on? */
  ready: () => boolean;
}

export class ApiServer {
  readonly services: Services;
  readonly metrics = new Metrics();
  readonly #o: ApiServerOptions;

  constructor(options: ApiServerOptions) {
    this.#o = options;
    this.services = options.services;
  }

  get clock(): Clock {
    return this.services.clock;
  }

  get table(): ReadonlyMap<string, Resource> {
    return this.services.table;
  }

  async handle(request: ApiRequest): Promise<ApiResponse> {
    const startMs = this.clock.monotonic();
    const seen = { verb: request.method.toLowerCase(), resource: '' };
    const response = await this.#answer(request, seen).catch((error: unknown) =>
      errorResponse(error, (e) =>
        this.#o.log.error('request failed', { url: request.url.slice(0, 300), error: describeChain(e) }),
      ),
    );
    this.metrics.observe({ ...seen, code: response.code, seconds: (this.clock.monotonic() - startMs) / 1000 });
    response.headers['audit-id'] = request.headers['audit-id'] ?? randomUUID();
    return response;
  }

  async #answer(request: ApiRequest, seen: { verb: string; resource: string }): Promise<ApiResponse> {
    const { route, user } = await this.admit(request, seen);
    if (route.is === 'path') return this.#path(request, route);
    const handler = handlerOf(route);
    return handler(this.call(request, route, user));
  }

  /** Routes, authenticates and authorizes; shared with upgraded connections. */
  async admit(
    request: ApiRequest,
    seen: { verb: string; resource: string } = { verb: '', resource: '' },
  ): Promise<{ route: Route; user: User }> {
    const identity = await authenticate(request, this.services.tokens);
    const user = this.#asWhom(request, identity);
    const route = this.#routeOrNotFound(request, user);
    seen.verb = route.verb;
    seen.resource = route.is === 'resource' ? route.resource.facts.resource : '';
    this.#authorize(user, attributesOf(route));
    return { route, user };
  }

  call(request: ApiRequest, route: ResourceRoute, user: User): Call {
    const context: Context = {
      user,
      verb: route.verb,
      warnings: [],
      subresource: '',
      ...writeOptions(request, route.query),
    };
    return { services: this.services, request, route, context, user };
  }

  /** Whether a path exists is not for everybody to know: an unknown one is 403 for those who may not ask. */
  #routeOrNotFound(request: ApiRequest, user: User): Route {
    try {
      return parseRoute(request.method, request.url, this.services.table);
    } catch (error) {
      const path = request.url.split('?')[0] ?? '';
      if (!user.groups.includes(AUTHENTICATED))
        this.#authorize(user, { is: 'path', verb: request.method.toLowerCase(), path });
      throw error;
    }
  }

  #asWhom(request: ApiRequest, identity: User): User {
    const wanted = impersonation(request);
    if (!wanted) return identity;
    for (const { group, resource, name, namespace } of wanted.claims)
      this.#authorize(identity, {
        is: 'resource',
        verb: 'impersonate',
        group,
        resource,
        subresource: '',
        namespace,
        name,
      });
    return wanted.user;
  }

  #authorize(user: User, attributes: Attributes): void {
    if (attributes.is === 'path' && isPublic(attributes)) return;
    const decision = this.services.authorizer.decide(user, attributes);
    if (decision.allowed) return;
    const who = `User ${JSON.stringify(user.username)} cannot`;
    const why = decision.reason === '' ? '' : `: ${decision.reason}`;
    if (attributes.is === 'path')
      throw forbidden(
        { group: '', resource: '' },
        `${who} ${attributes.verb} path ${JSON.stringify(attributes.path)}${why}`,
      );
    const { group, resource, subresource, namespace, name, verb } = attributes;
    const full = subresource === '' ? resource : `${resource}/${subresource}`;
    const where = namespace === undefined ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`;
    throw forbidden(
      { group, resource, name },
      `${who} ${verb} resource ${JSON.stringify(full)} in API group ${JSON.stringify(group)} ${where}${why}`,
    );
  }

  #path(request: ApiRequest, route: Route & { is: 'path' }): ApiResponse | Promise<ApiResponse> {
    const found =
      route.verb === 'get' || route.verb === 'head'
        ? discover(route.path, request.headers['accept'] ?? '', this.#o.serverAddress())
        : undefined;
    if (found) return { code: 200, headers: { 'content-type': found.contentType }, body: JSON.stringify(found.body) };
    return answerPath(this, request, route, { ready: this.#o.ready });
  }
}

/** Health and version are everybody's. */
function isPublic({ verb, path }: { verb: string; path: string }): boolean {
  return (verb === 'get' || verb === 'head') && /^\/(healthz|livez|readyz|version)(\/|$)/.test(path);
}

function handlerOf(route: ResourceRoute): Handler {
  const { resource, subresource, verb } = route;
  const handler =
    subresource !== ''
      ? SUBRESOURCES[subresource]?.[verb]
      : isStored(resource)
        ? RESOURCE_VERBS[verb]
        : resource.facts.group === METRICS_GROUP
          ? FIGURE_VERBS[verb]
          : REVIEWS[resource.facts.resource];
  const allowed = subresource !== '' || resource.facts.verbs.has(verb as 'get');
  if (!handler || !allowed) throw methodNotAllowed(subject(resource), verb);
  return handler;
}

function attributesOf(route: Route): Attributes {
  if (route.is === 'path') return { is: 'path', verb: route.verb, path: route.path };
  const { group, resource } = route.resource.facts;
  // The namespace object itself is asked for by its name, inside itself.
  const namespace = resource === 'namespaces' ? route.name : route.namespace;
  return {
    is: 'resource',
    verb: route.verb,
    group,
    resource,
    subresource: route.subresource,
    namespace,
    name: route.name ?? selectedName(route),
  };
}

/** Who lists or watches by one object's name asks for that object, and may if he may get it. */
function selectedName(route: Extract<Route, { is: 'resource' }>): string | undefined {
  if (route.verb !== 'list' && route.verb !== 'watch') return undefined;
  return /^metadata\.name=([^,]+)$/.exec(route.query.get('fieldSelector') ?? '')?.[1];
}
