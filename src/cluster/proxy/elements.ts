import type { Frontend, Pool, ServicePlan, Target } from '#cluster/proxy/plan.ts';
import { arrange } from '#cluster/proxy/plan.ts';
import { type Pick, PROTOCOL_NUMBER, pickChain } from '#cluster/proxy/table.ts';
import { type Family, ipBytes, lastOf, networkOf, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import { concat, u32Bytes } from '#kernel/netlink/wire.ts';
import { concatKey, portBytes } from '#kernel/nft/expression.ts';
import type { Element } from '#kernel/nft/message.ts';

/** What a Service puts into the sets of the table. */
export interface SetElement {
  set: string;
  element: Element;
}

/** What is remembered of a pool from one plan to the next: its number, and who sits in which slot. */
export interface PoolState {
  number: number;
  slots: readonly string[];
}

export interface Compiled {
  elements: SetElement[];
  /** Chains the elements lead to. */
  picks: Pick[];
  pools: Map<string, PoolState>;
}

/** Pure: a plan, and what the pools were before, become elements. `newNumber` is asked for pools that are new. */
export function compileService(
  plan: ServicePlan,
  before: ReadonlyMap<string, PoolState>,
  newNumber: () => number,
): Compiled {
  const pools = new Map<string, PoolState>();
  const elements: SetElement[] = [];
  for (const pool of plan.pools) {
    const byId = new Map(pool.targets.map((target) => [idOf(target), target]));
    const known = before.get(pool.name);
    const state: PoolState = {
      number: known?.number ?? newNumber(),
      slots: arrange(known?.slots ?? [], new Set(byId.keys())),
    };
    pools.set(pool.name, state);
    elements.push(...poolElements(pool, state, byId));
  }
  const picks: Pick[] = [];
  for (const frontend of plan.frontends) {
    const pool = plan.pools.find((p) => p.name === frontend.pool);
    const state = pools.get(frontend.pool);
    if (!pool || !state) continue;
    const pick: Pick | undefined =
      state.slots.length === 0
        ? undefined
        : {
            family: frontend.family,
            by: frontend.address === undefined ? 'port' : 'front',
            slots: state.slots.length,
            stickyMs: pool.stickyMs,
          };
    if (pick) picks.push(pick);
    elements.push(...frontendElements(frontend, pool, state, pick));
  }
  return { elements, picks, pools };
}

function poolElements(pool: Pool, state: PoolState, byId: ReadonlyMap<string, Target>): SetElement[] {
  const { family } = pool;
  const number = u32Bytes(state.number);
  return state.slots.flatMap((id, slot) => {
    const target = byId.get(id);
    if (!target) return [];
    const ip = ipBytes(parseIp(target.ip));
    const data = concatKey(ip, portBytes(target.port));
    const out: SetElement[] = [
      { set: `slots${family}`, element: { key: concatKey(number, u32Bytes(slot)), data } },
      { set: `self${family}`, element: { key: concatKey(ip, ip) } },
    ];
    if (pool.stickyMs !== undefined) out.push({ set: `live${family}`, element: { key: concat([number, data]) } });
    if (target.remote) out.push({ set: `remote${family}`, element: { key: ip } });
    return out;
  });
}

function frontendElements(frontend: Frontend, pool: Pool, state: PoolState, pick: Pick | undefined): SetElement[] {
  const { family, address, sources } = frontend;
  const by = address === undefined ? 'port' : 'front';
  const key = frontendKey(frontend);
  const out: SetElement[] = pick
    ? [
        { set: `${by}${family}`, element: { key, verdict: { verdict: 'goto', chain: pickChain(pick) } } },
        { set: `${by}-pool${family}`, element: { key, data: u32Bytes(state.number) } },
      ]
    : [{ set: `${by}-empty${family}`, element: { key, verdict: { verdict: 'goto', chain: pool.whenEmpty } } }];
  if (sources === undefined) return out;
  out.push({ set: `guarded${family}`, element: { key } });
  for (const range of sources) {
    const cidr = parseCidr(range);
    const from = concat([key, ipBytes(networkOf(cidr).ip)]);
    const to = concat([key, ipBytes(lastOf(cidr))]);
    out.push({ set: `allowed${family}`, element: { key: from, keyEnd: to } });
  }
  return out;
}

function frontendKey({ address, protocol, port }: Frontend): Uint8Array {
  const number = Uint8Array.of(PROTOCOL_NUMBER[protocol]);
  return address === undefined
    ? concatKey(number, portBytes(port))
    : concatKey(number, ipBytes(parseIp(address)), portBytes(port));
}

function idOf(target: Target): string {
  return `${target.ip} ${target.port}`;
}

/** Each UDP address a Service is reached at, with all who may answer there: what conntrack may still believe. */
export interface DatagramFront {
  family: Family;
  address: string | undefined;
  port: number;
  targets: ReadonlySet<string>;
}

export function datagramFronts(plan: ServicePlan): DatagramFront[] {
  return plan.frontends
    .filter((frontend) => frontend.protocol === 'udp')
    .map(({ family, address, port, pool }) => ({
      family,
      address,
      port,
      targets: new Set(plan.pools.find((p) => p.name === pool)?.targets.map(idOf) ?? []),
    }));
}
