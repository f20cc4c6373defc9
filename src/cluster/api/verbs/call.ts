import type { Clock } from '#base/clock.ts';
import type { TokenIssuer } from '../authn/tokens.ts';
import type { User } from '../authn/user.ts';
import type { Authorizer } from '../authz/authorizer.ts';
import type { ResourceRoute } from '../http/route.ts';
import type { ApiRequest, ApiResponse } from '../http/types.ts';
import type { NodeProxy } from '../node-proxy.ts';
import type { Context } from '../registry/context.ts';
import type { Registry } from '../registry/registry.ts';
import type { Resource } from '../resources/table.ts';
import type { Figures } from './figures.ts';

/** What handlers work with: the server's parts and one request. */
export interface Services {
  registry: Registry;
  table: ReadonlyMap<string, Resource>;
  clock: Clock;
  random: () => number;
  authorizer: Authorizer;
  tokens: TokenIssuer;
  nodes: NodeProxy;
  /** Absent: nobody measures, and nothing is listed. */
  figures?: Figures;
}

export interface Call {
  services: Services;
  request: ApiRequest;
  route: ResourceRoute;
  context: Context;
  user: User;
}

export type Handler = (call: Call) => Promise<ApiResponse>;
