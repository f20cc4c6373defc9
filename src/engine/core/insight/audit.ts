import { posix } from 'node:path';
import type { Files } from '#kernel/files.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { sayOp } from '#kernel/plan/print.ts';
import { parseMountInfo } from '#kernel/proc/mountinfo.ts';

/**
 * The records against the host: what lies in our places and belongs to nobody we know, what somebody else put there, and what
 * a record promises that is not there.
 */
export interface Audit {
  findings: AuditFinding[];
  /** What was looked at, so that an empty list means something. */
  looked: { what: string; count: number }[];
}

export interface AuditFinding {
  /** `orphan`: left of something that is gone. `stranger`: something alive that no record owns. `missing`: it should be there. */
  kind: 'orphan' | 'stranger' | 'missing';
  what: string;
  where: string;
  because: string;
  /** What takes it away, in words and as operations; absent where that is for a person to decide. */
  cleanup?: { says: string; ops: Op[] };
}

/** What the daemon knows to be its own. */
export interface Known {
  /** Ids of containers and sandboxes. */
  ids: ReadonlySet<string>;
  /** Cgroups below our parent that containers lie in, instead of in the parent itself: `kubepods/burstable/podUID`. */
  cgroupGroups: ReadonlySet<string>;
  running: ReadonlySet<string>;
  volumes: ReadonlySet<string>;
  /** Bridges, and host ends of containers' links. */
  links: ReadonlySet<string>;
  /** Paths of network namespaces, those made ahead too. */
  namespaces: ReadonlySet<string>;
}

export interface Places {
  dataRoot: string;
  runRoot: string;
  /** Begins the name of each of our links. */
  daemon: string;
  /** Our parent in each cgroup hierarchy. */
  cgroupParents: readonly string[];
}

const MNT_DETACH = 2;
const ID = /^[0-9a-f]{64}$/;

/** Everything is read from the host here; nothing is changed. */
export function audit(known: Known, places: Places, files: Files): Audit {
  const mounts = parseMountInfo(files.read('/proc/self/mountinfo') ?? '').map((m) => m.mountPoint);
  const { dataRoot, runRoot } = places;
  const looked: Audit['looked'] = [];
  const findings: AuditFinding[] = [];
  const look = (what: string, found: readonly AuditFinding[], count: number): void => {
    looked.push({ what, count });
    findings.push(...found);
  };

  for (const { what, parent, clean } of ID_DIRECTORIES(dataRoot, runRoot)) {
    const names = (files.list(parent) ?? []).filter((name) => ID.test(name));
    const found = names.filter((name) => !known.ids.has(name));
    look(
      what,
      found.map((name) => orphanDirectory(what, posix.join(parent, name), mounts, clean)),
      names.length,
    );
  }
  const states = foreignStates(known, runRoot, files);
  look('states of other runtimes', states.findings, states.count);
  const cgroups = cgroupFindings(known, places, files);
  look('cgroups', cgroups.findings, cgroups.count);
  const ours = mounts.filter((m) => m.startsWith(`${dataRoot}/`) || m.startsWith(`${runRoot}/`));
  look(
    'mounts',
    ours.flatMap((m) => mountFinding(m, known, places)),
    ours.length,
  );
  const links = (files.list('/sys/class/net') ?? []).filter(
    (name) => name === `${places.daemon}0` || name.startsWith(`${places.daemon}-`),
  );
  look(
    'links',
    links.flatMap((name) => linkFinding(name, known)),
    links.length,
  );
  const volumes = files.list(posix.join(dataRoot, 'volumes')) ?? [];
  look(
    'volumes',
    volumes.flatMap((name) => volumeFinding(name, dataRoot, known)),
    volumes.length,
  );
  look('running containers', missingOf(known, runRoot, files), known.running.size);
  return { findings, looked };
}

/** Directories named after containers. `clean` is false for what people may still want to read. */
const ID_DIRECTORIES = (dataRoot: string, runRoot: string): { what: string; parent: string; clean: boolean }[] => [
  { what: 'shims', parent: posix.join(runRoot, 'shims'), clean: false },
  { what: 'runtime states', parent: posix.join(runRoot, 'oci'), clean: true },
  { what: 'bundles of other runtimes', parent: posix.join(runRoot, 'bundles'), clean: false },
  { what: 'files of containers', parent: posix.join(runRoot, 'files'), clean: true },
  { what: 'roots', parent: posix.join(runRoot, 'roots'), clean: true },
  { what: 'sub-paths', parent: posix.join(runRoot, 'subpaths'), clean: true },
  { what: 'sandboxes', parent: posix.join(runRoot, 'sandboxes'), clean: true },
  { what: 'logs', parent: posix.join(dataRoot, 'containers'), clean: true },
];

/** Only the runtime itself knows what a state of its own stands for. */
function foreignStates(known: Known, runRoot: string, files: Files): { findings: AuditFinding[]; count: number } {
  const roots = (files.list(runRoot) ?? []).filter((name) => name.startsWith('oci-'));
  const states = roots.flatMap((root) => (files.list(posix.join(runRoot, root)) ?? []).map((id) => ({ root, id })));
  const findings = states
    .filter(({ id }) => ID.test(id) && !known.ids.has(id))
    .map(({ root, id }): AuditFinding => {
      const command = `${root.slice('oci-'.length)} --root ${posix.join(runRoot, root)} delete --force ${id}`;
      const because = `no container has this id; ${command} removes it`;
      return { kind: 'orphan', what: 'state of another runtime', where: posix.join(runRoot, root, id), because };
    });
  return { findings, count: states.length };
}

function orphanDirectory(what: string, path: string, mounts: readonly string[], clean: boolean): AuditFinding {
  const finding = { kind: 'orphan' as const, what, where: path, because: 'no container or sandbox has this id' };
  if (!clean) return { ...finding, because: `${finding.because}; a restart of the daemon removes it` };
  const below = mounts.filter((m) => m === path || m.startsWith(`${path}/`)).reverse();
  return withCleanup(finding, [
    ...below.map((target): Op => ({ op: 'umount', target, flags: MNT_DETACH })),
    { op: 'removeTree', path },
  ]);
}

/** Groups that the node agent keeps for pods, whether there are any: its root, and one for each class of service. */
const POD_GROUPS = new Set(['kubepods', 'kubepods/burstable', 'kubepods/besteffort']);

function cgroupFindings(
  known: Known,
  { cgroupParents }: Places,
  files: Files,
): { findings: AuditFinding[]; count: number } {
  const findings: AuditFinding[] = [];
  let count = 0;
  for (const parent of cgroupParents) {
    const below = lookBelow(parent, '', known, files);
    findings.push(...below.findings);
    count += below.count;
    const inParent = pidsIn(parent, files) ?? [];
    if (inParent.length > 0)
      findings.push({
        kind: 'stranger',
        what: 'cgroup',
        where: parent,
        because: `processes ${inParent.join(', ')} are in the parent itself, where the daemon puts none`,
      });
  }
  return { findings, count };
}

/** `owned`: something in there is a container's, or a stranger's: the groups above it are no orphans. */
function lookBelow(
  parent: string,
  group: string,
  known: Known,
  files: Files,
): { findings: AuditFinding[]; count: number; owned: boolean } {
  const all = { findings: [] as AuditFinding[], count: 0, owned: false };
  for (const name of files.list(posix.join(parent, group)) ?? []) {
    const relative = posix.join(group, name);
    const path = posix.join(parent, relative);
    const pids = pidsIn(path, files);
    if (pids === undefined) continue; // a control file
    all.count++;
    if (known.ids.has(name)) {
      all.owned = true; // what a container makes below its own is its own
      continue;
    }
    if (pids.length > 0) {
      const because = `processes ${pids.join(', ')} are in it, and no container has its name`;
      all.findings.push({ kind: 'stranger', what: 'cgroup', where: path, because });
      all.owned = true;
      continue;
    }
    const below = lookBelow(parent, relative, known, files);
    all.count += below.count;
    const kept = below.owned || POD_GROUPS.has(relative) || known.cgroupGroups.has(relative);
    all.owned ||= kept;
    if (kept) all.findings.push(...below.findings);
    else {
      const because = 'it is empty, and no container has its name or lies below it';
      all.findings.push(
        withCleanup({ kind: 'orphan', what: 'cgroup', where: path, because }, [{ op: 'removeCgroup', path }]),
      );
    }
  }
  return all;
}

function pidsIn(path: string, files: Files): string[] | undefined {
  return files.read(posix.join(path, 'cgroup.procs'))?.split('\n').filter(Boolean);
}

function mountFinding(target: string, known: Known, { dataRoot, runRoot }: Places): AuditFinding[] {
  const because = ownerOfMount(target, known, dataRoot, runRoot);
  if (because === undefined) return [];
  const finding = { kind: 'orphan' as const, what: 'mount', where: target, because };
  return [withCleanup(finding, [{ op: 'umount', target, flags: MNT_DETACH }])];
}

/** Undefined when somebody we know owns it; else why nobody does. */
function ownerOfMount(target: string, known: Known, dataRoot: string, runRoot: string): string | undefined {
  const [place = '', name = '', part] = target
    .slice((target.startsWith(`${runRoot}/`) ? runRoot : dataRoot).length + 1)
    .split('/');
  switch (place) {
    case 'roots':
    case 'subpaths':
    case 'sandboxes':
    case 'files':
      return known.ids.has(name) || !ID.test(name) ? undefined : 'no container or sandbox has this id';
    case 'netns':
      return known.namespaces.has(target)
        ? undefined
        : 'no sandbox is plugged into this namespace, and it was not made ahead';
    case 'volumes':
      return part === '_data' && known.volumes.has(name) ? undefined : 'no volume has this name';
    default:
      return undefined; // layers keep their own book
  }
}

function linkFinding(name: string, known: Known): AuditFinding[] {
  if (known.links.has(name)) return [];
  return [
    {
      kind: 'orphan',
      what: 'link',
      where: name,
      because: 'no network or endpoint has it; a restart of the daemon removes it',
    },
  ];
}

function volumeFinding(name: string, dataRoot: string, known: Known): AuditFinding[] {
  if (known.volumes.has(name)) return [];
  const where = posix.join(dataRoot, 'volumes', name);
  return [
    {
      kind: 'stranger',
      what: 'volume',
      where,
      because: 'no record names it: it holds somebody’s data, and is left alone',
    },
  ];
}

function missingOf(known: Known, runRoot: string, files: Files): AuditFinding[] {
  return [...known.running].flatMap((id): AuditFinding[] => {
    const where = posix.join(runRoot, 'shims', id);
    if (files.exists(where)) return [];
    return [{ kind: 'missing', what: 'shim', where, because: `container ${id.slice(0, 12)} runs by its record` }];
  });
}

function withCleanup(finding: Omit<AuditFinding, 'cleanup'>, ops: Op[]): AuditFinding {
  return { ...finding, cleanup: { says: ops.map(sayOp).join('; '), ops } };
}
