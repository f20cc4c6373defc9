import { labelsText } from '#cli/commands/containers.ts';
import { endpointBody } from '#cli/commands/network-flags.ts';
import { forEach } from '#cli/commands/run.ts';
import { pairs, split2, unlessBare, unlessEmpty, withoutUndefined } from '#cli/commands/values.ts';
import { confirmed } from '#cli/confirm.ts';
import { CliUsage } from '#cli/errors.ts';
import { filtersOf } from '#cli/filters.ts';
import { bytes, printList, shortId } from '#cli/output.ts';
import type { Command, Flags } from '#cli/verb.ts';

interface Network {
  Name: string;
  Id: string;
  Created: string;
  Scope: string;
  Driver: string;
  EnableIPv6: boolean;
  Internal: boolean;
  Labels: Record<string, string> | null;
}

export const networkListCommand: Command = async ({ flags, io, engine }) => {
  const networks = await engine.json<Network[]>({ path: '/networks', query: { filters: filtersOf(flags) } });
  const rows = networks.sort((a, b) => (a.Name < b.Name ? -1 : 1));
  const id = (n: Network): string => (flags.on('no-trunc') ? n.Id : shortId(n.Id));
  const columns = [
    { name: 'ID', head: 'NETWORK ID', value: id },
    { name: 'Name', head: 'NAME', value: (n: Network) => n.Name },
    { name: 'Driver', head: 'DRIVER', value: (n: Network) => n.Driver },
    { name: 'Scope', head: 'SCOPE', value: (n: Network) => n.Scope },
    { name: 'IPv6', head: 'IPV6', value: (n: Network) => String(n.EnableIPv6) },
    { name: 'Internal', head: 'INTERNAL', value: (n: Network) => String(n.Internal) },
    { name: 'CreatedAt', head: 'CREATED AT', value: (n: Network) => n.Created },
    {
      name: 'Labels',
      head: 'LABELS',
      value: (n: Network) => labelsText(n.Labels),
    },
    { name: 'Label', head: 'LABEL', value: (n: Network) => (key: string) => n.Labels?.[key] ?? '' },
  ];
  printList(io, flags, rows, { columns, shown: ['ID', 'Name', 'Driver', 'Scope'], quiet: id });
  return 0;
};

export const networkCreateCommand: Command = async ({ flags, args, io, engine }) => {
  const ipv4 = flags.has('ipv4') ? flags.on('ipv4') : undefined;
  const { Id, Warning } = await engine.json<{ Id: string; Warning?: string }>({
    method: 'POST',
    path: '/networks/create',
    json: withoutUndefined({
      Name: args[0],
      Driver: flags.text('driver') ?? 'bridge',
      Internal: flags.on('internal') || undefined,
      Attachable: flags.on('attachable') || undefined,
      Ingress: flags.on('ingress') || undefined,
      Scope: flags.text('scope'),
      ConfigOnly: flags.on('config-only') || undefined,
      ConfigFrom: flags.has('config-from') ? { Network: flags.text('config-from') } : undefined,
      EnableIPv4: ipv4,
      EnableIPv6: flags.on('ipv6') || undefined,
      Options: unlessBare(pairs(flags.list('opt'))),
      Labels: unlessBare(pairs(flags.list('label'))),
      IPAM: ipamOf(flags),
    }),
  });
  if (Warning) io.stderr.write(`WARNING: ${Warning}\n`);
  io.stdout.write(`${Id}\n`);
  return 0;
};

/** Ranges, gateways and reserved addresses belong to the subnet that holds them; with one subnet there is no doubt. */
function ipamOf(flags: Flags): object | undefined {
  const subnets = flags.list('subnet');
  const rest = [...flags.list('ip-range'), ...flags.list('gateway'), ...flags.list('aux-address')];
  if (subnets.length === 0 && rest.length > 0)
    throw new CliUsage({ why: 'every ip-range or gateway or aux-address must have a corresponding subnet' });
  const family = (text: string): boolean => text.includes(':');
  const config = subnets.map((Subnet) => {
    const same = subnets.filter((s) => family(s) === family(Subnet));
    if (same.length > 1 && rest.length > 0)
      throw new CliUsage({ why: 'with several subnets of one family, ranges and gateways are not supported' });
    const aux = flags
      .list('aux-address')
      .map((a) => split2(a, '='))
      .filter(([, ip]) => family(ip) === family(Subnet));
    return withoutUndefined({
      Subnet,
      IPRange: flags.list('ip-range').find((r) => family(r) === family(Subnet)),
      Gateway: flags.list('gateway').find((g) => family(g) === family(Subnet)),
      AuxiliaryAddresses: unlessBare(Object.fromEntries(aux)),
    });
  });
  const driver = flags.text('ipam-driver');
  const options = unlessBare(pairs(flags.list('ipam-opt')));
  if (config.length === 0 && driver === undefined && !options) return undefined;
  return withoutUndefined({ Driver: driver ?? 'default', Config: unlessEmpty(config), Options: options });
}

export const networkConnectCommand: Command = async ({ flags, args, engine }) => {
  const [network = '', container = ''] = args;
  const [ip, ip6] = [flags.text('ip'), flags.text('ip6')];
  const endpoint = endpointBody({
    name: network,
    aliases: [...flags.list('alias')],
    links: [...flags.list('link')],
    linkLocal: [...flags.list('link-local-ip')],
    options: [...flags.list('driver-opt')],
    ...(flags.has('gw-priority') ? { gwPriority: flags.int('gw-priority') ?? 0 } : {}),
    ...(ip === undefined ? {} : { ip }),
    ...(ip6 === undefined ? {} : { ip6 }),
  });
  await engine.send({
    method: 'POST',
    path: `/networks/${encodeURIComponent(network)}/connect`,
    json: { Container: container, EndpointConfig: endpoint },
  });
  return 0;
};

export const networkDisconnectCommand: Command = async ({ flags, args, engine }) => {
  const [network = '', Container = ''] = args;
  await engine.send({
    method: 'POST',
    path: `/networks/${encodeURIComponent(network)}/disconnect`,
    json: { Container, Force: flags.on('force') },
  });
  return 0;
};

export const networkRemoveCommand: Command = ({ args, io, engine }) =>
  forEach(args, io, (name) => engine.send({ method: 'DELETE', path: `/networks/${encodeURIComponent(name)}` }));

export const networkPruneCommand: Command = async ({ flags, io, engine }) => {
  if (
    !(await confirmed(flags, io, 'WARNING! This will remove all custom networks not used by at least one container.'))
  )
    return 0;
  const { NetworksDeleted } = await engine.json<{ NetworksDeleted: string[] | null }>({
    method: 'POST',
    path: '/networks/prune',
    query: { filters: filtersOf(flags) },
  });
  if (NetworksDeleted && NetworksDeleted.length > 0)
    io.stdout.write(`Deleted Networks:\n${NetworksDeleted.join('\n')}\n\n`);
  return 0;
};

interface Volume {
  Name: string;
  Driver: string;
  Mountpoint: string;
  Scope: string;
  Labels: Record<string, string> | null;
}

export const volumeListCommand: Command = async ({ flags, io, engine }) => {
  const { Volumes } = await engine.json<{ Volumes: Volume[] | null }>({
    path: '/volumes',
    query: { filters: filtersOf(flags) },
  });
  const rows = (Volumes ?? []).sort((a, b) => (a.Name < b.Name ? -1 : 1));
  const columns = [
    { name: 'Driver', head: 'DRIVER', value: (v: Volume) => v.Driver },
    { name: 'Name', head: 'VOLUME NAME', value: (v: Volume) => v.Name },
    { name: 'Scope', head: 'SCOPE', value: (v: Volume) => v.Scope },
    { name: 'Mountpoint', head: 'MOUNTPOINT', value: (v: Volume) => v.Mountpoint },
    {
      name: 'Labels',
      head: 'LABELS',
      value: (v: Volume) => labelsText(v.Labels),
    },
    { name: 'Label', head: 'LABEL', value: (v: Volume) => (key: string) => v.Labels?.[key] ?? '' },
  ];
  printList(io, flags, rows, { columns, shown: ['Driver', 'Name'], quiet: (v) => v.Name });
  return 0;
};

export const volumeCreateCommand: Command = async ({ flags, args, io, engine }) => {
  const given = flags.text('name');
  if (given !== undefined && args[0] !== undefined)
    throw new CliUsage({
      why: 'conflicting options: cannot specify a volume-name through both --name and as a positional arg',
    });
  const { Name } = await engine.json<{ Name: string }>({
    method: 'POST',
    path: '/volumes/create',
    json: withoutUndefined({
      Name: args[0] ?? given,
      Driver: flags.text('driver'),
      DriverOpts: unlessBare(pairs(flags.list('opt'))),
      Labels: unlessBare(pairs(flags.list('label'))),
    }),
  });
  io.stdout.write(`${Name}\n`);
  return 0;
};

export const volumeRemoveCommand: Command = ({ flags, args, io, engine }) =>
  forEach(args, io, (name) =>
    engine.send({
      method: 'DELETE',
      path: `/volumes/${encodeURIComponent(name)}`,
      query: { force: flags.on('force') || undefined },
    }),
  );

export const volumePruneCommand: Command = async ({ flags, io, engine }) => {
  const what = flags.on('all') ? 'all local volumes' : 'anonymous local volumes';
  if (!(await confirmed(flags, io, `WARNING! This will remove ${what} not used by at least one container.`))) return 0;
  const { VolumesDeleted, SpaceReclaimed } = await engine.json<{
    VolumesDeleted: string[] | null;
    SpaceReclaimed: number;
  }>({
    method: 'POST',
    path: '/volumes/prune',
    query: { filters: filtersOf(flags, flags.on('all') ? { all: ['true'] } : {}) },
  });
  if (VolumesDeleted && VolumesDeleted.length > 0)
    io.stdout.write(`Deleted Volumes:\n${VolumesDeleted.join('\n')}\n\n`);
  io.stdout.write(`Total reclaimed space: ${bytes(SpaceReclaimed)}\n`);
  return 0;
};
