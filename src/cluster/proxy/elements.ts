import type { Frontend, Pool, ServicePlan, Target } from '#cluster/proxy/plan.ts';
import { arrange } from '#cluster/proxy/plan.ts';
import { type Pick, pickChain, STICKY_SLOTS } from '#cluster/proxy/table.ts';
import { type Family, ipBytes, lastOf, networkOf, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import { concat, u32Bytes } from '#kernel/netlink/wire.ts';
import { concatKey, portBytes } from '#kernel/nft/expression.ts';
import { PROTOCOL_NUMBER } from '#kernel/nft/facts.ts';
import type { Element } from '#kernel/nft/message.ts';

/** What a Service puts into the sets of the table. */
export interface SetElement {
  set: string;
  element: Element;
}

export interface Compiled {
  elements: SetElement[];
  /** Chains the elements lead to. */
  picks: Pick[];
  /** Who sits in which slot, by pool: what the next compilation starts from. */
  pools: Map<string, readonly string[]>;
}

/** Pure: a plan, and who sat where before, become elements. */
export function compileService(plan: ServicePlan, before: ReadonlyMap<string, readonly string[]>): Compiled {
  const pools = new Map<string, readonly string[]>();
  const elements: SetElement[] = [];
  for (const pool of plan.pools) {
    const ids = new Set(pool.targets.map(idOf));
    pools.set(pool.name, pool.sticky ? spread([...ids]) : arrange(before.get(pool.name) ?? [], ids));
    elements.push(...poolElements(pool));
  }
  const picks: Pick[] = [];
  for (const frontend of plan.frontends) {
    const pool = plan.pools.find((p) => p.name === frontend.pool);
    const slots = pools.get(frontend.pool) ?? [];
    if (!pool) continue;
    const by = frontend.address === undefined ? ('port' as const) : ('front' as const);
    const pick: Pick = { family: frontend.family, by, slots: slots.length, sticky: pool.sticky };
    if (slots.length > 0) picks.push(pick);
    elements.push(...frontendElements(frontend, pool, slots, pick));
  }
  return { elements, picks, pools };
}

/** Every slot to the target that scores highest for it (rendezvous hashing): a target that comes or goes moves only its own. */
export function spread(ids: readonly string[]): string[] {
  if (ids.length === 0) return [];
  const hashes = ids.map((id) => ({ id, hash: fnv(id) }));
  return Array.from({ length: STICKY_SLOTS }, (_, slot) => {
    let best = { id: '', score: -1 };
    for (const { id, hash } of hashes) {
      const score = mix(hash ^ Math.imul(slot + 1, 0x9e3779b1));
      if (score > best.score) best = { id, score };
    }
    return best.id;
  });
}

function poolElements({ family, targets }: Pool): SetElement[] {
  return targets.flatMap((target) => {
    const ip = ipBytes(parseIp(target.ip));
    const out: SetElement[] = [{ set: `self${family}`, element: { key: concatKey(ip, ip) } }];
    if (target.remote) out.push({ set: `remote${family}`, element: { key: ip } });
    return out;
  });
}

function frontendElements(frontend: Frontend, pool: Pool, slots: readonly string[], pick: Pick): SetElement[] {
  const { family, sources } = frontend;
  const key = frontendKey(frontend);
  const byId = new Map(pool.targets.map((target) => [idOf(target), target]));
  const out: SetElement[] =
    slots.length === 0
      ? [
          {
            set: `${pick.by}-empty${family}`,
            element: { key, verdict: { verdict: 'goto', chain: pool.whenEmpty } },
          },
        ]
      : [{ set: `${pick.by}${family}`, element: { key, verdict: { verdict: 'goto', chain: pickChain(pick) } } }];
  for (const [slot, id] of slots.entries()) {
    const target = byId.get(id);
    if (!target) continue;
    const data = concatKey(ipBytes(parseIp(target.ip)), portBytes(target.port));
    out.push({ set: `${pick.by}-slots${family}`, element: { key: concat([key, u32Bytes(slot)]), data } });
  }
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

/** FNV-1a. */
function fnv(text: string): number {
  let hash = 0x811c9dc5;
  for (const char of text) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  return hash;
}

function mix(value: number): number {
  let z = value;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
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
