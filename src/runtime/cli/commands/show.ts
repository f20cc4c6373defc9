import { processesIn } from '#kernel/cgroup/state.ts';
import { knownMountOptions } from '#kernel/linux/mount-options.ts';
import { CAPABILITIES } from '#kernel/linux/names.ts';
import { ARCHITECTURES } from '#kernel/seccomp/profile.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { BadUsage, isOn, text } from '#runtime/cli/flags.ts';
import { CommandFailed } from '#runtime/cli/plans.ts';
import { paths } from '#runtime/state.ts';
import { type Container, listIds, loadContainer } from '#runtime/store.ts';
import { HOOK_POINTS, OCI_VERSION, OCI_VERSION_MIN } from '#spec/oci/config.ts';
import type { OciFeatures } from '#spec/oci/features.ts';
import {
  MEMORY_POLICY_FLAGS,
  MEMORY_POLICY_MODES,
  NAMESPACE_TYPES,
  SECCOMP_ACTIONS,
  SECCOMP_FLAGS,
  SECCOMP_OPERATORS,
} from '#spec/oci/linux.ts';

/** The state of the specification and what runc adds; engines read both. */
interface Shown {
  ociVersion: string;
  id: string;
  pid: number;
  status: string;
  bundle: string;
  rootfs: string;
  created: string;
  annotations?: Record<string, string>;
  owner: string;
}

function shown({ record, config, init, status }: Container): Shown {
  const annotations = config.annotations;
  return {
    ociVersion: config.ociVersion,
    id: record.id,
    pid: status === 'stopped' ? 0 : (init?.pid ?? 0),
    status,
    bundle: record.bundle,
    rootfs: record.rootfs,
    created: record.created,
    ...(annotations && Object.keys(annotations).length > 0 ? { annotations } : {}),
    owner: record.owner.name,
  };
}

/** runtime.md, "Query State". */
export async function state(c: Command): Promise<Outcome> {
  c.stdout(`${JSON.stringify(shown(loadContainer(c.root, c.args[0] ?? '', c.files)), null, 2)}\n`);
  return 0;
}

export async function list(c: Command): Promise<Outcome> {
  const format = text(c.flags, 'format') ?? 'table';
  if (format !== 'table' && format !== 'json')
    throw new BadUsage({ message: 'invalid format option', command: 'list' });
  const containers = listIds(c.root).flatMap((id) => loadIfWhole(c, id));
  if (isOn(c.flags, 'quiet')) c.stdout(containers.map((s) => `${s.id}\n`).join(''));
  else if (format === 'json') c.stdout(`${containers.length === 0 ? 'null' : JSON.stringify(containers)}\n`);
  else c.stdout(table(containers));
  return 0;
}

/** A container that another command deletes right now is not there any more; one that is broken is named. */
function loadIfWhole(c: Command, id: string): Shown[] {
  try {
    return [shown(loadContainer(c.root, id, c.files))];
  } catch (error) {
    if (c.files.exists(paths(c.root, id).dir)) c.log.error(`load container ${id}: ${String(error)}`);
    return [];
  }
}

function table(containers: readonly Shown[]): string {
  const head = ['ID', 'PID', 'STATUS', 'BUNDLE', 'CREATED', 'OWNER'];
  const rows = [head, ...containers.map((s) => [s.id, String(s.pid), s.status, s.bundle, s.created, s.owner])];
  const widths = head.map((_, i) => Math.max(12, ...rows.map((row) => (row[i] ?? '').length + 3)));
  return rows
    .map((row) => `${row.map((cell, i) => (i === 5 ? cell : cell.padEnd(widths[i] ?? 0))).join('')}\n`)
    .join('');
}

export async function ps(c: Command): Promise<Outcome> {
  const [id = '', ...options] = c.args;
  const { record } = loadContainer(c.root, id, c.files);
  const pids = processesIn(record.cgroups, c.files);
  const format = text(c.flags, 'format') ?? 'table';
  if (format === 'json') c.stdout(`${JSON.stringify(pids)}\n`);
  else if (format === 'table') c.stdout(await psTable(c, pids, options.length === 0 ? ['-ef'] : options));
  else throw new BadUsage({ message: 'invalid format option', command: 'ps' });
  return 0;
}

/** ps(1)'s own lines, those of other processes left out; the PID column is found by its title. */
async function psTable(c: Command, pids: readonly number[], options: readonly string[]): Promise<string> {
  const { code, output } = await c.run('ps', options);
  if (code !== 0)
    throw new CommandFailed({ message: `ps ${options.join(' ')}: exit status ${code}: ${output.trim()}` });
  const [title = '', ...lines] = output.split('\n');
  const column = title.trim().split(/\s+/).indexOf('PID');
  if (column < 0) throw new CommandFailed({ message: "couldn't find PID field in ps output" });
  const ours = lines.filter((line) => pids.includes(Number(line.trim().split(/\s+/)[column])));
  return [title, ...ours].map((line) => `${line}\n`).join('');
}

/** features.md. What depends on the machine is left to `estiba doctor`; what this build lacks is said here. */
export function featuresOf(c: Command): OciFeatures {
  return {
    ociVersionMin: OCI_VERSION_MIN,
    ociVersionMax: OCI_VERSION,
    hooks: [...HOOK_POINTS],
    mountOptions: knownMountOptions(),
    linux: {
      namespaces: [...NAMESPACE_TYPES].sort(),
      capabilities: [...CAPABILITIES()],
      cgroup: { v1: true, v2: true, systemd: false, systemdUser: false, rdma: true },
      seccomp: {
        enabled: true,
        actions: [...SECCOMP_ACTIONS].sort(),
        operators: [...SECCOMP_OPERATORS].sort(),
        archs: [...ARCHITECTURES].sort(),
        knownFlags: [...SECCOMP_FLAGS],
        supportedFlags: [...SECCOMP_FLAGS],
      },
      apparmor: { enabled: true },
      selinux: { enabled: true },
      intelRdt: { enabled: false },
      memoryPolicy: { modes: [...MEMORY_POLICY_MODES], flags: [...MEMORY_POLICY_FLAGS] },
      mountExtensions: { idmap: { enabled: true } },
      netDevices: { enabled: true },
    },
    annotations: {
      'org.opencontainers.runc.version': c.version.version,
      'org.opencontainers.runc.commit': c.version.commit,
      'org.opencontainers.runc.checkpoint.enabled': String(c.criuAvailable ?? false),
    },
    potentiallyUnsafeConfigAnnotations: [],
  };
}

export async function features(c: Command): Promise<Outcome> {
  c.stdout(`${JSON.stringify(featuresOf(c), null, 4)}\n`);
  return 0;
}
