import type { Family } from '#kernel/netlink/ip.ts';
import type { Endpoint, Network, Sandbox } from '#network/model.ts';

const FAMILIES: readonly Family[] = [4, 6];

/**
 * The endpoints with the default routes given to whom they are due: of each family, the endpoint of the highest gateway priority; of equals one
 * that leads out by both families, then the first by its network's name. As dockerd 28 chooses, whatever the order of joining; only that a
 * network of both families never has a route before one of a higher priority. An internal network leads nowhere.
 */
export function withGateways(endpoints: readonly Endpoint[], networks: ReadonlyMap<string, Network>): Endpoint[] {
  const ways = endpoints
    .map(({ network, gwPriority = 0, ipv4, ipv6 }) => {
      const { name = '', internal = true } = networks.get(network) ?? {};
      const families = FAMILIES.filter((family) => !internal && (family === 4 ? ipv4 : ipv6) !== undefined);
      return { network, gwPriority, name, families };
    })
    .sort((a, b) => b.gwPriority - a.gwPriority || b.families.length - a.families.length || (a.name < b.name ? -1 : 1));
  const best = FAMILIES.map((family) => ({ family, by: ways.find((way) => way.families.includes(family))?.network }));
  return endpoints.map((endpoint) => ({
    ...endpoint,
    defaultRoutes: best.filter(({ by }) => by === endpoint.network).map(({ family }) => family),
  }));
}

/** Which endpoint the container reaches the world of that family through. */
export function gatewayEndpoint({ endpoints }: Pick<Sandbox, 'endpoints'>, family: Family): Endpoint | undefined {
  return endpoints.find((e) => e.defaultRoutes.includes(family));
}

/**
 * Where published ports of that family lead to: the endpoint with its default route, so that answers leave by the way that questions came.
 * Without one of that family it is the other's, and where nothing leads out, the first.
 */
export function publishEndpoint(sandbox: Pick<Sandbox, 'endpoints'>, family: Family): Endpoint | undefined {
  const other = family === 4 ? 6 : 4;
  return gatewayEndpoint(sandbox, family) ?? gatewayEndpoint(sandbox, other) ?? sandbox.endpoints[0];
}

/** The addresses that published ports are rewritten to. */
export function publishTarget(sandbox: Pick<Sandbox, 'endpoints'>): {
  ipv4: string | undefined;
  ipv6: string | undefined;
} {
  return { ipv4: publishEndpoint(sandbox, 4)?.ipv4, ipv6: publishEndpoint(sandbox, 6)?.ipv6 };
}
