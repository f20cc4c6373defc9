import { isCode } from '#base/errors.ts';
import { fail } from '#base/shape.ts';
import { namespaceRow } from '#kernel/linux/namespaces.ts';
import { getLink, type Link, parseLinks, setLink } from '#kernel/netlink/link.ts';
import { type Address, addAddress, dumpAddresses, parseLastingAddresses } from '#kernel/netlink/route.ts';
import { answers, encode, type Message, NETLINK_ROUTE } from '#kernel/netlink/wire.ts';
import type { PlanResult } from '#kernel/plan/execute.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import { Unsupported } from '#runtime/errors.ts';
import type { OciConfig } from '#spec/oci/config.ts';

// config-linux.md, "Network Devices": links of the host's that move into the container's network namespace. A move takes a
// link down and its addresses away, so they are read first, and given back from inside. At the end the kernel decides: real
// devices come back, virtual ones die with the namespace.
//
//   host    move link N to the namespace of PID, with its number and its new name
//   init    its addresses · up

/** A link as it was on the host. */
export interface NetDevice {
  path: string;
  index: number;
  /** In the container; may hold one `%d`, where the kernel puts the first free number. */
  name: string;
  addresses: readonly Address[];
}

/** The links that `config` names. Throws InvalidValue for one that is not there, Unsupported where none can be moved to. */
export async function readNetDevices(
  config: OciConfig,
  execute: (plan: Plan) => Promise<PlanResult>,
): Promise<NetDevice[]> {
  const wishes = Object.entries(config.linux?.netDevices ?? {});
  if (wishes.length === 0) return [];
  const space = config.linux?.namespaces?.find((ns) => ns.type === 'network');
  if (!space) throw new Unsupported({ path: '$.linux.netDevices', what: 'the container has no network namespace' });
  const out: NetDevice[] = [];
  for (const [hostName, { name = hostName }] of wishes) {
    const path = `$.linux.netDevices.${hostName}`;
    if (hostName === 'lo') fail(path, hostName, 'is the loopback, which every network namespace has of its own');
    const link = await readLink(path, hostName, execute);
    if (await isTaken(name, space.path, execute)) fail(`${path}.name`, name, 'exists in the container already');
    const found = await execute(netlink(path, [dumpAddresses(link.index)]));
    const addresses = parseLastingAddresses(answers(found.data, 'read addresses'));
    out.push({ path, index: link.index, name, addresses: addresses.filter((a) => a.index === link.index) });
  }
  return out;
}

async function readLink(path: string, name: string, execute: (plan: Plan) => Promise<PlanResult>): Promise<Link> {
  const { data } = await execute(netlink(path, [getLink({ name })])).catch((error: unknown) => {
    if (isCode(error, 'PLAN_FAILED') && error.data['errno'] === 'ENODEV')
      return fail(path, name, 'is no network device of the host');
    throw error;
  });
  const [link] = parseLinks(answers(data, 'read link'));
  return link ?? fail(path, name, 'is no network device of the host');
}

/** A move into a namespace that exists would stop half way where the name is taken: the link would be there, with its old one. */
async function isTaken(
  name: string,
  space: string | undefined,
  execute: (plan: Plan) => Promise<PlanResult>,
): Promise<boolean> {
  if (name.includes('%d')) return false;
  if (space === undefined) return name === 'lo';
  const b = new PlanBuilder();
  b.host('default', { op: 'fork' });
  b.middle('$.linux.netDevices', { op: 'setns', slot: NO_SLOT, path: space, type: namespaceRow('network').flag });
  b.middle('$.linux.netDevices', { op: 'netlink', ...route([getLink({ name })]) });
  try {
    await execute(b.finish());
    return true;
  } catch (error) {
    if (isCode(error, 'PLAN_FAILED') && error.data['errno'] === 'ENODEV') return false;
    throw error;
  }
}

export function planNetDevices(b: PlanBuilder, config: OciConfig, devices: readonly NetDevice[]): void {
  if (devices.length < Object.keys(config.linux?.netDevices ?? {}).length)
    throw new Unsupported({ path: '$.linux.netDevices', what: 'this caller does not move network devices' });
  for (const { path, index, name, addresses } of devices) {
    // Its number stays: what follows finds it by that, whatever name the kernel makes of a template.
    const { protocol, messages } = route([setLink({ index }, { newIndex: index, newName: name, netns: { pid: 0 } })]);
    b.host(path, { op: 'netlink', protocol, messages, pidAt: [messages.length - PID_BYTES] });
    const inside = [...addresses.map(addAddress), setLink({ index }, { up: true })];
    b.init(path, { op: 'netlink', ...route(inside) });
  }
}

/** The namespace's pid is the last thing in the message: see `setLink`. */
const PID_BYTES = 4;

function route(messages: readonly Message[]): { protocol: number; messages: Uint8Array; pidAt: number[] } {
  return { protocol: NETLINK_ROUTE, messages: encode(messages), pidAt: [] };
}

function netlink(because: string, messages: readonly Message[]): Plan {
  const b = new PlanBuilder();
  b.host(because, { op: 'netlink', ...route(messages) });
  return b.finish();
}
