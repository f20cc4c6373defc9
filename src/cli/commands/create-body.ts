import { resolve } from 'node:path';
import { parseDurationNs, parseSizeBytes } from '#base/units.ts';
import { mountOf } from '#cli/commands/mount-flag.ts';
import { endpointsOf } from '#cli/commands/network-flags.ts';
import {
  csvFields,
  type Json,
  pairs,
  readLocal,
  split2,
  unlessBare,
  unlessEmpty,
  withoutUndefined,
  wrong,
} from '#cli/commands/values.ts';
import type { Flags, Io } from '#cli/verb.ts';

/** The body of `POST /containers/create` that the flags of `run` and `create` mean. Pure but for the files that flags name. */
export function createBody(flags: Flags, image: string, command: readonly string[], io: Pick<Io, 'env' | 'cwd'>): Json {
  const published = portsOf(flags.list('publish'));
  const exposed = {
    ...published.exposed,
    ...Object.fromEntries(
      flags
        .list('expose')
        .flatMap(expandExposed)
        .map((p) => [p, {}]),
    ),
  };
  const { binds, anonymous } = volumesOf(flags.list('volume'), io.cwd);
  const attach = attachOf(flags);
  return withoutUndefined({
    Image: image,
    Cmd: command.length > 0 ? command : undefined,
    Entrypoint: flags.has('entrypoint') ? entrypointOf(flags.text('entrypoint') ?? '') : undefined,
    Hostname: flags.text('hostname'),
    Domainname: flags.text('domainname'),
    User: flags.text('user'),
    WorkingDir: flags.text('workdir'),
    Tty: flags.on('tty'),
    OpenStdin: flags.on('interactive'),
    StdinOnce: flags.on('interactive') && attach.has('stdin'),
    AttachStdin: attach.has('stdin'),
    AttachStdout: attach.has('stdout'),
    AttachStderr: attach.has('stderr'),
    Env: unlessEmpty(environmentOf(flags, io)),
    Labels: unlessBare(labelsOf(flags, io)),
    ExposedPorts: unlessBare(exposed),
    Volumes: unlessBare(anonymous),
    StopSignal: flags.text('stop-signal'),
    StopTimeout: flags.int('stop-timeout'),
    Healthcheck: healthOf(flags),
    HostConfig: hostConfigOf(flags, binds, published.bindings, io),
    NetworkingConfig: endpointsOf(flags),
  });
}

/** What is attached: what was asked for; without a wish both outputs, and stdin when it is kept open; nothing when detached. */
export function attachOf(flags: Flags): ReadonlySet<string> {
  const asked = flags.list('attach').map((s) => s.toLowerCase());
  if (flags.on('detach')) return new Set(asked);
  if (asked.length > 0) return new Set(asked);
  return new Set(['stdout', 'stderr', ...(flags.on('interactive') ? ['stdin'] : [])]);
}

function hostConfigOf(flags: Flags, binds: readonly string[], bindings: Json, io: Pick<Io, 'env' | 'cwd'>): Json {
  const networks = [...flags.list('network'), ...flags.list('net')];
  const { blkio, ...limits } = resourceBody(flags);
  return withoutUndefined({
    ...limits,
    ...(blkio as Json),
    Annotations: unlessBare(pairs(flags.list('annotation'))),
    AutoRemove: flags.on('rm') || undefined,
    Binds: unlessEmpty(binds),
    CapAdd: unlessEmpty(flags.list('cap-add')),
    CapDrop: unlessEmpty(flags.list('cap-drop')),
    CgroupParent: flags.text('cgroup-parent'),
    CgroupnsMode: flags.text('cgroupns'),
    ContainerIDFile: flags.text('cidfile'),
    DeviceCgroupRules: unlessEmpty(flags.list('device-cgroup-rule')),
    Devices: unlessEmpty(flags.list('device').map(deviceOf)),
    Dns: unlessEmpty(flags.list('dns')),
    DnsOptions: unlessEmpty([...flags.list('dns-option'), ...flags.list('dns-opt')]),
    DnsSearch: unlessEmpty(flags.list('dns-search')),
    ExtraHosts: unlessEmpty(flags.list('add-host').map((h) => h.replace(/^([^:=]+)=/, '$1:'))),
    GroupAdd: unlessEmpty(flags.list('group-add')),
    Init: flags.has('init') ? flags.on('init') : undefined,
    IpcMode: flags.text('ipc'),
    Links: unlessEmpty(flags.list('link')),
    LogConfig: logConfig(flags),
    MemorySwappiness: flags.int('memory-swappiness'),
    Mounts: unlessEmpty(flags.list('mount').map((m) => mountOf(m, io.cwd))),
    NetworkMode: networks[0] === undefined ? undefined : networkName(networks[0]),
    OomKillDisable: flags.on('oom-kill-disable') || undefined,
    OomScoreAdj: flags.int('oom-score-adj'),
    PidMode: flags.text('pid'),
    PortBindings: unlessBare(bindings),
    Privileged: flags.on('privileged') || undefined,
    PublishAllPorts: flags.on('publish-all') || undefined,
    ReadonlyRootfs: flags.on('read-only') || undefined,
    Runtime: flags.text('runtime'),
    SecurityOpt: unlessEmpty(flags.list('security-opt').map((o) => securityOption(o, io.cwd))),
    ShmSize: sizeFlag(flags, 'shm-size'),
    StorageOpt: unlessBare(pairs(flags.list('storage-opt'))),
    Sysctls: unlessBare(pairs(flags.list('sysctl'))),
    Tmpfs: unlessBare(Object.fromEntries(flags.list('tmpfs').map((t) => split2(t, ':')))),
    UTSMode: flags.text('uts'),
    Ulimits: unlessEmpty(flags.list('ulimit').map(ulimitOf)),
    UsernsMode: flags.text('userns'),
    VolumeDriver: flags.text('volume-driver'),
    VolumesFrom: unlessEmpty(flags.list('volumes-from')),
  });
}

/** Limits that `update` may change, too. Those of block devices come apart: only `create` takes them. */
export function resourceBody(flags: Flags): Json & { blkio: Json } {
  const throttle = (name: string): { Path: string; Rate: number }[] | undefined =>
    unlessEmpty(flags.list(name).map((t) => deviceRate(name, t)));
  const weights = flags.list('blkio-weight-device').map((t) => {
    const { Path, Rate } = deviceRate('blkio-weight-device', t);
    return { Path, Weight: Rate };
  });
  const cpus = flags.text('cpus');
  if (cpus !== undefined && !/^\d*\.?\d+$/.test(cpus)) wrong('cpus', cpus, 'must be a number of CPUs');
  const swap = flags.text('memory-swap');
  return {
    ...withoutUndefined({
      BlkioWeight: flags.int('blkio-weight'),
      CpuPeriod: flags.int('cpu-period'),
      CpuQuota: flags.int('cpu-quota'),
      CpuRealtimePeriod: flags.int('cpu-rt-period'),
      CpuRealtimeRuntime: flags.int('cpu-rt-runtime'),
      CpuShares: flags.int('cpu-shares'),
      CpusetCpus: flags.text('cpuset-cpus'),
      CpusetMems: flags.text('cpuset-mems'),
      Memory: sizeFlag(flags, 'memory'),
      MemoryReservation: sizeFlag(flags, 'memory-reservation'),
      MemorySwap: swap === '-1' ? -1 : sizeFlag(flags, 'memory-swap'),
      NanoCpus: cpus === undefined ? undefined : Math.round(Number(cpus) * 1e9),
      PidsLimit: flags.int('pids-limit'),
      RestartPolicy: flags.has('restart') ? restartOf(flags.text('restart') ?? 'no') : undefined,
    }),
    blkio: withoutUndefined({
      BlkioWeightDevice: unlessEmpty(weights),
      BlkioDeviceReadBps: throttle('device-read-bps'),
      BlkioDeviceReadIOps: throttle('device-read-iops'),
      BlkioDeviceWriteBps: throttle('device-write-bps'),
      BlkioDeviceWriteIOps: throttle('device-write-iops'),
    }),
  };
}

function restartOf(written: string): Json {
  const [Name = '', count] = written.split(':');
  if (count !== undefined && !/^\d+$/.test(count))
    wrong('restart', written, 'the number of retries must be an integer');
  return { Name, MaximumRetryCount: count === undefined ? 0 : Number(count) };
}

function sizeFlag(flags: Flags, name: string): number | undefined {
  const written = flags.text(name);
  return written === undefined ? undefined : sizeOf(name, written);
}

function sizeOf(name: string, written: string): number {
  return parseSizeBytes(written) ?? wrong(name, written, 'must be a size such as 64m');
}

function deviceRate(flag: string, written: string): { Path: string; Rate: number } {
  const [Path, rate] = split2(written, ':');
  return { Path, Rate: sizeOf(flag, rate) };
}

function deviceOf(written: string): Json {
  const [host = '', second, third] = written.split(':');
  const permissions = /^[rwm]+$/;
  const [inside, mode] =
    second !== undefined && third === undefined && permissions.test(second)
      ? [host, second]
      : [second ?? host, third ?? 'rwm'];
  if (!permissions.test(mode)) wrong('device', written, 'permissions are letters of rwm');
  return { PathOnHost: host, PathInContainer: inside, CgroupPermissions: mode };
}

export function ulimitOf(written: string): { Name: string; Soft: number; Hard: number } {
  const [, Name, soft, hard = soft] = /^(\w+)=(-?\d+)(?::(-?\d+))?$/.exec(written) ?? [];
  if (Name === undefined) wrong('ulimit', written, 'must be NAME=SOFT[:HARD]');
  return { Name, Soft: Number(soft), Hard: Number(hard) };
}

function logConfig(flags: Flags): Json | undefined {
  const options = pairs(flags.list('log-opt'));
  if (!flags.has('log-driver') && Object.keys(options).length === 0) return undefined;
  return { Type: flags.text('log-driver') ?? '', Config: options };
}

/** A seccomp profile is a file of the client. */
function securityOption(written: string, cwd: string): string {
  const [, key, file = ''] = /^(seccomp)[=:](.+)$/.exec(written) ?? [];
  if (key === undefined || file === 'unconfined' || file === 'builtin') return written;
  return `seccomp=${JSON.stringify(JSON.parse(readLocal('security-opt', resolve(cwd, file))))}`;
}

function entrypointOf(written: string): string[] {
  return [written];
}

function healthOf(flags: Flags): Json | undefined {
  if (flags.on('no-healthcheck')) return { Test: ['NONE'] };
  const ns = (name: string): number | undefined => {
    const written = flags.text(name);
    return written === undefined ? undefined : parseDurationNs(written);
  };
  const command = flags.text('health-cmd');
  const body = withoutUndefined({
    Test: command === undefined ? undefined : ['CMD-SHELL', command],
    Interval: ns('health-interval'),
    Timeout: ns('health-timeout'),
    StartPeriod: ns('health-start-period'),
    StartInterval: ns('health-start-interval'),
    Retries: flags.int('health-retries'),
  });
  return unlessBare(body);
}

/** Files first, so that `-e` wins; a name without a value is taken from the caller's environment. */
export function environmentOf(flags: Flags, { env, cwd }: Pick<Io, 'env' | 'cwd'>): string[] {
  const lines = flags.list('env-file').flatMap((file) =>
    readLocal('env-file', resolve(cwd, file))
      .split(/\r?\n/)
      .filter((line) => line.trim() !== '' && !line.startsWith('#')),
  );
  return [...lines, ...flags.list('env')].flatMap((entry) => {
    if (entry.includes('=')) return [entry];
    const value = env[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

function labelsOf(flags: Flags, { cwd }: Pick<Io, 'cwd'>): Record<string, string> {
  const fromFiles = flags
    .list('label-file')
    .flatMap((file) => readLocal('label-file', resolve(cwd, file)).split(/\r?\n/));
  return pairs([...fromFiles.filter((l) => l.trim() !== ''), ...flags.list('label')]);
}

/** A relative path is one of the client's. */
function volumesOf(written: readonly string[], cwd: string): { binds: string[]; anonymous: Json } {
  const binds: string[] = [];
  const anonymous: Json = {};
  for (const volume of written) {
    if (!volume.includes(':')) anonymous[volume] = {};
    else
      binds.push(/^\.{1,2}(\/|:|$)/.test(volume) ? volume.replace(/^[^:]*/, (source) => resolve(cwd, source)) : volume);
  }
  return { binds, anonymous };
}

interface Published {
  exposed: Json;
  bindings: { [port: string]: { HostIp: string; HostPort: string }[] };
}

/** `[[IP:]HOST:]PORT[/PROTOCOL]`, with ranges of equal length. */
export function portsOf(written: readonly string[]): Published {
  const exposed: Json = {};
  const bindings: Published['bindings'] = {};
  for (const port of written) {
    const [, ip = '', host = '', container = '', protocol = 'tcp'] =
      /^(?:(?:(\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+):)?(\d*(?:-\d+)?):)?(\d+(?:-\d+)?)(?:\/(tcp|udp|sctp))?$/.exec(
        port,
      ) ?? wrong('publish', port, 'must be [[IP:]HOST:]PORT[/PROTOCOL]');
    const targets = range(container);
    const hosts = host === '' ? [] : range(host);
    if (hosts.length > 0 && hosts.length !== targets.length && targets.length > 1)
      wrong('publish', port, 'the ranges differ in length');
    for (const [i, target] of targets.entries()) {
      const key = `${target}/${protocol}`;
      // Of a range of host ports for one container port any may be taken.
      const HostPort = targets.length === 1 && hosts.length > 1 ? host : String(hosts[i] ?? '');
      exposed[key] = {};
      bindings[key] = [...(bindings[key] ?? []), { HostIp: ip.replace(/^\[|\]$/g, ''), HostPort }];
    }
  }
  return { exposed, bindings };
}

function expandExposed(written: string): string[] {
  const [, ports = '', protocol = 'tcp'] =
    /^(\d+(?:-\d+)?)(?:\/(tcp|udp|sctp))?$/.exec(written) ?? wrong('expose', written, 'must be PORT[/PROTOCOL]');
  return range(ports).map((p) => `${p}/${protocol}`);
}

function range(written: string): number[] {
  const [first = 0, last = first] = written.split('-').map(Number);
  if (last < first || last > 65_535) wrong('publish', written, 'is no range of ports');
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

function networkName(written: string): string {
  if (!written.includes('=')) return written;
  const named = csvFields(written).find((field) => field.startsWith('name='));
  return named?.slice('name='.length) ?? wrong('network', written, 'has no name=');
}
