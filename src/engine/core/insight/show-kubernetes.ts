import { compact } from '#engine/core/insight/show-compose.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';

/** A Pod, and a Service when ports are published (Kubernetes core/v1). */
export function pod(record: ContainerRecord): { objects: object[]; unsaid: string[] } {
  const { spec } = record;
  const name = objectName(record.name);
  const labels = { app: name };
  const ports = portsOf(record);
  const container = compact({
    name,
    image: record.image.reference,
    command: spec.process.entrypoint,
    args: spec.process.args,
    workingDir: spec.process.cwd,
    env: spec.process.env.map(envEntry),
    ports: ports.map(({ containerPort, protocol }) => ({ containerPort, protocol })),
    stdin: spec.process.stdin || undefined,
    tty: spec.process.tty || undefined,
    resources: resources(spec),
    securityContext: securityContext(spec),
    volumeMounts: spec.mounts.map((mount, i) =>
      compact({
        name: `volume-${i}`,
        mountPath: mount.target,
        readOnly: mount.readonly !== false || undefined,
        subPath: mount.type === 'volume' ? mount.subpath : undefined,
      }),
    ),
    livenessProbe: probe(spec.health),
  });
  const podSpec = compact({
    hostname: spec.hostname,
    restartPolicy: RESTART[spec.restart.name],
    hostNetwork: spec.namespaces.network.kind === 'host' || undefined,
    hostPID: spec.namespaces.pid.kind === 'host' || undefined,
    hostIPC: spec.namespaces.ipc.kind === 'host' || undefined,
    terminationGracePeriodSeconds: spec.stop.timeoutSeconds,
    hostAliases: spec.network.extraHosts.map(hostAlias),
    containers: [container],
    volumes: spec.mounts.map((mount, i) => ({ name: `volume-${i}`, ...volumeSource(mount) })),
  });
  const objects: object[] = [{ apiVersion: 'v1', kind: 'Pod', metadata: { name, labels }, spec: podSpec }];
  const published = ports.filter((p) => p.hostPort !== undefined);
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
  return { objects, unsaid: unsaidOf(spec, published.length > 0) };
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

function envEntry(entry: string): object {
  const at = entry.indexOf('=');
  // $(NAME) is a reference here; a doubled dollar is one dollar.
  return at < 0 ? { name: entry } : { name: entry.slice(0, at), value: entry.slice(at + 1).replaceAll('$(', '$$$$(') };
}

function portsOf({ spec, process }: ContainerRecord): { containerPort: number; protocol: string; hostPort?: string }[] {
  return process.exposedPorts.map((port) => {
    const [number = '', protocol = 'tcp'] = port.split('/');
    const binding = spec.network.ports[port]?.[0];
    return {
      containerPort: Number(number),
      protocol: protocol.toUpperCase(),
      ...(binding ? { hostPort: binding.hostPort } : {}),
    };
  });
}

function resources({ resources: r }: ContainerSpec): object {
  const limits = compact({
    memory: r.memoryBytes === undefined ? undefined : String(r.memoryBytes),
    cpu: r.nanoCpus ? `${Math.round(r.nanoCpus / 1e6)}m` : undefined,
  });
  const requests = compact({
    memory: r.memoryReservationBytes === undefined ? undefined : String(r.memoryReservationBytes),
  });
  return compact({ limits, requests });
}

function securityContext({ security, process }: ContainerSpec): object {
  const [uid, gid] = (process.user ?? '').split(':');
  const add = security.capAdd.map((name) => name.replace(/^CAP_/, ''));
  const drop = security.capDrop.map((name) => name.replace(/^CAP_/, ''));
  return compact({
    privileged: security.privileged || undefined,
    readOnlyRootFilesystem: security.readonlyRoot || undefined,
    allowPrivilegeEscalation: security.noNewPrivileges ? false : undefined,
    runAsUser: /^\d+$/.test(uid ?? '') ? Number(uid) : undefined,
    runAsGroup: /^\d+$/.test(gid ?? '') ? Number(gid) : undefined,
    capabilities: compact({ add, drop }),
    seccompProfile: { type: security.seccomp === 'unconfined' ? 'Unconfined' : 'RuntimeDefault' },
  });
}

function volumeSource(mount: MountSpec): object {
  if (mount.type === 'bind') return { hostPath: { path: mount.source } };
  if (mount.type === 'tmpfs') return { emptyDir: { medium: 'Memory' } };
  return mount.name === '' ? { emptyDir: {} } : { persistentVolumeClaim: { claimName: objectName(mount.name) } };
}

function probe(health: ContainerSpec['health']): object | undefined {
  if (!health || health.test[0] === 'NONE' || health.test.length === 0) return undefined;
  const [kind, ...words] = health.test;
  const seconds = (ns: number): number | undefined => (ns > 0 ? Math.ceil(ns / 1e9) : undefined);
  return compact({
    exec: { command: kind === 'CMD-SHELL' ? ['/bin/sh', '-c', ...words] : words },
    periodSeconds: seconds(health.intervalNs),
    timeoutSeconds: seconds(health.timeoutNs),
    initialDelaySeconds: seconds(health.startPeriodNs),
    failureThreshold: health.retries || undefined,
  });
}

function hostAlias(line: string): object {
  const colon = line.indexOf(':');
  return { ip: line.slice(colon + 1), hostnames: [line.slice(0, colon)] };
}

function unsaidOf(spec: ContainerSpec, isPublished: boolean): string[] {
  const { process, resources: r, security } = spec;
  return [
    ...(isPublished ? ['the ports of the host: a NodePort is given one between 30000 and 32767'] : []),
    ...(process.user && !/^\d+(:\d+)?$/.test(process.user) ? [`user ${process.user}: a pod takes numbers`] : []),
    ...(spec.mounts.some((m) => m.type === 'volume' && m.name !== '') ? ['its claims have to be made'] : []),
    ...(spec.ulimits.length > 0 ? ['ulimits'] : []),
    ...(spec.devices.length > 0 ? ['devices: a device plugin gives them'] : []),
    ...(r.pids !== undefined || r.cpusetCpus || r.blkioWeight ? ['limits of processes, CPU sets and disks'] : []),
    ...(typeof security.seccomp === 'object' ? ['its own seccomp profile: it has to be on each node'] : []),
    ...(spec.init ? ['--init: set shareProcessNamespace, or have a reaper in the image'] : []),
    ...(spec.network.links.length > 0 ? ['links'] : []),
  ];
}
