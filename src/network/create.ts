import { type Cidr, contains, formatCidr, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import { BadNetworkOption } from '#network/errors.ts';
import {
  chooseSubnet,
  DEFAULT_POOLS,
  isHost,
  resolveSubnet,
  type SubnetRequest,
  type Taken,
  uniqueLocalSubnet,
} from '#network/ipam.ts';
import type { Driver, Network, Subnet } from '#network/model.ts';
import { bridgeName } from '#network/plan.ts';

/** A wish for a network, as front ends have it. */
export interface CreateRequest {
  name: string;
  driver?: string;
  internal?: boolean;
  attachable?: boolean;
  /** Off: no embedded DNS; containers get the resolvers they are given. */
  names?: boolean;
  ipv6?: boolean;
  subnets?: readonly {
    subnet?: string;
    range?: string;
    gateway?: string;
    auxiliary?: Readonly<Record<string, string>>;
  }[];
  /** Docker's address manager knows none: kept, and shown again. */
  ipamOptions?: Readonly<Record<string, string>>;
  options?: Readonly<Record<string, string>>;
  labels?: Readonly<Record<string, string>>;
}

interface Surroundings {
  id: string;
  daemon: string;
  nowMs: number;
  mtuBytes: number;
  taken: readonly Taken[];
}

const PREDEFINED = ['bridge', 'host', 'none'];
/** Docker takes blanks too, and people have such networks. */
const NAME = /^[a-zA-Z0-9](?:[a-zA-Z0-9_. -]*[a-zA-Z0-9_.-])?$/;

/** Options of Docker's bridge driver, and one of ours. What is not in this table is refused, not ignored. */
const OPTION = {
  icc: 'com.docker.network.bridge.enable_icc',
  masquerade: 'com.docker.network.bridge.enable_ip_masquerade',
  hostBinding: 'com.docker.network.bridge.host_binding_ipv4',
  bridge: 'com.docker.network.bridge.name',
  default: 'com.docker.network.bridge.default_bridge',
  mtu: 'com.docker.network.driver.mtu',
  routed: 'dev.estiba.routed',
} as const;

/** Pure: a wish and what is around it become a network, or say what is wrong with them. */
export function createDecision(request: CreateRequest, around: Surroundings): Network {
  if (!NAME.test(request.name))
    throw new BadNetworkOption({ option: 'name', value: request.name, rule: `does not match ${NAME.source}` });
  const driver = request.driver ?? 'bridge';
  if (driver !== 'bridge')
    throw new BadNetworkOption({
      option: 'driver',
      value: driver,
      rule: PREDEFINED.includes(driver) ? 'exists once and cannot be made' : 'is not one of: bridge',
    });
  const options = request.options ?? {};
  const unknown = Object.keys(options).find((key) => !Object.values<string>(OPTION).includes(key));
  if (unknown !== undefined)
    throw new BadNetworkOption({ option: 'driver option', value: unknown, rule: 'is not known to the bridge driver' });
  return {
    ...base(request.name, 'bridge', around),
    subnets: subnetsOf(request, around),
    internal: request.internal ?? false,
    ipv6: request.ipv6 ?? false,
    icc: flag(options, OPTION.icc, true),
    routed: flag(options, OPTION.routed, false),
    masquerade: flag(options, OPTION.masquerade, true),
    mtuBytes: mtuOf(options[OPTION.mtu], around.mtuBytes),
    bridge: bridgeOf(options[OPTION.bridge]) ?? bridgeName(around.daemon, around.id, false),
    hostBinding: hostBindingOf(options[OPTION.hostBinding]),
    labels: request.labels ?? {},
    options,
    ...(Object.keys(request.ipamOptions ?? {}).length > 0 ? { ipamOptions: request.ipamOptions } : {}),
    attachable: request.attachable ?? false,
    names: request.names ?? true,
  };
}

/** The networks every node has, those that are not there yet. */
export function predefinedNetworks(
  present: readonly Network[],
  around: Omit<Surroundings, 'id'> & { newId: () => string; bip: Cidr | undefined },
): Network[] {
  const missing = PREDEFINED.filter((name) => !present.some((n) => n.name === name));
  return missing.map((name): Network => {
    const at = { ...around, id: around.newId() };
    if (name !== 'bridge') return { ...base(name, name as Driver, at), predefined: true };
    const subnet = around.bip
      ? resolveSubnet(
          { subnet: around.bip, ...(isHost(around.bip, around.bip.ip) ? { gateway: around.bip.ip } : {}) },
          around.taken,
        )
      : resolveSubnet({ subnet: chooseSubnet(DEFAULT_POOLS, around.taken) }, []);
    return {
      ...base(name, 'bridge', at),
      subnets: [subnet],
      bridge: bridgeName(around.daemon, at.id, true),
      predefined: true,
      options: {
        [OPTION.default]: 'true',
        [OPTION.icc]: 'true',
        [OPTION.masquerade]: 'true',
        [OPTION.hostBinding]: '0.0.0.0',
        [OPTION.bridge]: bridgeName(around.daemon, at.id, true),
        [OPTION.mtu]: String(around.mtuBytes),
      },
    };
  });
}

function base(name: string, driver: Driver, around: Surroundings): Network {
  return {
    id: around.id,
    name,
    driver,
    createdAtMs: around.nowMs,
    subnets: [],
    internal: false,
    ipv6: false,
    icc: true,
    routed: false,
    masquerade: true,
    mtuBytes: around.mtuBytes,
    bridge: '',
    hostBinding: '0.0.0.0',
    labels: {},
    options: {},
    attachable: false,
    predefined: false,
    names: false,
  };
}

function subnetsOf(request: CreateRequest, around: Surroundings): Subnet[] {
  const wishes = (request.subnets ?? []).filter((wish) => wish.subnet !== undefined).map(parseWish);
  const left = (request.subnets ?? []).find((wish) => wish.subnet === undefined && (wish.gateway || wish.range));
  if (left)
    throw new BadNetworkOption({
      option: left.gateway ? 'gateway' : 'ip-range',
      value: left.gateway ?? left.range ?? '',
      rule: 'needs a subnet',
    });
  const out: Subnet[] = [];
  for (const wish of wishes) {
    const own = out.map((s) => ({ cidr: s.subnet, holder: 'this network itself' }));
    const twin = out.find((s) => s.subnet.ip.family === wish.subnet.ip.family);
    if (twin)
      throw new BadNetworkOption({
        option: 'subnet',
        value: formatCidr(wish.subnet),
        rule: 'is a second one of its family; a network has one of each',
      });
    out.push(resolveSubnet(wish, [...around.taken, ...own]));
  }
  const has = (family: 4 | 6): boolean => out.some((s) => s.subnet.ip.family === family);
  if (!has(4)) out.unshift(resolveSubnet({ subnet: chooseSubnet(DEFAULT_POOLS, around.taken) }, []));
  if (request.ipv6 && !has(6)) out.push(resolveSubnet({ subnet: uniqueLocalSubnet(around.id) }, around.taken));
  if (!request.ipv6 && has(6))
    throw new BadNetworkOption({
      option: 'subnet',
      value: formatCidr(out.find((s) => s.subnet.ip.family === 6)?.subnet ?? parseCidr('::/0')),
      rule: 'is IPv6, which the network has not enabled (--ipv6)',
    });
  return out;
}

function parseWish(wish: NonNullable<CreateRequest['subnets']>[number]): SubnetRequest {
  const subnet = parseCidr(wish.subnet ?? '');
  const auxiliary = Object.fromEntries(Object.entries(wish.auxiliary ?? {}).map(([name, ip]) => [name, parseIp(ip)]));
  for (const [name, ip] of Object.entries(auxiliary))
    if (!contains(subnet, ip))
      throw new BadNetworkOption({
        option: `aux-address ${name}`,
        value: wish.auxiliary?.[name] ?? '',
        rule: `is not in ${wish.subnet}`,
      });
  return {
    subnet,
    ...(wish.range ? { range: parseCidr(wish.range) } : {}),
    ...(wish.gateway ? { gateway: parseIp(wish.gateway) } : {}),
    auxiliary,
  };
}

function flag(options: Readonly<Record<string, string>>, key: string, fallback: boolean): boolean {
  const value = options[key];
  if (value === undefined) return fallback;
  if (['true', '1', 't', 'TRUE', 'True', 'T'].includes(value)) return true;
  if (['false', '0', 'f', 'FALSE', 'False', 'F'].includes(value)) return false;
  throw new BadNetworkOption({ option: key, value, rule: 'is neither true nor false' });
}

function mtuOf(value: string | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  const mtu = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  if (mtu < 68 || mtu > 65535)
    throw new BadNetworkOption({ option: OPTION.mtu, value, rule: 'is not between 68 and 65535' });
  return mtu;
}

function bridgeOf(value: string | undefined): string | undefined {
  if (value === undefined || value === '') return undefined;
  // The kernel's own rule (dev_valid_name) and no colon, which old tools take for an alias.
  if (value.length > 15 || /[\s/:]/.test(value) || value === '.' || value === '..')
    throw new BadNetworkOption({ option: OPTION.bridge, value, rule: 'is no name for a link (at most 15 characters)' });
  return value;
}

function hostBindingOf(value: string | undefined): string {
  if (value === undefined || value === '') return '0.0.0.0';
  parseIp(value);
  return value;
}
