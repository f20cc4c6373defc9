import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Engine } from '#engine/core/engine.ts';
import type { NodeEvent } from '#engine/core/events.ts';
import { type ContainerRecord, isRunning, type PortRecord } from '#engine/core/record.ts';
import { hostUse, sample, type Use } from '#engine/core/stats.ts';
import type { Feed, Tables } from '#web/hub.ts';
import type { ContainerRow, EventRow, Figure, Figures, Phase } from '#web/wire.ts';

/** What the daemon itself knows: its machine, its containers and what happens to them. */
export function nodeFeed(engine: Engine, clock: Clock, facts: { version: string; cluster: boolean }): Feed {
  return {
    async start(tables) {
      const { system } = engine;
      tables.put('machine', {
        key: system.id,
        hostname: system.hostname,
        version: facts.version,
        kernel: system.kernelRelease,
        cpus: system.cpus,
        memoryBytes: system.memoryBytes,
        cluster: facts.cluster,
      });
      const list = (): void => tables.replace('containers', engine.containers.list().map(containerRow));
      list();
      const past = engine.events.since(0n, BigInt(Number.MAX_SAFE_INTEGER) * 1_000_000n);
      for (const event of past) putEvent(tables, event);
      let cancelList: (() => void) | undefined;
      const unsubscribe = engine.events.subscribe((event) => {
        putEvent(tables, event);
        // The record may be written after the event is told: a look a moment later sees both.
        cancelList ??= clock.after(LIST_AFTER_MS, () => {
          cancelList = undefined;
          list();
        });
      });
      return () => {
        unsubscribe();
        cancelList?.();
      };
    },
  };
}

const LIST_AFTER_MS = 100;

/** What everything that runs uses now, in the kernel's own counters. */
export function figuresOf(engine: Engine, clock: Clock): Figures {
  const host = hostUse(engine.stats.files);
  const running = engine.containers
    .list()
    .filter((record) => isRunning(record.state) && record.state.phase !== 'starting');
  return {
    atMs: clock.now(),
    machine: { cpuNs: host.cpuNs - host.idleNs, memoryBytes: host.memoryBytes - host.availableBytes },
    containers: Object.fromEntries(
      running.flatMap((record) => {
        const figure = figureOf(engine, record.id);
        return figure ? [[record.id, figure]] : [];
      }),
    ),
  };
}

function figureOf(engine: Engine, id: string): Figure | undefined {
  const use = useOf(engine, id);
  if (!use) return undefined;
  const { cpu, memory, pids } = use.cgroup;
  // What runs has used time. Its cgroups went between the list and this look: their counters would draw a fall to zero.
  if (cpu?.usageNs === 0) return undefined;
  const links = Object.values(use.networks ?? {});
  return {
    cpuNs: cpu?.usageNs ?? 0,
    // What the kernel could take back at once is not use: as `docker stats` has it.
    memoryBytes: Math.max(0, (memory?.usageBytes ?? 0) - (memory?.inactiveFileBytes ?? 0)),
    ...(memory?.limitBytes === undefined ? {} : { memoryLimitBytes: memory.limitBytes }),
    rxBytes: links.reduce((sum, link) => sum + link.rxBytes, 0),
    txBytes: links.reduce((sum, link) => sum + link.txBytes, 0),
    processes: pids?.current ?? 0,
  };
}

/** A container that ends now has a record that runs and a process that does not: it uses nothing. */
function useOf(engine: Engine, id: string): Use | undefined {
  try {
    return sample(engine.stats, id).use;
  } catch (error) {
    if (isCode(error, 'WRONG_PHASE', 'NO_SUCH_CONTAINER')) return undefined;
    throw error;
  }
}

const COMPOSE_PROJECT = 'com.docker.compose.project';
const APP = 'estiba.dev/app';
const POD = {
  namespace: 'io.kubernetes.pod.namespace',
  name: 'io.kubernetes.pod.name',
  container: 'io.kubernetes.container.name',
};

/** Pure. */
export function containerRow(record: ContainerRecord): ContainerRow {
  const { state, process } = record;
  const { labels } = process;
  const app = labels[APP] ?? labels[COMPOSE_PROJECT];
  const pod = labels[POD.name];
  return {
    key: record.id,
    name: record.name,
    image: record.image.reference,
    phase: phaseOf(record),
    ...(state.health && isRunning(state) ? { health: state.health.status } : {}),
    command: process.argv.join(' '),
    createdAtMs: record.createdAtMs,
    startedAtMs: state.startedAtMs,
    finishedAtMs: state.finishedAtMs,
    exitCode: state.exitCode,
    oomKilled: state.oomKilled,
    error: state.error,
    restarts: state.restartCount,
    ports: record.ports.flatMap(portText),
    networks: Object.entries(record.endpoints).map(([name, e]) => `${name} ${e.ipv4 ?? e.ipv6 ?? ''}`.trim()),
    mounts: record.mounts.map((mount) => ({
      target: mount.target,
      source: mount.type === 'tmpfs' ? 'memory' : (mount.name ?? mount.source),
      readOnly: mount.readonly,
    })),
    labels,
    ...(app === undefined ? {} : { app }),
    ...(pod === undefined
      ? {}
      : { pod: { name: pod, namespace: labels[POD.namespace] ?? '', container: labels[POD.container] ?? '' } }),
  };
}

function phaseOf({ state }: ContainerRecord): Phase {
  if (state.phase === 'creating') return 'created';
  if (state.phase === 'starting') return 'running';
  return state.phase === 'exited' && state.finishedAtMs === 0 ? 'created' : state.phase;
}

function portText({ containerPort, protocol, hostIp, hostPort }: PortRecord): string[] {
  if (hostPort === undefined) return [];
  const host = hostIp?.includes(':') ? `[${hostIp}]` : (hostIp ?? '');
  return [`${host}:${hostPort} → ${containerPort}/${protocol}`];
}

/** Health checks and terminals: there is one every few seconds, and it says nothing. */
const NOISE = /^exec_/;

function putEvent(tables: Tables, event: NodeEvent): void {
  if (!NOISE.test(event.action)) tables.put('events', eventRow(event));
}

/** Pure. */
export function eventRow(event: NodeEvent): EventRow {
  const { attributes } = event;
  const failed = event.action === 'die' && (attributes['exitCode'] ?? '0') !== '0';
  const pod = attributes[POD.name];
  return {
    key: `${event.atNs}-${event.id.slice(0, 12)}-${event.action}`,
    atMs: Number(event.atNs / 1_000_000n),
    from: 'engine',
    warning: failed || event.action === 'oom' || event.action.endsWith('unhealthy'),
    kind: event.type,
    name: attributes[POD.container] ?? attributes['name'] ?? event.id.replace(/^sha256:/, '').slice(0, 12),
    action: event.action,
    text: [
      ...(event.action === 'die' ? [`exit code ${attributes['exitCode'] ?? '?'}`] : []),
      ...(attributes['signal'] === undefined ? [] : [`signal ${attributes['signal']}`]),
      ...(event.type === 'container' && attributes['image'] !== undefined ? [attributes['image']] : []),
      ...(pod === undefined ? [] : [`pod ${attributes[POD.namespace]}/${pod}`]),
    ].join(' · '),
    count: 1,
    ...(event.type === 'container' ? { container: event.id } : {}),
  };
}
