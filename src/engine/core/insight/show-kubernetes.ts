import { parseSizeBytes } from '#base/units.ts';
import {
  compact,
  DEFAULT_NETWORK,
  DEFAULT_SHM_BYTES,
  hasOwnPaths,
  hasPlainPaths,
  type Unsaid,
  variables,
  when,
} from '#engine/core/insight/show-parts.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';
import { signalName, signalNumber } from '#kernel/linux/names.ts';

/** A Pod, and a Service when ports are published (Kubernetes core/v1). */
export function pod(record: ContainerRecord): Unsaid & { objects: object[] } {
  const { spec } = record;
  const name = objectName(record.name);
  const { labels, annotations } = labelled(name, spec);
  const ports = portsOf(record);
  const volumes = volumesOf(spec);
  const container = compact({
    name,
    image: record.image.reference,
    command: spec.process.entrypoint,
    args: spec.process.args,
    workingDir: spec.process.cwd,
    env: variables(spec.process).map(envEntry),
    ports: ports.map(({ containerPort, protocol }) => ({ containerPort, protocol })),
    stdin: spec.process.stdin || undefined,
    stdinOnce: spec.process.stdinOnce || undefined,
    tty: spec.process.tty || undefined,
    resources: resources(spec),
    securityContext: securityContext(spec),
    volumeMounts: volumes.map(({ name, mount }) => ({ name, ...mount })),
    // The image's own, too: a pod knows nothing of it.
    livenessProbe: probe(record.process.health),
    lifecycle: spec.stop.signal ? { stopSignal: stopSignal(spec.stop.signal) } : undefined,
  });
  const podSpec = compact({
    hostname: spec.hostname,
    restartPolicy: RESTART[spec.restart.name],
    ...dnsOf(spec),
    hostNetwork: spec.namespaces.network.kind === 'host' || undefined,
    hostPID: spec.namespaces.pid.kind === 'host' || undefined,
    hostIPC: spec.namespaces.ipc.kind === 'host' || undefined,
    hostUsers: spec.namespaces.user.kind === 'private' ? false : undefined,
    // Core/v1 takes a stop signal only where the system is said.
    os: spec.stop.signal ? { name: 'linux' } : undefined,
    nodeSelector: platformLabels(spec.platform),
    securityContext: podSecurity(spec),
    terminationGracePeriodSeconds: spec.stop.timeoutSeconds,
    hostAliases: spec.network.extraHosts.filter((line) => !isHostGateway(line)).map(hostAlias),
    containers: [container],
    volumes: volumes.map(({ name, source }) => ({ name, ...source })),
  });
  const metadata = compact({ name, labels, annotations });
  const objects: object[] = [{ apiVersion: 'v1', kind: 'Pod', metadata, spec: podSpec }];
  const published = ports.filter((p) => p.published);
  if (published.length > 0)
    objects.push({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: {
        type: 'NodePort',
        selector: labels,
        ports: published.map((p) => ({
          name: `port-${p.containerPort}-${p.protocol.toLowerCase()}`,
          port: p.containerPort,
          targetPort: p.containerPort,
          protocol: p.protocol,
        })),
      },
    });
  return { objects, unsaid: unsaidOf(spec, published.length > 0), ours: [] };
}

const RESTART = { no: 'Never', always: 'Always', 'unless-stopped': 'Always', 'on-failure': 'OnFailure' };

/** RFC 1123: lower-case letters, digits and dashes. */
function objectName(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 63);
}

/** What may be a label and be selected by is one; what is too long or has other characters is an annotation. */
function labelled(
  app: string,
  { labels, annotations }: ContainerSpec,
): { labels: Record<string, string>; annotations: Record<string, string> } {
  const fits = ([, value]: [string, string]): boolean => LABEL_VALUE.test(value);
  const all = Object.entries(labels).filter(([key]) => isMetadataKey(key));
  const noted = Object.entries(annotations).filter(([key]) => isMetadataKey(key));
  return {
    labels: { app, ...Object.fromEntries(all.filter(fits)) },
    annotations: Object.fromEntries([...all.filter((entry) => !fits(entry)), ...noted]),
  };
}

const LABEL_VALUE = /^([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?$/;
const KEY = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$/;

/** What Kubernetes takes as the name of a label or an annotation: `[prefix/]name`. */
function isMetadataKey(key: string): boolean {
  return KEY.test(key);
}

/** Core/v1 counts the later real-time signals from their end. */
function stopSignal(written: string): string {
  const number = signalNumber(written);
  const fromEnd = SIGRTMAX - number;
  if (number <= SIGRTMIN_15 || fromEnd < 0) return signalName(number);
  return fromEnd === 0 ? 'SIGRTMAX' : `SIGRTMAX-${fromEnd}`;
}

const SIGRTMIN_15 = 49;
const SIGRTMAX = 64;

/** Docker's own servers stand alone; search domains and options alone are added to the cluster's. */
function dnsOf({ network }: ContainerSpec): object {
  const nameservers = network.dns.slice(0, DNS_SERVERS_MOST);
  const dnsConfig = compact({
    nameservers,
    searches: network.dnsSearch.filter((domain) => domain !== NO_DOMAIN),
    options: network.dnsOptions.map((option) => {
      const [name, value] = option.split(':');
      return compact({ name, value });
    }),
  });
  return { dnsPolicy: nameservers.length > 0 ? 'None' : undefined, dnsConfig };
}

/** Core/v1 refuses more. */
const DNS_SERVERS_MOST = 3;
/** `--dns-search=.`: not the host's either. */
const NO_DOMAIN = '.';

/** `linux/arm64/v8` as nodes are labelled. */
function platformLabels(platform: string | undefined): object | undefined {
  if (platform === undefined) return undefined;
  const [os, arch] = platform.split('/');
  return compact({ 'kubernetes.io/os': os, 'kubernetes.io/arch': arch });
}

function podSecurity({ process, sysctls }: ContainerSpec): object {
  return compact({
    supplementalGroups: process.groups.filter(isNumber).map(Number),
    sysctls: Object.entries(sysctls).map(([name, value]) => ({ name, value })),
  });
}

function isNumber(text: string): boolean {
  return /^\d+$/.test(text);
}

function envEntry(entry: string): object {
  const at = entry.indexOf('=');
  // $(NAME) is a reference here; a doubled dollar is one dollar.
  return { name: entry.slice(0, at), value: entry.slice(at + 1).replaceAll('$(', '$$$$(') };
}

function portsOf({ spec, process }: ContainerRecord): {
  containerPort: number;
  protocol: string;
  published: boolean;
}[] {
  const { ports, publishAll } = spec.network;
  return process.exposedPorts.map((port) => {
    const [number = '', protocol = 'tcp'] = port.split('/');
    const published = publishAll || (ports[port] ?? []).length > 0;
    return { containerPort: Number(number), protocol: protocol.toUpperCase(), published };
  });
}

function resources({ resources: r }: ContainerSpec): object {
  const cpus = r.nanoCpus ? r.nanoCpus / 1e9 : (r.cpuQuotaUs ?? 0) / (r.cpuPeriodUs || CPU_PERIOD_US);
  const limits = compact({
    memory: r.memoryBytes === undefined ? undefined : String(r.memoryBytes),
    cpu: cpus > 0 ? `${Math.round(cpus * 1000)}m` : undefined,
  });
  const requests = compact({
    memory: r.memoryReservationBytes === undefined ? undefined : String(r.memoryReservationBytes),
  });
  return compact({ limits, requests });
}

const CPU_PERIOD_US = 100_000;

function securityContext({ security, process }: ContainerSpec): object {
  const [uid, gid] = (process.user ?? '').split(':');
  const add = security.capAdd.map((name) => name.replace(/^CAP_/, ''));
  const drop = security.capDrop.map((name) => name.replace(/^CAP_/, ''));
  return compact({
    privileged: security.privileged || undefined,
    readOnlyRootFilesystem: security.readonlyRoot || undefined,
    allowPrivilegeEscalation: security.noNewPrivileges ? false : undefined,
    procMount: hasPlainPaths(security) ? 'Unmasked' : undefined,
    runAsUser: isNumber(uid ?? '') ? Number(uid) : undefined,
    runAsGroup: isNumber(gid ?? '') ? Number(gid) : undefined,
    capabilities: compact({ add, drop }),
    seccompProfile: { type: security.seccomp === 'unconfined' ? 'Unconfined' : 'RuntimeDefault' },
  });
}

interface PodVolume {
  name: string;
  source: object;
  mount: object;
}

function volumesOf(spec: ContainerSpec): PodVolume[] {
  const wished = spec.mounts.map((mount, i) => ({
    name: `volume-${i}`,
    source: volumeSource(mount),
    mount: compact({
      mountPath: mount.target,
      readOnly: mount.readonly !== false || undefined,
      recursiveReadOnly: recursiveReadOnly(mount),
      mountPropagation: mount.type === 'bind' ? propagation(mount) : undefined,
      subPath: mount.type === 'volume' ? mount.subpath : undefined,
    }),
  }));
  if (spec.shmBytes === DEFAULT_SHM_BYTES || spec.shmBytes === 0) return wished;
  const shm = { emptyDir: { medium: 'Memory', sizeLimit: String(spec.shmBytes) } };
  return [...wished, { name: 'shm', source: shm, mount: { mountPath: '/dev/shm' } }];
}

/** Read-only alone is not what is mounted below; `IfPossible` is refused beside a propagation. */
function recursiveReadOnly(mount: MountSpec): string | undefined {
  if (mount.readonly === 'force-recursive') return 'Enabled';
  const maybe = mount.type === 'bind' && mount.readonly === 'recursive' && propagation(mount) === undefined;
  return maybe ? 'IfPossible' : undefined;
}

function propagation({ propagation }: MountSpec & { type: 'bind' }): string | undefined {
  if (propagation?.endsWith('shared')) return 'Bidirectional';
  return propagation?.endsWith('slave') ? 'HostToContainer' : undefined;
}

function volumeSource(mount: MountSpec): object {
  if (mount.type === 'bind') return { hostPath: { path: mount.source } };
  if (mount.type === 'tmpfs') {
    const sizeLimit = mount.options.map(tmpfsBytes).findLast((bytes) => bytes !== undefined);
    return { emptyDir: compact({ medium: 'Memory', sizeLimit: sizeLimit && String(sizeLimit) }) };
  }
  return mount.name === '' ? { emptyDir: {} } : { persistentVolumeClaim: { claimName: objectName(mount.name) } };
}

/** Of `size=64m`; undefined for every other option, and for a part of the machine's memory (`size=50%`). */
function tmpfsBytes(option: string): number | undefined {
  return option.startsWith('size=') ? parseSizeBytes(option.slice('size='.length)) : undefined;
}

function probe(health: ContainerRecord['process']['health']): object | undefined {
  if (!health) return undefined;
  const [kind, ...words] = health.test;
  const seconds = (ns: number): number | undefined => (ns > 0 ? Math.ceil(ns / 1e9) : undefined);
  return compact({
    exec: { command: kind === 'CMD-SHELL' ? [...(health.shell ?? ['/bin/sh', '-c']), ...words] : words },
    periodSeconds: seconds(health.intervalNs),
    timeoutSeconds: seconds(health.timeoutNs),
    initialDelaySeconds: seconds(health.startPeriodNs),
    failureThreshold: health.retries || undefined,
  });
}

function hostAlias(line: string): object {
  const colon = line.indexOf(':'); // the address may be IPv6 and have colons of its own
  const ip = line.slice(colon + 1).replace(/^\[(.*)\]$/, '$1');
  return { ip, hostnames: [line.slice(0, colon)] };
}

/** The host's address, which nobody knows beforehand. */
function isHostGateway(line: string): boolean {
  return line.endsWith(':host-gateway');
}

/** What was asked for and has no counterpart in core/v1; every wish is either said above or named here. */
function unsaidOf(spec: ContainerSpec, isPublished: boolean): string[] {
  return [
    ...unsaidOfNetwork(spec, isPublished),
    ...unsaidOfMounts(spec.mounts),
    ...unsaidOfResources(spec),
    ...unsaidOfNamespaces(spec.namespaces),
    ...unsaidOfProcess(spec),
    ...unsaidOfLife(spec),
  ];
}

function unsaidOfNetwork({ network, namespaces }: ContainerSpec, isPublished: boolean): string[] {
  const { network: mode } = namespaces;
  const wished = network.endpoints.flatMap((e) => {
    const { network: name, ...settings } = e;
    const parts = Object.keys(compact({ ...settings, gwPriority: e.gwPriority || '' }));
    if (name === DEFAULT_NETWORK && parts.length === 0) return [];
    return [parts.length === 0 ? name : `${name} (${parts.join(', ')})`];
  });
  const servers = network.dns.slice(DNS_SERVERS_MOST);
  const gateways = network.extraHosts.filter(isHostGateway);
  return [
    ...when(isPublished, 'the ports of the host: a NodePort is given one between 30000 and 32767'),
    ...when(wished.length > 0, `networks, and what was wished in them: ${wished.join(', ')}`),
    ...when(mode.kind === 'private' && network.endpoints.length === 0, 'no network: each pod has one'),
    ...when(mode.kind === 'container', 'the network of another container: it has to be in the same pod'),
    ...when(network.mac !== undefined, `MAC address ${network.mac}`),
    ...when(servers.length > 0, `name servers ${servers.join(', ')}: a pod has ${DNS_SERVERS_MOST} at most`),
    ...when(
      network.dnsSearch.includes(NO_DOMAIN) && network.dns.length === 0,
      'no search domains: a pod without name servers of its own has the cluster’s',
    ),
    ...when(
      gateways.length > 0,
      `hosts at host-gateway (${gateways.join(', ')}): a pod cannot name its node’s address`,
    ),
    ...when(network.links.length > 0, 'links'),
  ];
}

function unsaidOfMounts(mounts: readonly MountSpec[]): string[] {
  return [
    ...when(
      mounts.some((m) => m.type === 'volume' && m.name !== ''),
      'its claims have to be made',
    ),
    ...when(
      mounts.some((m) => m.type === 'bind' && m.createSource),
      'its paths of the host have to be there: none is made',
    ),
    ...mounts.flatMap((m) => {
      if (m.type === 'tmpfs') {
        const left = m.options.filter((option) => tmpfsBytes(option) === undefined);
        return when(left.length > 0, `options of the tmpfs at ${m.target}: ${left.join(',')}`);
      }
      return [
        ...when(m.owner !== undefined, `owners of the files at ${m.target}`),
        ...(m.type === 'bind' ? unsaidOfBind(m) : []),
        ...when(
          m.type === 'volume' && m.driver !== undefined,
          `the volume driver at ${m.target}: a StorageClass names it`,
        ),
        ...when(m.type === 'volume' && Object.keys(m.labels).length > 0, `labels of the volume at ${m.target}`),
        ...when(m.type === 'volume' && m.noCopy, `no copy at ${m.target}: a pod’s volumes never get the image’s files`),
      ];
    }),
  ];
}

function unsaidOfBind(mount: MountSpec & { type: 'bind' }): string[] {
  const { target, recursive, readonly } = mount;
  return [
    ...when(!recursive, `${target} without what is mounted below it`),
    ...when(
      readonly === 'recursive' && propagation(mount) !== undefined,
      `what is mounted below ${target} may be written`,
    ),
  ];
}

function unsaidOfResources({ resources: r, ulimits, devices, deviceRules, oomScoreAdj }: ContainerSpec): string[] {
  const rates = [r.blkioWeightDevices, r.readBps, r.writeBps, r.readIops, r.writeIops];
  return [
    ...when(ulimits.length > 0, 'ulimits'),
    ...when(devices.length > 0 || deviceRules.length > 0, 'devices: a device plugin gives them'),
    ...when(r.pids !== undefined, 'a limit of processes: each node has its own for pods'),
    ...when(
      r.memorySwapBytes !== undefined || r.memorySwappiness !== undefined,
      'swap: each node decides for its pods',
    ),
    ...when(r.oomKillDisable, '--oom-kill-disable'),
    ...when(oomScoreAdj !== 0, 'an OOM score: it follows from requests and limits'),
    ...when(r.cpuShares !== undefined, 'CPU shares: they follow from a request of CPU'),
    ...when(r.cpuRealtimePeriodUs !== undefined || r.cpuRealtimeRuntimeUs !== undefined, 'real-time CPU'),
    ...when(Boolean(r.cpusetCpus || r.cpusetMems), 'CPU and memory sets: each node’s CPU manager gives them'),
    ...when(Boolean(r.blkioWeight) || rates.some((list) => list.length > 0), 'limits of disks'),
    ...when(r.hugepages.length > 0, 'huge pages: their requests and limits have to be made'),
    ...when(Boolean(r.cgroupParent), 'a cgroup parent'),
  ];
}

function unsaidOfNamespaces({ pid, ipc, uts, cgroup, user, timeOffsets }: ContainerSpec['namespaces']): string[] {
  const others = Object.entries({ PID: pid, IPC: ipc, UTS: uts, cgroup }).flatMap(([name, mode]) =>
    mode.kind === 'container' ? [name] : [],
  );
  return [
    ...when(
      others.length > 0,
      `the ${others.join(' and ')} namespace of another container: it has to be in the same pod`,
    ),
    ...when(uts.kind === 'host', 'the UTS namespace of the host: it comes with its network'),
    ...when(cgroup.kind === 'host', 'the cgroup namespace of the host'),
    ...when(ipc.kind === 'none', 'no /dev/shm'),
    ...when(user.kind === 'private' && user.mappings.length > 0, 'mappings of users: the node gives them'),
    ...when(timeOffsets !== undefined, 'offsets of clocks'),
  ];
}

function unsaidOfProcess(spec: ContainerSpec): string[] {
  const { process, domainname, init, security, labels, annotations } = spec;
  const removed = process.env.filter((entry) => !entry.includes('='));
  const variant = spec.platform?.split('/')[2];
  const groups = process.groups.filter((group) => !isNumber(group));
  const keys = [...Object.keys(labels), ...Object.keys(annotations)].filter((key) => !isMetadataKey(key));
  return [
    ...when(
      Boolean(process.user) && !/^\d+(:\d+)?$/.test(process.user ?? ''),
      `user ${process.user}: a pod takes numbers`,
    ),
    ...when(process.entrypoint?.length === 0, 'no entry point: a pod cannot take the image’s away'),
    ...when(removed.length > 0, `${removed.join(', ')} taken away: a pod cannot take the image’s variables away`),
    ...when(variant !== undefined, `variant ${variant} of its platform: nodes have no label for it`),
    ...when(groups.length > 0, `groups ${groups.join(', ')}: a pod takes numbers`),
    ...when(
      keys.length > 0,
      `labels ${keys.map((key) => JSON.stringify(key)).join(', ')}: no names that Kubernetes takes`,
    ),
    ...when(Boolean(domainname), `domain name ${domainname}: a pod has its subdomain and the cluster’s`),
    ...when(init, '--init: set shareProcessNamespace, or have a reaper in the image'),
    ...when(typeof security.seccomp === 'object', 'its own seccomp profile: it has to be on each node'),
    ...when(hasOwnPaths(security), 'masked and read-only paths'),
  ];
}

function unsaidOfLife({ stop, restart, health, logging, autoRemove, runtime }: ContainerSpec): string[] {
  return [
    ...when(
      stop.signal !== undefined,
      'a cluster before 1.33, or without ContainerStopSignals, forgets lifecycle.stopSignal',
    ),
    ...when(restart.maxRetries > 0, `${restart.maxRetries} restarts at most: a pod’s go on`),
    ...when(restart.name === 'unless-stopped', 'unless stopped: a pod starts again until it is deleted'),
    ...when((health?.startIntervalNs ?? 0) > 0, 'the interval of health checks at the start'),
    ...when(
      logging.driver !== 'json-file' || Object.keys(logging.options).length > 0,
      'logging: each node keeps its pods’ logs in its own way',
    ),
    ...when(autoRemove, '--rm: a pod stays until it is deleted'),
    ...when(runtime !== undefined, `runtime ${runtime}: a RuntimeClass names it`),
  ];
}
