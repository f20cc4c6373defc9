import { fail } from '#base/shape.ts';
import { parseDurationNs } from '#base/units.ts';
import { diskUsage } from '#engine/api/docker/disk-usage.ts';
import { textOf } from '#engine/api/docker/query.ts';
import { dockerTime, parseTime } from '#engine/api/docker/time.ts';
import { json, type Reply } from '#engine/api/reply.ts';
import type { ApiRequest, Handlers } from '#engine/api/server.ts';
import { compareVersions, MAX_API_VERSION, MIN_API_VERSION } from '#engine/api/version.ts';
import type { Engine } from '#engine/core/engine.ts';
import { type Events, eventMatches, type NodeEvent } from '#engine/core/events.ts';
import { isRunning } from '#engine/core/record.ts';
import { OUR_RUNTIME } from '#engine/core/runtimes.ts';
import { ownUsage, type SystemFacts } from '#engine/core/system.ts';
import { checkBody } from '#spec/docker/body.ts';
import { parseFilters } from '#spec/docker/filters.ts';
import type { SystemInfo, SystemVersion } from '#spec/docker/types.gen.ts';

/** What the node says of itself: `_ping`, version, info, events. */
export function systemHandlers(engine: Engine, now: () => number): Handlers {
  // Docker's clients choose the classic builder by this header; BuildKit's protocol is not spoken here.
  const ping = {
    'Builder-Version': '1',
    Swarm: 'inactive',
    'Cache-Control': 'no-cache, no-store, must-revalidate',
    Pragma: 'no-cache',
  };
  return {
    SystemPing: () => ({ kind: 'text', status: 200, body: 'OK', headers: ping }),
    SystemPingHead: () => ({ kind: 'empty', status: 200, headers: ping }),
    SystemVersion: () => json(versionOf(engine.system)),
    SystemInfo: async () => json(await infoOf(engine, now())),
    SystemDataUsage: async ({ query, version }) =>
      json(await diskUsage(engine, { types: query.getAll('type'), version, nowMs: now() })),
    SystemAuth: async (request) => {
      const { serveraddress, email: _, ...entry } = checkBody('SystemAuth', await request.json());
      const auth = Buffer.from(JSON.stringify(entry)).toString('base64url');
      await engine.images.login(registryOf(serveraddress ?? ''), auth);
      return json({ Status: 'Login Succeeded', IdentityToken: '' });
    },
    SystemEvents: (request) => eventsReply(engine.events, request, now),
  };
}

/** `https://index.docker.io/v1/` is how Docker's clients call docker.io; others are hosts, with or without a scheme. */
function registryOf(address: string): string {
  const host = address.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  return host === '' || host === 'index.docker.io' ? 'docker.io' : host;
}

function versionOf(facts: SystemFacts): SystemVersion {
  const details = {
    ApiVersion: MAX_API_VERSION,
    MinAPIVersion: MIN_API_VERSION,
    GitCommit: facts.commit,
    GoVersion: `none (Node.js ${process.versions.node})`,
    Os: 'linux',
    Arch: facts.architecture,
    KernelVersion: facts.kernelRelease,
  };
  return {
    Platform: { Name: 'Estiba' },
    Components: [{ Name: 'Engine', Version: facts.version, Details: { ...details, Experimental: 'false' } }],
    Version: facts.version,
    ...details,
    Experimental: false,
  };
}

async function infoOf(
  { containers, images, events, system, settings, runtimes }: Engine,
  nowMs: number,
): Promise<SystemInfo> {
  const states = containers.list().map((r) => r.state);
  const paused = states.filter((s) => s.phase === 'paused').length;
  const running = states.filter((s) => isRunning(s) || s.phase === 'restarting').length - paused;
  const { limits } = system;
  const { fileDescriptors, threads } = ownUsage();
  return {
    ID: system.id,
    Containers: states.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: states.length - running - paused,
    Images: (await images.store.list()).length,
    Driver: 'overlay2',
    DriverStatus: [
      ['Layers', 'EROFS images, mounted once and shared'],
      ['Upper directories', `${settings.dataRoot}/snapshots`],
    ],
    Plugins: {
      Volume: ['local'],
      Network: ['bridge', 'host', 'null'],
      Authorization: null,
      Log: ['json-file', 'local', 'none'],
    },
    MemoryLimit: limits.memory,
    SwapLimit: limits.swap,
    KernelMemoryTCP: false,
    CpuCfsPeriod: limits.cpu,
    CpuCfsQuota: limits.cpu,
    CPUShares: limits.cpu,
    CPUSet: limits.cpuset,
    PidsLimit: limits.pids,
    OomKillDisable: limits.oomKillDisable,
    IPv4Forwarding: system.ipv4Forwarding,
    BridgeNfIptables: false,
    BridgeNfIp6tables: false,
    Debug: (process.env['DEBUG'] ?? '') !== '',
    NFd: fileDescriptors,
    NGoroutines: threads,
    SystemTime: dockerTime(nowMs),
    LoggingDriver: 'json-file',
    CgroupDriver: 'cgroupfs',
    CgroupVersion: system.cgroupVersion,
    NEventsListener: events.listeners,
    KernelVersion: system.kernelRelease,
    OperatingSystem: system.operatingSystem,
    OSVersion: system.osVersion,
    OSType: 'linux',
    Architecture: system.machine,
    NCPU: system.cpus,
    MemTotal: system.memoryBytes,
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: {
      IndexConfigs: {
        'docker.io': { Name: 'docker.io', Mirrors: [...settings.registryMirrors], Secure: true, Official: true },
      },
      InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8', ...settings.insecureRegistries.filter((r) => r.includes('/'))],
      Mirrors: [...settings.registryMirrors],
    },
    GenericResources: null,
    HttpProxy: process.env['HTTP_PROXY'] ?? '',
    HttpsProxy: process.env['HTTPS_PROXY'] ?? '',
    NoProxy: process.env['NO_PROXY'] ?? '',
    Name: system.hostname,
    Labels: [],
    ExperimentalBuild: false,
    ServerVersion: system.version,
    DockerRootDir: settings.dataRoot,
    Runtimes: {
      [OUR_RUNTIME]: { path: 'estiba-init' },
      ...Object.fromEntries(
        runtimes
          .list()
          .map(({ name, path, args }) => [name, { path, ...(args.length > 0 ? { runtimeArgs: [...args] } : {}) }]),
      ),
    },
    DefaultRuntime: runtimes.fallback,
    Swarm: {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    },
    LiveRestoreEnabled: true,
    Isolation: '',
    InitBinary: 'estiba-init',
    ContainerdCommit: { ID: '' },
    RuncCommit: { ID: '' },
    InitCommit: { ID: system.commit },
    SecurityOptions: ['name=seccomp,profile=builtin', ...(system.cgroupVersion === '2' ? ['name=cgroupns'] : [])],
    Warnings: warningsOf(system),
  };
}

function warningsOf({ limits, ipv4Forwarding }: SystemFacts): string[] {
  return [
    ...(limits.memory ? [] : ['WARNING: No memory limit support']),
    ...(limits.swap ? [] : ['WARNING: No swap limit support']),
    ...(limits.cpu ? [] : ['WARNING: No cpu cfs quota support']),
    ...(limits.pids ? [] : ['WARNING: No pids limit support']),
    ...(ipv4Forwarding ? [] : ['WARNING: IPv4 forwarding is disabled']),
  ];
}

/** What was, since `since`; then what comes, until `until` or the client's leaving. A slow reader is cut off, not stored for. */
function eventsReply(events: Events, request: ApiRequest, now: () => number): Reply {
  const { query } = request;
  const filters = parseFilters(textOf(query, 'filters'));
  const at = (name: string): bigint | undefined => {
    const text = textOf(query, name);
    if (text === undefined) return undefined;
    const ms = parseTime(text, now(), parseDurationNs);
    return ms === undefined ? fail(`query ${name}`, text, 'is no time') : BigInt(Math.floor(ms * 1e6));
  };
  const [since, until] = [at('since'), at('until')];
  const nowNs = (): bigint => BigInt(Math.floor(now() * 1e6));
  eventMatches(filters, PROBE); // unknown filters are an error before the head is out
  return {
    kind: 'stream',
    status: 200,
    type: 'application/json',
    run: async (out, signal) => {
      const queue: NodeEvent[] = [];
      let wake: () => void = () => undefined;
      let overrun = false;
      const stop = events.subscribe((event) => {
        if (queue.length >= MOST_QUEUED) overrun = true;
        else queue.push(event);
        wake();
      });
      const timer =
        until === undefined
          ? undefined
          : setTimeout(() => wake(), Math.max(0, Number((until - nowNs()) / 1_000_000n)) + 1);
      signal.addEventListener('abort', () => wake(), { once: true });
      try {
        const past = since === undefined ? [] : events.since(since, until ?? nowNs());
        for (const event of past) await put(event);
        for (;;) {
          for (let next = queue.shift(); next; next = queue.shift()) {
            if (until !== undefined && next.atNs > until) return;
            await put(next);
          }
          if (signal.aborted || overrun || (until !== undefined && nowNs() >= until)) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        clearTimeout(timer);
        stop();
      }
      async function put(event: NodeEvent): Promise<void> {
        if (eventMatches(filters, event)) await out.write(`${JSON.stringify(eventMessage(event, request.version))}\n`);
      }
    },
  };
}

const PROBE: NodeEvent = { type: 'daemon', action: '', id: '', attributes: {}, atNs: 0n };
const MOST_QUEUED = 10_000;

/** `status`, `id` and `from` are for containers and images, and gone since API 1.52. */
export function eventMessage(event: NodeEvent, version: string): object {
  const { type, action, id, attributes, atNs } = event;
  const old =
    (type === 'container' || type === 'image') && compareVersions(version, '1.52') < 0
      ? { status: action, id, ...(type === 'container' ? { from: attributes['image'] ?? '' } : {}) }
      : {};
  const seconds = Number(atNs / 1_000_000_000n);
  return {
    ...old,
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    scope: 'local',
    time: seconds,
    // Larger than what a JavaScript number holds exactly: the last digits are lost, as in every client in that language.
    timeNano: Number(atNs),
  };
}
