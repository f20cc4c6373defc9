import { createInterface } from 'node:readline/promises';
import { confirmed } from '#cli/confirm.ts';
import { CliUsage, ExitWith } from '#cli/errors.ts';
import { filtersOf } from '#cli/filters.ts';
import { ago, alignColumns, binaryBytes, bytes, printInspected, printList, shortId } from '#cli/output.ts';
import { authHeader, dropCredentials, registryKey, saveCredentials } from '#cli/registry-auth.ts';
import { compileTemplate } from '#cli/template/evaluate.ts';
import { timeOf } from '#cli/time.ts';
import type { Command, Io } from '#cli/verb.ts';

interface Info {
  [key: string]: unknown;
}

export const infoCommand: Command = async ({ flags, io, engine }) => {
  const info = await engine.json<Info>({ path: '/info' });
  const format = flags.text('format') ?? (flags.on('json') ? 'json' : undefined);
  if (format === 'json') io.stdout.write(`${JSON.stringify(info)}\n`);
  else if (format !== undefined) io.stdout.write(`${compileTemplate(format)(info)}\n`);
  else io.stdout.write(renderInfo(info));
  return 0;
};

/** The lines people look at, in docker's words. */
function renderInfo(info: Info): string {
  const of = (key: string): string => String(info[key] ?? '');
  const lines = [
    'Server:',
    ` Containers: ${of('Containers')}`,
    `  Running: ${of('ContainersRunning')}`,
    `  Paused: ${of('ContainersPaused')}`,
    `  Stopped: ${of('ContainersStopped')}`,
    ` Images: ${of('Images')}`,
    ` Server Version: ${of('ServerVersion')}`,
    ` Storage Driver: ${of('Driver')}`,
    ...((info['DriverStatus'] as [string, string][] | null) ?? []).map(([k, v]) => `  ${k}: ${v}`),
    ` Logging Driver: ${of('LoggingDriver')}`,
    ` Cgroup Driver: ${of('CgroupDriver')}`,
    ` Cgroup Version: ${of('CgroupVersion')}`,
    ` Runtimes: ${Object.keys((info['Runtimes'] as object | null) ?? {}).join(' ')}`,
    ` Default Runtime: ${of('DefaultRuntime')}`,
    ' Security Options:',
    ...((info['SecurityOptions'] as string[] | null) ?? []).map((o) => `  ${o.replace(/^name=/, '')}`),
    ` Kernel Version: ${of('KernelVersion')}`,
    ` Operating System: ${of('OperatingSystem')}`,
    ` OSType: ${of('OSType')}`,
    ` Architecture: ${of('Architecture')}`,
    ` CPUs: ${of('NCPU')}`,
    ` Total Memory: ${binaryBytes(Number(info['MemTotal'] ?? 0))}`,
    ` Name: ${of('Name')}`,
    ` ID: ${of('ID')}`,
    ` Docker Root Dir: ${of('DockerRootDir')}`,
    ` Debug Mode: ${of('Debug')}`,
    ...((info['Warnings'] as string[] | null) ?? []),
  ];
  return `${lines.join('\n')}\n`;
}

export const versionCommand: Command = async ({ flags, io, engine }) => {
  const Client = {
    Version: io.version.version,
    GitCommit: io.version.commit,
    NodeVersion: process.version,
    Os: process.platform,
    Arch: process.arch,
  };
  const format = flags.text('format') ?? (flags.on('json') ? 'json' : undefined);
  let Server: Info | null = null;
  let problem: unknown;
  try {
    Server = await engine.json<Info>({ path: '/version' });
  } catch (error) {
    problem = error; // the client's own version is an answer without a daemon, too
  }
  if (format === 'json') io.stdout.write(`${JSON.stringify({ Client, Server })}\n`);
  else if (format !== undefined) io.stdout.write(`${compileTemplate(format)({ Client, Server })}\n`);
  else {
    const rows = (title: string, of: Info): string =>
      `${title}:\n${alignColumns(
        Object.entries(of)
          .filter(([, v]) => typeof v === 'string')
          .map(([k, v]) => ` ${k}:\t${String(v)}`),
      )}`;
    io.stdout.write(rows('Client', Client));
    if (Server) io.stdout.write(`\n${rows('Server', Server)}`);
  }
  if (problem) throw problem;
  return 0;
};

interface Event {
  Type: string;
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  time: number;
  timeNano: number;
}

export const eventsCommand: Command = async ({ flags, io, engine }) => {
  const format = flags.text('format') ?? (flags.on('json') ? 'json' : undefined);
  const print = format === undefined || format === 'json' ? undefined : compileTemplate(format);
  const lines = engine.lines<Event>({
    path: '/events',
    query: {
      since: timeOf(flags.text('since'), io.now()),
      until: timeOf(flags.text('until'), io.now()),
      filters: filtersOf(flags),
    },
  });
  for await (const event of lines) {
    if (print) io.stdout.write(`${print(event)}\n`);
    else io.stdout.write(format === 'json' ? `${JSON.stringify(event)}\n` : `${eventText(event)}\n`);
  }
  return 0;
};

function eventText({ Type, Action, Actor, timeNano }: Event): string {
  const ms = Math.floor(timeNano / 1e6);
  const nanos = String(timeNano % 1e9).padStart(9, '0');
  const stamp = `${new Date(ms).toISOString().slice(0, 19)}.${nanos}Z`;
  const attributes = Object.entries(Actor.Attributes ?? {})
    .sort()
    .map(([k, v]) => `${k}=${v}`)
    .join(', ');
  return `${stamp} ${Type} ${Action} ${Actor.ID}${attributes === '' ? '' : ` (${attributes})`}`;
}

interface DiskUsage {
  Images: { Size: number; SharedSize: number; Containers: number }[] | null;
  Containers: { Id: string; SizeRw?: number; State: string }[] | null;
  Volumes: { Name: string; UsageData?: { Size: number; RefCount: number } }[] | null;
  BuildCache: { Size: number; InUse: boolean; Shared: boolean }[] | null;
  LayersSize?: number;
}

export const diskUsageCommand: Command = async ({ flags, io, engine }) => {
  const usage = await engine.json<DiskUsage>({ path: '/system/df' });
  const [images, containers, volumes, cache] = [
    usage.Images ?? [],
    usage.Containers ?? [],
    usage.Volumes ?? [],
    usage.BuildCache ?? [],
  ];
  const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + Math.max(0, b), 0);
  const size = (v: (typeof volumes)[number]): number => v.UsageData?.Size ?? 0;
  const row = (type: string, count: number, active: number, total: number, free: number): DiskRow => ({
    type,
    count,
    active,
    total,
    free,
  });
  const unused = images.filter((i) => i.Containers === 0);
  const stopped = containers.filter((c) => c.State !== 'running');
  const imagesTotal = usage.LayersSize ?? sum(images.map((i) => i.Size));
  const rows = [
    row(
      'Images',
      images.length,
      images.length - unused.length,
      imagesTotal,
      Math.min(imagesTotal, sum(unused.map((i) => i.Size - Math.max(0, i.SharedSize)))),
    ),
    row(
      'Containers',
      containers.length,
      containers.length - stopped.length,
      sum(containers.map((c) => c.SizeRw ?? 0)),
      sum(stopped.map((c) => c.SizeRw ?? 0)),
    ),
    row(
      'Local Volumes',
      volumes.length,
      volumes.filter((v) => (v.UsageData?.RefCount ?? 0) > 0).length,
      sum(volumes.map(size)),
      sum(volumes.filter((v) => v.UsageData?.RefCount === 0).map(size)),
    ),
    row(
      'Build Cache',
      cache.length,
      cache.filter((c) => c.InUse).length,
      sum(cache.map((c) => c.Size)),
      sum(cache.filter((c) => !c.InUse).map((c) => c.Size)),
    ),
  ];
  const percent = (r: DiskRow): string => (r.total > 0 ? ` (${Math.floor((r.free / r.total) * 100)}%)` : '');
  const columns = [
    { name: 'Type', head: 'TYPE', value: (r: DiskRow) => r.type },
    { name: 'TotalCount', head: 'TOTAL', value: (r: DiskRow) => r.count },
    { name: 'Active', head: 'ACTIVE', value: (r: DiskRow) => r.active },
    { name: 'Size', head: 'SIZE', value: (r: DiskRow) => bytes(r.total) },
    { name: 'Reclaimable', head: 'RECLAIMABLE', value: (r: DiskRow) => `${bytes(r.free)}${percent(r)}` },
  ];
  printList(io, flags, rows, { columns, shown: columns.map((c) => c.name), quiet: (r) => r.type });
  return 0;
};

interface DiskRow {
  type: string;
  count: number;
  active: number;
  total: number;
  free: number;
}

export const systemPruneCommand: Command = async ({ flags, io, engine }) => {
  const all = flags.on('all');
  const what = [
    '- all stopped containers',
    '- all networks not used by at least one container',
    ...(flags.on('volumes') ? ['- all anonymous volumes not used by at least one container'] : []),
    all ? '- all images without at least one container associated to them' : '- all dangling images',
    '- unused build cache',
  ];
  if (!(await confirmed(flags, io, `WARNING! This will remove:\n  ${what.join('\n  ')}\n`))) return 0;
  const filters = filtersOf(flags);
  const steps: [path: string, title: string, key: string, filters: string | undefined][] = [
    ['/containers/prune', 'Deleted Containers', 'ContainersDeleted', filters],
    ['/networks/prune', 'Deleted Networks', 'NetworksDeleted', filters],
    ...(flags.on('volumes')
      ? [
          ['/volumes/prune', 'Deleted Volumes', 'VolumesDeleted', filters] as [
            string,
            string,
            string,
            string | undefined,
          ],
        ]
      : []),
    ['/images/prune', 'Deleted Images', 'ImagesDeleted', filtersOf(flags, { dangling: [String(!all)] })],
    ['/build/prune', 'Deleted build cache objects', 'CachesDeleted', filters],
  ];
  let reclaimed = 0;
  for (const [path, title, key, wanted] of steps) {
    const answer = await engine.json<Record<string, unknown>>({ method: 'POST', path, query: { filters: wanted } });
    reclaimed += Number(answer['SpaceReclaimed'] ?? 0);
    const gone = (answer[key] as (string | { Untagged?: string; Deleted?: string })[] | null) ?? [];
    if (gone.length === 0) continue;
    const textOf = (g: (typeof gone)[number]): string =>
      typeof g === 'string' ? g : g.Untagged ? `untagged: ${g.Untagged}` : `deleted: ${g.Deleted}`;
    io.stdout.write(`${title}:\n${gone.map(textOf).join('\n')}\n\n`);
  }
  io.stdout.write(`Total reclaimed space: ${bytes(reclaimed)}\n`);
  return 0;
};

export const loginCommand: Command = async ({ flags, args, io, engine }) => {
  const registry = registryKey(args[0]);
  const username = flags.text('username') ?? (await ask(io, 'Username: ', false));
  const password = await passwordOf(flags.text('password'), flags.on('password-stdin'), io);
  const { Status, IdentityToken } = await engine.json<{ Status: string; IdentityToken?: string }>({
    method: 'POST',
    path: '/auth',
    json: { username, password, serveraddress: registry },
  });
  const path = saveCredentials(io, registry, {
    username,
    password,
    ...(IdentityToken ? { identitytoken: IdentityToken } : {}),
  });
  if (path !== undefined) io.stderr.write(`WARNING! Your credentials are stored unencrypted in '${path}'.\n`);
  io.stdout.write(`${Status || 'Login Succeeded'}\n`);
  return 0;
};

async function passwordOf(given: string | undefined, fromStdin: boolean, io: Io): Promise<string> {
  if (given !== undefined && fromStdin)
    throw new CliUsage({ why: '--password and --password-stdin are mutually exclusive' });
  if (given !== undefined) {
    io.stderr.write('WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n');
    return given;
  }
  if (!fromStdin) return ask(io, 'Password: ', true);
  let text = '';
  for await (const chunk of io.stdin) text += String(chunk);
  return text.replace(/\r?\n$/, '');
}

async function ask(io: Io, question: string, hidden: boolean): Promise<string> {
  if (!io.stdin.isTTY)
    throw new CliUsage({
      why: 'cannot perform an interactive login from a non TTY device: use --username and --password-stdin',
    });
  const lines = createInterface({ input: io.stdin, ...(hidden ? {} : { output: io.stderr }), terminal: true });
  if (hidden) io.stderr.write(question);
  try {
    return await lines.question(hidden ? '' : question);
  } finally {
    lines.close();
    if (hidden) io.stderr.write('\n');
  }
}

export const logoutCommand: Command = async ({ args, io }) => {
  const registry = registryKey(args[0]);
  const known = dropCredentials(io, registry);
  io.stdout.write(known ? `Removing login credentials for ${registry}\n` : `Not logged in to ${registry}\n`);
  return 0;
};

export const distributionCommand: Command = async ({ flags, args, io, engine }) => {
  const [image = ''] = args;
  const { registryOf } = await import('#cli/registry-auth.ts');
  printInspected(io, flags, [
    await engine.json({ path: `/distribution/${image}/json`, headers: authHeader(io, registryOf(image)) }),
  ]);
  return 0;
};

interface Cache {
  ID: string;
  Type: string;
  Size: number;
  InUse: boolean;
  Shared: boolean;
  CreatedAt: string;
}

export const builderPruneCommand: Command = async ({ flags, io, engine }) => {
  if (!(await confirmed(flags, io, `WARNING! This will remove all ${flags.on('all') ? '' : 'dangling '}build cache.`)))
    return 0;
  const { CachesDeleted, SpaceReclaimed } = await engine.json<{
    CachesDeleted: string[] | null;
    SpaceReclaimed: number;
  }>({
    method: 'POST',
    path: '/build/prune',
    query: { all: flags.on('all') || undefined, filters: filtersOf(flags) },
  });
  if (CachesDeleted && CachesDeleted.length > 0)
    io.stdout.write(`Deleted build cache objects:\n${CachesDeleted.join('\n')}\n\n`);
  io.stdout.write(`Total reclaimed space: ${bytes(SpaceReclaimed)}\n`);
  return 0;
};

export const builderListCommand: Command = async ({ flags, io, engine }) => {
  const { BuildCache } = await engine.json<{ BuildCache: Cache[] | null }>({
    path: '/system/df',
    query: { type: 'build-cache' },
  });
  const columns = [
    { name: 'ID', head: 'CACHE ID', value: (c: Cache) => shortId(c.ID) },
    { name: 'CacheType', head: 'CACHE TYPE', value: (c: Cache) => c.Type },
    { name: 'Size', head: 'SIZE', value: (c: Cache) => bytes(c.Size) },
    { name: 'CreatedSince', head: 'CREATED', value: (c: Cache) => ago(io.now() - Date.parse(c.CreatedAt)) },
    { name: 'InUse', head: 'IN USE', value: (c: Cache) => String(c.InUse) },
  ];
  printList(io, flags, BuildCache ?? [], { columns, shown: columns.map((c) => c.name), quiet: (c) => c.ID });
  return 0;
};

/** Swarm's groups of verbs: their objects are Kubernetes' here. */
export function notHere(what: string, instead: string): Command {
  return async () => {
    throw new ExitWith({ code: 1, says: `${what} is not there: ${instead}` });
  };
}
