import { fail } from '#base/shape.ts';
import { endpointSettings, mountPoint, statusOf } from '#engine/api/docker/inspect.ts';
import { humanDuration } from '#engine/api/docker/time.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import { type Filters, labelMatches } from '#spec/docker/filters.ts';
import type { ContainerSummary, PortSummary } from '#spec/docker/types.gen.ts';

/** One line of `docker ps`. Pure. */
export function containerSummary(
  record: ContainerRecord,
  nowMs: number,
  /** What other containers' links call it. */
  linked: readonly string[] = [],
): ContainerSummary {
  const running = isRunning(record.state);
  return {
    Id: record.id,
    Names: [...linked, `/${record.name}`],
    Image: record.image.reference,
    ImageID: record.image.id,
    Command: record.process.argv.join(' '),
    Created: Math.floor(record.createdAtMs / 1000),
    Ports: portSummaries(record),
    Labels: record.process.labels,
    State: statusOf(record.state.phase),
    Status: statusText(record, nowMs),
    HostConfig: { NetworkMode: networkMode(record) },
    NetworkSettings: {
      Networks: Object.fromEntries(
        Object.entries(record.endpoints).map(([name, e]) => [name, endpointSettings(e, running)]),
      ),
    },
    Mounts: record.mounts.map(mountPoint),
  };
}

function networkMode({ spec }: ContainerRecord): string {
  const { network } = spec.namespaces;
  if (network.kind === 'host') return 'host';
  return network.kind === 'private' ? (spec.network.endpoints[0]?.network ?? 'none') : `container:${network.id}`;
}

function portSummaries(record: ContainerRecord): PortSummary[] {
  if (!isRunning(record.state)) return [];
  return record.ports.map((port) => ({
    ...(port.hostIp === undefined ? {} : { IP: port.hostIp }),
    PrivatePort: port.containerPort,
    ...(port.hostPort === undefined ? {} : { PublicPort: port.hostPort }),
    Type: port.protocol,
  }));
}

/** `Up 3 minutes (healthy)`, `Exited (1) 2 hours ago`. */
export function statusText({ state }: ContainerRecord, nowMs: number): string {
  const health = state.health
    ? ` (${state.health.status === 'starting' ? 'health: starting' : state.health.status})`
    : '';
  switch (state.phase) {
    case 'running':
    case 'starting':
      return `Up ${humanDuration(nowMs - state.startedAtMs)}${health}`;
    case 'paused':
      return `Up ${humanDuration(nowMs - state.startedAtMs)} (Paused)`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${humanDuration(nowMs - state.finishedAtMs)} ago`;
    case 'removing':
      return 'Removal In Progress';
    case 'dead':
      return 'Dead';
    case 'creating':
    case 'created':
      return 'Created';
    case 'exited':
      return state.finishedAtMs === 0
        ? 'Created'
        : `Exited (${state.exitCode}) ${humanDuration(nowMs - state.finishedAtMs)} ago`;
  }
}

const HEALTH = ['starting', 'healthy', 'unhealthy', 'none'];
const STATUSES = ['created', 'restarting', 'running', 'removing', 'paused', 'exited', 'dead'];

export interface ListWish {
  all: boolean;
  limit: number;
  filters: Filters;
  /** Image ids that a name stands for, with those built on it, for `ancestor`. */
  ancestors: (image: string) => ReadonlySet<string>;
  nowMs: number;
}

/** Which containers `docker ps` shows, youngest first. */
export function selectContainers(records: readonly ContainerRecord[], wish: ListWish): ContainerRecord[] {
  const { filters } = wish;
  filters.allow(
    'ancestor',
    'before',
    'exited',
    'expose',
    'health',
    'id',
    'is-task',
    'isolation',
    'label',
    'name',
    'network',
    'publish',
    'since',
    'status',
    'volume',
  );
  for (const status of filters.get('status'))
    if (!STATUSES.includes(status)) fail('filters.status', status, `is none of ${STATUSES.join(', ')}`);
  for (const health of filters.get('health'))
    if (!HEALTH.includes(health)) fail('filters.health', health, `is none of ${HEALTH.join(', ')}`);
  filters.flag('is-task');
  for (const code of filters.get('exited')) if (!/^\d+$/.test(code)) fail('filters.exited', code, 'is no exit code');
  const sorted = [...records].sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1));
  const named = (name: string): ContainerRecord =>
    sorted.find((r) => r.name === name.replace(/^\//, '') || r.id.startsWith(name)) ??
    fail('filters', name, 'is no container: No such container');
  const before = filters.get('before')[0];
  const since = filters.get('since')[0];
  const beforeMs = before === undefined ? Number.POSITIVE_INFINITY : named(before).createdAtMs;
  const sinceMs = since === undefined ? Number.NEGATIVE_INFINITY : named(since).createdAtMs;
  const asksForStopped =
    filters.has('status') || filters.has('exited') || wish.limit > 0 || before !== undefined || since !== undefined;
  const shown = sorted.filter(
    (r) =>
      (wish.all || asksForStopped || isRunning(r.state) || r.state.phase === 'restarting') &&
      r.createdAtMs < beforeMs &&
      r.createdAtMs > sinceMs &&
      matches(r, wish),
  );
  return wish.limit > 0 ? shown.slice(0, wish.limit) : shown;
}

function matches(r: ContainerRecord, { filters, ancestors }: ListWish): boolean {
  const { state } = r;
  return (
    filters.any('id', (id) => r.id.startsWith(id)) &&
    filters.any('name', (name) => nameMatches(r.name, name)) &&
    filters.every('label', (label) => labelMatches(r.process.labels, label)) &&
    filters.any('status', (status) => statusOf(state.phase) === status) &&
    filters.any(
      'exited',
      (code) => state.phase === 'exited' && state.finishedAtMs > 0 && state.exitCode === Number(code),
    ) &&
    filters.any('health', (health) => (state.health?.status ?? 'none') === health) &&
    filters.any('ancestor', (image) => ancestors(image).has(r.image.id)) &&
    filters.any('network', (net) =>
      Object.entries(r.endpoints).some(([name, e]) => name === net || e.networkId.startsWith(net)),
    ) &&
    filters.any('volume', (volume) => r.mounts.some((m) => m.name === volume || m.target === volume)) &&
    filters.any('publish', (port) =>
      r.ports.some((p) => p.hostPort !== undefined && portIs(p.hostPort, p.protocol, port)),
    ) &&
    filters.any('expose', (port) => r.ports.some((p) => portIs(p.containerPort, p.protocol, port))) &&
    filters.flag('is-task') !== true
  );
}

/** Docker's name filter is a regular expression, searched for in the name with and without its slash. */
function nameMatches(name: string, wish: string): boolean {
  try {
    const pattern = new RegExp(wish);
    return pattern.test(name) || pattern.test(`/${name}`);
  } catch {
    return name.includes(wish); // no regular expression: taken literally
  }
}

function portIs(port: number, protocol: string, wish: string): boolean {
  const [range = '', wantedProtocol = 'tcp'] = wish.split('/');
  const [first, last] = range.split('-').map(Number);
  return protocol === wantedProtocol && port >= (first ?? 0) && port <= (last ?? first ?? 0);
}
