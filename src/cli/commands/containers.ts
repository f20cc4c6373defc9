import { isCode, messageOf } from '#base/errors.ts';
import { copyFrames } from '#cli/attach.ts';
import { resourceBody } from '#cli/commands/create-body.ts';
import { printForeseen, wantsPlan } from '#cli/commands/plan.ts';
import { forEach, SILENT } from '#cli/commands/run.ts';
import { ExitWith } from '#cli/errors.ts';
import { filtersOf } from '#cli/filters.ts';
import { ago, alignColumns, binaryBytes, bytes, printList, shortId } from '#cli/output.ts';
import { timeOf } from '#cli/time.ts';
import type { Command, Flags, Io } from '#cli/verb.ts';
import { type EngineClient, refusedStatus } from '#engine/client/client.ts';

const at = (name: string): string => `/containers/${encodeURIComponent(name)}`;

export interface Summary {
  Id: string;
  Names: string[];
  Image: string;
  Command: string;
  Created: number;
  State: string;
  Status: string;
  Ports: { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }[];
  Labels: Record<string, string>;
  Mounts: { Type: string; Name?: string; Source: string }[];
  NetworkSettings?: { Networks?: Record<string, unknown> };
  SizeRw?: number;
  SizeRootFs?: number;
}

export const listCommand: Command = async ({ flags, io, engine }) => {
  const last = flags.on('latest') ? 1 : flags.int('last');
  const wantsSize = flags.on('size') || (flags.text('format') ?? '').includes('.Size');
  const rows = await engine.json<Summary[]>({
    path: '/containers/json',
    query: {
      all: flags.on('all') || last !== undefined || undefined,
      limit: last !== undefined && last >= 0 ? last : undefined,
      size: wantsSize || undefined,
      filters: filtersOf(flags),
    },
  });
  const whole = flags.on('no-trunc');
  const cut = (text: string, length: number): string =>
    whole || text.length <= length ? text : `${text.slice(0, length - 1)}…`;
  const id = (c: Summary): string => (whole ? c.Id : shortId(c.Id));
  const columns = [
    { name: 'ID', head: 'CONTAINER ID', value: id },
    {
      name: 'Image',
      head: 'IMAGE',
      value: (c: Summary) => (whole ? c.Image : c.Image.replace(/^sha256:([0-9a-f]{12}).*$/, '$1')),
    },
    { name: 'Command', head: 'COMMAND', value: (c: Summary) => `"${cut(c.Command, 20)}"` },
    { name: 'CreatedAt', head: 'CREATED AT', value: (c: Summary) => stamp(c.Created * 1000) },
    { name: 'RunningFor', head: 'CREATED', value: (c: Summary) => ago(io.now() - c.Created * 1000) },
    { name: 'Status', head: 'STATUS', value: (c: Summary) => c.Status },
    { name: 'State', head: 'STATE', value: (c: Summary) => c.State },
    { name: 'Ports', head: 'PORTS', value: (c: Summary) => portsText(c.Ports) },
    { name: 'Names', head: 'NAMES', value: (c: Summary) => namesText(c.Names) },
    { name: 'Size', head: 'SIZE', value: sizeText },
    {
      name: 'Labels',
      head: 'LABELS',
      value: (c: Summary) => labelsText(c.Labels),
    },
    { name: 'Label', head: 'LABEL', value: (c: Summary) => (key: string) => c.Labels?.[key] ?? '' },
    {
      name: 'Mounts',
      head: 'MOUNTS',
      value: (c: Summary) => (c.Mounts ?? []).map((m) => cut(m.Name ?? m.Source, 15)).join(','),
    },
    {
      name: 'LocalVolumes',
      head: 'LOCAL VOLUMES',
      value: (c: Summary) => (c.Mounts ?? []).filter((m) => m.Type === 'volume').length,
    },
    {
      name: 'Networks',
      head: 'NETWORKS',
      value: (c: Summary) => Object.keys(c.NetworkSettings?.Networks ?? {}).join(','),
    },
    { name: 'Platform', head: 'PLATFORM', value: () => null },
  ];
  const shown = [
    'ID',
    'Image',
    'Command',
    'RunningFor',
    'Status',
    'Ports',
    'Names',
    ...(flags.on('size') ? ['Size'] : []),
  ];
  printList(io, flags, rows, { columns, shown, quiet: id });
  return 0;
};

function sizeText({ SizeRw = 0, SizeRootFs }: Summary): string {
  return SizeRootFs ? `${bytes(SizeRw, 3)} (virtual ${bytes(SizeRootFs, 3)})` : bytes(SizeRw, 3);
}

export function labelsText(labels: Readonly<Record<string, string>> | null | undefined): string {
  return Object.entries(labels ?? {})
    .map(([k, v]) => `${k}=${v}`)
    .sort()
    .join(',');
}

/** Own names first; those of links have a slash inside. */
function namesText(names: readonly string[]): string {
  return names
    .map((n) => n.replace(/^\//, ''))
    .filter((n) => !n.includes('/'))
    .join(',');
}

export function stamp(ms: number): string {
  const date = new Date(ms);
  return `${date.toISOString().slice(0, 10)} ${date.toISOString().slice(11, 19)} +0000 UTC`;
}

/** `0.0.0.0:80->80/tcp`, neighbours joined to ranges. */
export function portsText(ports: Summary['Ports']): string {
  const sorted = [...(ports ?? [])].sort(
    (a, b) => a.PrivatePort - b.PrivatePort || a.Type.localeCompare(b.Type) || ((a.IP ?? '') < (b.IP ?? '') ? -1 : 1),
  );
  const out: string[] = [];
  const groups = new Map<string, [first: number, last: number, publicFirst: number | undefined][]>();
  for (const { IP = '', PrivatePort, PublicPort, Type } of sorted) {
    const key = `${IP} ${Type}`;
    const list = groups.get(key) ?? [];
    const group = list.at(-1);
    const next =
      group &&
      PrivatePort === group[1] + 1 &&
      (group[2] === undefined ? PublicPort === undefined : PublicPort === group[2] + (PrivatePort - group[0]));
    if (group && next) group[1] = PrivatePort;
    else list.push([PrivatePort, PrivatePort, PublicPort]);
    groups.set(key, list);
  }
  const range = (first: number, last: number): string => (first === last ? String(first) : `${first}-${last}`);
  for (const [key, list] of groups) {
    const [ip = '', type = ''] = key.split(' ');
    const host = ip.includes(':') ? `[${ip}]` : ip;
    for (const [first, last, open] of list)
      out.push(
        `${open === undefined ? '' : `${host}:${range(open, open + last - first)}->`}${range(first, last)}/${type}`,
      );
  }
  return out.join(', ');
}

export const stopCommand: Command = ({ verb, flags, args, io, engine }) => {
  const query = { t: flags.int('timeout') ?? flags.int('time'), signal: flags.text('signal') };
  return forEach(args, io, (name) =>
    engine.send({ method: 'POST', path: `${at(name)}/${verb.name.split(' ').at(-1)}`, query }),
  );
};

export const killCommand: Command = ({ flags, args, io, engine }) =>
  forEach(args, io, (name) =>
    engine.send({ method: 'POST', path: `${at(name)}/kill`, query: { signal: flags.text('signal') } }),
  );

/** `pause`, `unpause`. */
export const pauseCommand: Command = ({ verb, args, io, engine }) =>
  forEach(args, io, (name) => engine.send({ method: 'POST', path: `${at(name)}/${verb.name.split(' ').at(-1)}` }));

export const removeCommand: Command = ({ flags, args, io, engine }) => {
  const query = {
    force: flags.on('force') || undefined,
    v: flags.on('volumes') || undefined,
    link: flags.on('link') || undefined,
  };
  return forEach(args, io, async (name) => {
    try {
      await engine.send({ method: 'DELETE', path: at(name), query });
    } catch (error) {
      // As docker: what is to be gone by force and is gone already is told, and no failure.
      if (!flags.on('force') || refusedStatus(error) !== 404) throw error;
      io.stderr.write(`Error response from daemon: ${messageOf(error)}\n`);
      return SILENT;
    }
  });
};

export const renameCommand: Command = async ({ args, engine }) => {
  const [from = '', to = ''] = args;
  await engine.send({ method: 'POST', path: `${at(from)}/rename`, query: { name: to } });
  return 0;
};

export const updateCommand: Command = ({ flags, args, io, engine }) => {
  const { blkio: _, ...json } = resourceBody(flags);
  if (wantsPlan(flags))
    return forEach(args, io, (name) =>
      printForeseen(engine, { path: `/estiba/v1/plan/update/${encodeURIComponent(name)}`, json }, flags, io),
    );
  return forEach(args, io, async (name) => {
    const { Warnings } = await engine.json<{ Warnings?: string[] }>({
      method: 'POST',
      path: `${at(name)}/update`,
      json,
    });
    for (const warning of Warnings ?? []) io.stderr.write(`WARNING: ${warning}\n`);
  });
};

export const waitCommand: Command = async ({ args, io, engine }) => {
  let code = 0;
  for (const name of args) {
    try {
      const { StatusCode } = await engine.json<{ StatusCode: number }>({ method: 'POST', path: `${at(name)}/wait` });
      io.stdout.write(`${StatusCode}\n`);
    } catch (error) {
      if (!isCode(error, 'REQUEST_REFUSED')) throw error;
      io.stderr.write(`Error response from daemon: ${error.message}\n`);
      code = 1;
    }
  }
  return code;
};

export const logsCommand: Command = async ({ flags, args, io, engine }) => {
  const [name = ''] = args;
  const { Config } = await engine.json<{ Config: { Tty: boolean } }>({ path: `${at(name)}/json` });
  const body = await engine.open({
    path: `${at(name)}/logs`,
    query: {
      stdout: true,
      stderr: true,
      follow: flags.on('follow') || undefined,
      timestamps: flags.on('timestamps') || undefined,
      details: flags.on('details') || undefined,
      since: timeOf(flags.text('since'), io.now()),
      until: timeOf(flags.text('until'), io.now()),
      tail: flags.text('tail'),
    },
  });
  await copyFrames(body, !Config.Tty, io);
  return 0;
};

export const topCommand: Command = async ({ args, io, engine }) => {
  const [name = '', ...ps] = args;
  const query = { ps_args: ps.length === 0 ? undefined : ps.join(' ') };
  const { Titles, Processes } = await engine.json<{ Titles: string[]; Processes: string[][] }>({
    path: `${at(name)}/top`,
    query,
  });
  io.stdout.write(
    alignColumns(
      [Titles, ...Processes].map((row) => row.join('\t')),
      20, // as docker has it here
    ),
  );
  return 0;
};

export const portCommand: Command = async ({ args, io, engine }) => {
  const [name = '', wanted] = args;
  const { NetworkSettings } = await engine.json<{
    NetworkSettings: { Ports: Record<string, { HostIp: string; HostPort: string }[] | null> };
  }>({
    path: `${at(name)}/json`,
  });
  const ports = NetworkSettings.Ports ?? {};
  const host = ({ HostIp, HostPort }: { HostIp: string; HostPort: string }): string =>
    `${HostIp.includes(':') ? `[${HostIp}]` : HostIp}:${HostPort}`;
  if (wanted === undefined) {
    for (const [port, bound] of Object.entries(ports).sort())
      for (const b of bound ?? []) io.stdout.write(`${port} -> ${host(b)}\n`);
    return 0;
  }
  const bound = ports[wanted.includes('/') ? wanted : `${wanted}/tcp`];
  if (!bound || bound.length === 0)
    throw new ExitWith({ code: 1, says: `no public port '${wanted}' published for ${name}` });
  for (const b of bound) io.stdout.write(`${host(b)}\n`);
  return 0;
};

export const diffCommand: Command = async ({ args, io, engine }) => {
  const changes = await engine.json<{ Kind: number; Path: string }[] | null>({ path: `${at(args[0] ?? '')}/changes` });
  for (const { Kind, Path } of changes ?? []) io.stdout.write(`${['C', 'A', 'D'][Kind] ?? '?'} ${Path}\n`);
  return 0;
};

export const commitCommand: Command = async ({ flags, args, io, engine }) => {
  const [container = '', reference = ''] = args;
  const { splitImage } = await import('#cli/commands/pull.ts');
  const { name, tag } = splitImage(reference);
  const query = {
    container,
    repo: name || undefined,
    tag: tag || undefined,
    comment: flags.text('message'),
    author: flags.text('author'),
    pause: flags.has('pause') ? flags.on('pause') : true,
    changes: flags.list('change').length === 0 ? undefined : flags.list('change').join('\n'),
  };
  const { Id } = await engine.json<{ Id: string }>({ method: 'POST', path: '/commit', query, json: {} });
  io.stdout.write(`${Id}\n`);
  return 0;
};

interface Stats {
  name: string;
  id: string;
  cpu_stats: CpuStats;
  precpu_stats: CpuStats;
  memory_stats: { usage?: number; limit?: number; stats?: Record<string, number> };
  networks?: Record<string, { rx_bytes: number; tx_bytes: number }>;
  blkio_stats: { io_service_bytes_recursive?: { op: string; value: number }[] | null };
  pids_stats: { current?: number };
}
interface CpuStats {
  cpu_usage?: { total_usage?: number; percpu_usage?: number[] };
  system_cpu_usage?: number;
  online_cpus?: number;
}

export const statsCommand: Command = async ({ flags, args, io, engine }) => {
  const names =
    args.length > 0
      ? [...args]
      : (await engine.json<Summary[]>({ path: '/containers/json', query: { all: flags.on('all') || undefined } })).map(
          (c) => c.Id,
        );
  if (flags.on('no-stream')) {
    const rows = await Promise.all(
      names.map((n) => engine.json<Stats>({ path: `${at(n)}/stats`, query: { stream: false } })),
    );
    printStats(rows, flags, io);
    return 0;
  }
  await streamStats(engine, names, flags, io);
  return 0;
};

/** Each container tells its own; the table is written anew whenever one has. */
async function streamStats(engine: EngineClient, names: readonly string[], flags: Flags, io: Io): Promise<void> {
  const latest = new Map<string, Stats>();
  const clear = io.stdout.isTTY ? '\x1b[H\x1b[2J' : '';
  await Promise.all(
    names.map(async (name) => {
      for await (const stats of engine.lines<Stats>({ path: `${at(name)}/stats`, query: { stream: true } })) {
        latest.set(name, stats);
        if (latest.size < names.length) continue;
        io.stdout.write(clear);
        printStats([...latest.values()], flags, io);
      }
    }),
  );
}

function printStats(rows: readonly Stats[], flags: Flags, io: Io): void {
  const whole = flags.on('no-trunc');
  const name = (s: Stats): string => s.name.replace(/^\//, '');
  const columns = [
    { name: 'ID', head: 'CONTAINER ID', value: (s: Stats) => (whole ? s.id : shortId(s.id)) },
    { name: 'Container', head: 'CONTAINER', value: (s: Stats) => (whole ? s.id : shortId(s.id)) },
    { name: 'Name', head: 'NAME', value: name },
    { name: 'CPUPerc', head: 'CPU %', value: (s: Stats) => `${cpuPercent(s).toFixed(2)}%` },
    {
      name: 'MemUsage',
      head: 'MEM USAGE / LIMIT',
      value: (s: Stats) => `${binaryBytes(memoryOf(s))} / ${binaryBytes(s.memory_stats.limit ?? 0)}`,
    },
    {
      name: 'MemPerc',
      head: 'MEM %',
      value: (s: Stats) => `${((memoryOf(s) / (s.memory_stats.limit || 1)) * 100).toFixed(2)}%`,
    },
    { name: 'NetIO', head: 'NET I/O', value: netText },
    { name: 'BlockIO', head: 'BLOCK I/O', value: blockText },
    { name: 'PIDs', head: 'PIDS', value: (s: Stats) => s.pids_stats.current ?? 0 },
  ];
  printList(io, flags, rows, {
    columns,
    shown: ['ID', 'Name', 'CPUPerc', 'MemUsage', 'MemPerc', 'NetIO', 'BlockIO', 'PIDs'],
    quiet: name,
  });
}

function cpuPercent({ cpu_stats: now, precpu_stats: before }: Stats): number {
  const used = (now.cpu_usage?.total_usage ?? 0) - (before.cpu_usage?.total_usage ?? 0);
  const passed = (now.system_cpu_usage ?? 0) - (before.system_cpu_usage ?? 0);
  const cpus = now.online_cpus ?? now.cpu_usage?.percpu_usage?.length ?? 1;
  return used > 0 && passed > 0 ? (used / passed) * cpus * 100 : 0;
}

/** Without the page cache that the kernel takes back at once, as docker counts. */
function memoryOf({ memory_stats: { usage = 0, stats = {} } }: Stats): number {
  const cache = stats['total_inactive_file'] ?? stats['inactive_file'] ?? 0;
  return cache < usage ? usage - cache : usage;
}

function netText({ networks = {} }: Stats): string {
  const sum = (key: 'rx_bytes' | 'tx_bytes'): number => Object.values(networks).reduce((n, x) => n + x[key], 0);
  return `${bytes(sum('rx_bytes'), 3)} / ${bytes(sum('tx_bytes'), 3)}`;
}

function blockText({ blkio_stats }: Stats): string {
  const sum = (op: string): number =>
    (blkio_stats.io_service_bytes_recursive ?? [])
      .filter((e) => e.op.toLowerCase() === op)
      .reduce((n, e) => n + e.value, 0);
  return `${bytes(sum('read'), 3)} / ${bytes(sum('write'), 3)}`;
}

export const pruneCommand: Command = async ({ flags, io, engine }) => {
  const { confirmed } = await import('#cli/confirm.ts');
  if (!(await confirmed(flags, io, 'WARNING! This will remove all stopped containers.'))) return 0;
  const { ContainersDeleted, SpaceReclaimed } = await engine.json<{
    ContainersDeleted: string[] | null;
    SpaceReclaimed: number;
  }>({
    method: 'POST',
    path: '/containers/prune',
    query: { filters: filtersOf(flags) },
  });
  if (ContainersDeleted && ContainersDeleted.length > 0)
    io.stdout.write(`Deleted Containers:\n${ContainersDeleted.join('\n')}\n\n`);
  io.stdout.write(`Total reclaimed space: ${bytes(SpaceReclaimed)}\n`);
  return 0;
};
