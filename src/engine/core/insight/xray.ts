import { containerCapabilities } from '#engine/core/capabilities.ts';
import { idsOf } from '#engine/core/id-ranges.ts';
import type { KernelView, Namespaces } from '#engine/core/insight/kernel-view.ts';
import { limitLines } from '#engine/core/insight/xray-limits.ts';
import { compared, type XrayLine } from '#engine/core/insight/xray-line.ts';
import { mountLines } from '#engine/core/insight/xray-mounts.ts';
import type { OciHost } from '#engine/core/oci.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, IpcMode } from '#engine/core/spec.ts';
import { capabilityNames } from '#kernel/linux/names.ts';
import type { NamespaceType } from '#kernel/linux/namespaces.ts';
import { dockerDefaultProfile, resolveProfile } from '#kernel/seccomp/docker.ts';
import type { FirewallNote } from '#network/firewall.ts';
import type { Network, Sandbox } from '#network/model.ts';

/**
 * A container laid open: what it sees, what it may do, what it may use. Each line says what the kernel shows, which wish made
 * it so, and, where the two differ, what had been wished.
 */
export interface Xray {
  container: { id: string; name: string; image: string; phase: string; pid: number };
  sees: XrayLine[];
  mayDo: XrayLine[];
  mayUse: XrayLine[];
}

export interface XrayInputs {
  record: ContainerRecord;
  /** Undefined: it does not run, and all lines are wishes. */
  kernel: KernelView | undefined;
  /** Other running containers, to tell with whom a namespace is shared. */
  neighbours: readonly { name: string; namespaces: Namespaces }[];
  sandbox: Sandbox | undefined;
  networks: readonly Network[];
  firewallNotes: readonly FirewallNote[];
  host: OciHost;
}

/** Pure. */
export function xray(inputs: XrayInputs): Xray {
  const { record, kernel } = inputs;
  const { id, name, image, state } = record;
  return {
    container: { id, name, image: image.reference, phase: state.phase, pid: kernel ? state.pid : 0 },
    sees: [
      ...runtimeLines(record.spec),
      ...namespaceLines(inputs),
      ...mountLines(record, kernel),
      ...nameLines(inputs),
    ],
    mayDo: [...userLines(inputs), ...capabilityLines(inputs), ...confinementLines(inputs), ...firewallLines(inputs)],
    mayUse: limitLines(record, kernel),
  };
}

// -- sees

/** Another's steps are not ours to tell: what stands below is the kernel's word, or else the wish that it was given. */
function runtimeLines({ runtime }: ContainerSpec): XrayLine[] {
  if (runtime === undefined) return [];
  return [{ topic: 'runtime', value: `${runtime}, whose steps are its own`, because: '--runtime, or its default' }];
}

const NAMESPACE_FLAGS = [
  ['network', 'network', '--network'],
  ['pid', 'pid', '--pid'],
  ['ipc', 'ipc', '--ipc'],
  ['uts', 'uts', '--uts'],
  ['cgroup', 'cgroup', '--cgroupns'],
] as const;

function namespaceLines({ record, kernel, neighbours }: XrayInputs): XrayLine[] {
  const { namespaces } = record.spec;
  const lines = NAMESPACE_FLAGS.map(([type, field, flag]): XrayLine => {
    const mode = namespaces[field];
    const line = { topic: `namespace.${type}`, because: becauseOfMode(flag, mode) };
    const shown = kernel && shownNamespace(type, kernel, neighbours);
    // Whether somebody has joined a shareable one is not the container's wish.
    return compared(line, mode.kind === 'shareable' ? (shown ?? 'its own') : wishedNamespace(mode), shown);
  });
  const user: XrayLine = {
    topic: 'namespace.user',
    because: namespaces.user.kind === 'host' ? 'default' : '--userns',
    value: namespaces.user.kind === 'host' ? 'of the host' : 'its own',
  };
  const actual = kernel && shownNamespace('user', kernel, neighbours);
  return [...lines, withMap(compared(user, user.value, actual), record.spec)];
}

/** Which ids the container's are on the host. */
function withMap(line: XrayLine, spec: ContainerSpec): XrayLine {
  const maps = (idsOf(spec) ?? []).map(
    ({ containerID, hostID, size }) => `, ${containerID} is ${hostID} of the host, ${size} ids`,
  );
  return { ...line, value: line.value + maps.join('') };
}

function becauseOfMode(flag: string, mode: IpcMode): string {
  switch (mode.kind) {
    case 'private':
      return 'default';
    case 'container':
      return `${flag} container:${mode.id}`;
    case 'sandbox':
      return `pod ${mode.id}`;
    default:
      return `${flag} ${mode.kind}`;
  }
}

function wishedNamespace(mode: IpcMode): string {
  return mode.kind === 'host' ? 'of the host' : mode.kind === 'private' || mode.kind === 'none' ? 'its own' : 'shared';
}

function shownNamespace(
  type: NamespaceType,
  { namespaces, hostNamespaces }: KernelView,
  neighbours: XrayInputs['neighbours'],
): string | undefined {
  const own = namespaces[type];
  if (own === undefined) return undefined;
  if (own === hostNamespaces[type]) return 'of the host';
  return neighbours.some((n) => n.namespaces[type] === own) ? 'shared' : 'its own';
}

function nameLines({ record, kernel, sandbox, networks, neighbours }: XrayInputs): XrayLine[] {
  const { spec } = record;
  const lines: XrayLine[] = [];
  if (spec.namespaces.uts.kind === 'private')
    lines.push({
      topic: 'name.host',
      value: record.hostname,
      because: spec.hostname === undefined ? 'the beginning of its id' : '--hostname',
    });
  const ns = kernel?.namespaces.network;
  const sharers = neighbours.filter((n) => ns !== undefined && n.namespaces.network === ns).map((n) => n.name);
  if (sharers.length > 0)
    lines.push({
      topic: 'name.sharers',
      name: 'network',
      value: sharers.join(', '),
      because: 'they joined its network',
    });
  for (const endpoint of sandbox?.endpoints ?? []) {
    const network = networks.find((n) => n.id === endpoint.network);
    const because = `--network ${network?.name ?? endpoint.network}`;
    const addresses = [endpoint.ipv4, endpoint.ipv6].filter((ip) => ip !== undefined);
    lines.push({ topic: 'name.address', name: endpoint.link, value: addresses.join(', '), because });
    if (network?.names)
      lines.push({ topic: 'name.dns', name: network.name, value: endpoint.names.join(', '), because });
  }
  return lines;
}

// -- may do

function userLines({ record, kernel }: XrayInputs): XrayLine[] {
  const wish = record.process.user || 'root';
  const uid = kernel?.status.uids[1];
  const line = { topic: 'user', because: record.spec.process.user === undefined ? 'image' : '--user' };
  return [{ ...line, value: uid === undefined ? wish : `${wish} (uid ${uid}, gid ${kernel?.status.gids[1]})` }];
}

function capabilityLines({ record, kernel, host }: XrayInputs): XrayLine[] {
  const { security } = record.spec;
  const wished = containerCapabilities(security, host.bounding).sort();
  const actual = kernel && capabilityNames(kernel.status.capabilities.bounding).sort();
  const flags = [
    ...(security.privileged ? ['--privileged'] : []),
    ...security.capAdd.map((name) => `--cap-add ${name}`),
    ...security.capDrop.map((name) => `--cap-drop ${name}`),
  ];
  const line = { topic: 'capabilities', because: flags.length > 0 ? `default, ${flags.join(', ')}` : 'default' };
  return [compared(line, wished.map(short).join(' ') || 'none', actual && (actual.map(short).join(' ') || 'none'))];
}

function short(name: string): string {
  return name.replace(/^CAP_/, '').toLowerCase();
}

function confinementLines({ record, kernel, host }: XrayInputs): XrayLine[] {
  const { security, devices, deviceRules } = record.spec;
  const filtered = security.seccomp !== 'unconfined' && !(security.privileged && security.seccomp === 'default');
  const because =
    security.seccomp === 'default' ? (security.privileged ? '--privileged' : 'default') : '--security-opt seccomp';
  const lines: XrayLine[] = [
    compared(
      { topic: 'seccomp', because },
      filtered ? 'filtered' : 'unconfined',
      kernel && (kernel.status.seccomp === 2 ? 'filtered' : 'unconfined'),
    ),
  ];
  // The kernel tells that there is a filter, and not which: of one that another runtime has compiled we know the wish alone.
  const { runtime } = record.spec;
  const of = runtime === undefined ? because : `${because}: as asked of ${runtime}`;
  if (filtered) lines.push(...verdictLines(record.spec, host, of));
  lines.push(
    compared(
      {
        topic: 'no-new-privileges',
        because: security.noNewPrivileges ? '--security-opt no-new-privileges' : 'default',
      },
      onOff(security.noNewPrivileges),
      kernel && onOff(kernel.status.noNewPrivs),
    ),
    {
      topic: 'root',
      value: security.readonlyRoot ? 'read-only' : 'writable',
      because: security.readonlyRoot ? '--read-only' : 'default',
    },
  );
  for (const device of devices)
    lines.push({ topic: 'device', name: device.path, value: device.access, because: `--device ${device.hostPath}` });
  for (const rule of deviceRules) lines.push({ topic: 'device', value: rule, because: '--device-cgroup-rule' });
  return lines;
}

/** How many system calls the profile lets through for this container's capabilities, and what becomes of the others. */
function verdictLines(spec: ContainerSpec, host: OciHost, because: string): XrayLine[] {
  const { security } = spec;
  if (security.seccomp === 'unconfined') return [];
  const profile = security.seccomp === 'default' ? dockerDefaultProfile() : security.seccomp.profile;
  const resolved = resolveProfile(profile, containerCapabilities(security, host.bounding), host);
  const byAction = new Map<string, Set<string>>();
  for (const { names, action } of resolved.syscalls ?? [])
    byAction.set(action, new Set([...(byAction.get(action) ?? []), ...names]));
  return [
    ...[...byAction].map(
      ([action, names]): XrayLine => ({
        topic: 'seccomp.verdict',
        name: action,
        value: `${names.size} system calls`,
        because,
      }),
    ),
    { topic: 'seccomp.verdict', name: resolved.defaultAction, value: 'all others', because },
  ];
}

function firewallLines({ sandbox, networks, firewallNotes }: XrayInputs): XrayLine[] {
  if (!sandbox) return [];
  const lines = sandbox.ports.map(
    (port): XrayLine => ({
      topic: 'firewall.published',
      name: `${port.containerPort}/${port.protocol}`,
      value: `from ${port.hostIp}:${port.hostPort}, where the host's own firewall lets it in`,
      because: '--publish',
    }),
  );
  for (const endpoint of sandbox.endpoints) {
    const network = networks.find((n) => n.id === endpoint.network);
    if (!network) continue;
    const because = `network ${network.name}`;
    lines.push(
      {
        topic: 'firewall.out',
        name: endpoint.link,
        value: network.internal ? 'its network alone' : 'anywhere, masqueraded',
        because,
      },
      {
        topic: 'firewall.in',
        name: endpoint.link,
        value: network.icc ? 'containers of its network' : 'published ports alone',
        because,
      },
    );
  }
  if (sandbox.ports.length > 0)
    lines.push(
      ...firewallNotes.map(
        ({ where, says, fix }): XrayLine => ({
          topic: 'firewall.host',
          name: where,
          value: `${says}; ${fix}`,
          because: 'the host’s firewall',
        }),
      ),
    );
  return lines;
}

function onOff(on: boolean): string {
  return on ? 'on' : 'off';
}
