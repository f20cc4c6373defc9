import { posix } from 'node:path';
import { touchedControllers, unmet } from '#kernel/cgroup/convert.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import type { CgroupResources, Controller } from '#kernel/cgroup/resources.ts';
import type { Files } from '#kernel/files.ts';
import { MKDIR_MAY_EXIST } from '#kernel/plan/ops.ts';
import type { Step } from '#kernel/plan/plan.ts';

interface TreeFacts {
  files: Files;
  touched: readonly Controller[];
  resources: CgroupResources;
  reason: string;
}

const WRONLY = 1;

/**
 * The directories from the mount down to the container's cgroup, each ready to take children: on v1 with cpus and mems,
 * on v2 with controllers. A failing create takes back every directory it made, and none that it found.
 */
export function treeSteps(place: CgroupPlace, facts: TreeFacts): Step[] {
  const chain = ancestry(place);
  const prepare = place.version === 2 ? enableSteps(place, chain, facts) : new Map<string, Step[]>();
  const absent = new Set(chain.filter((dir) => dir !== place.mount && !facts.files.exists(dir)));
  const cpusets = place.version === 1 && place.controllers.includes('cpuset') ? readCpusets(chain, absent, facts) : [];
  const steps: Step[] = [];
  let inherited: CpusetValues = {};
  chain.forEach((dir, i) => {
    const isLeaf = i === chain.length - 1;
    if (absent.has(dir)) steps.push(mkdirStep(dir, isLeaf, facts.reason));
    const values = cpusets[i];
    if (values) {
      if (i > 0) steps.push(...cpusetSteps(dir, values, inherited, isLeaf ? facts.resources : {}));
      inherited = { cpus: values.cpus || inherited.cpus || '', mems: values.mems || inherited.mems || '' };
    }
    steps.push(...(prepare.get(dir) ?? []));
  });
  return steps;
}

function ancestry(place: CgroupPlace): string[] {
  const chain = [place.mount];
  for (const part of place.path.split('/').filter(Boolean)) chain.push(`${chain.at(-1)}/${part}`);
  return chain;
}

function mkdirStep(dir: string, isLeaf: boolean, reason: string): Step {
  return {
    op: 'mkdir',
    path: dir,
    mode: 0o755,
    flags: MKDIR_MAY_EXIST,
    where: 'host',
    because: reason,
    undo: [isLeaf ? { op: 'removeCgroup', path: dir } : { op: 'rmdir', path: dir }],
  };
}

// -- v1: cpusets start empty

type CpusetValues = { cpus?: string; mems?: string };

/** From the lowest that has both downwards: its parents have them too, or the kernel would not have let it. */
function readCpusets(chain: readonly string[], absent: ReadonlySet<string>, { files }: TreeFacts): CpusetValues[] {
  const found: CpusetValues[] = [];
  for (let i = chain.length - 1; i >= 0; i--) {
    const dir = chain[i] ?? '';
    const read = (name: string): string => files.read(`${dir}/${name}`)?.trim() ?? '';
    const values = absent.has(dir) ? {} : { cpus: read('cpuset.cpus'), mems: read('cpuset.mems') };
    found[i] = values;
    if (values.cpus && values.mems) break;
  }
  return found;
}

function cpusetSteps(dir: string, values: CpusetValues, inherited: CpusetValues, resources: CgroupResources): Step[] {
  const { cpu = {} } = resources;
  return (['cpus', 'mems'] as const)
    .filter((field) => !values[field] && !cpu[field] && inherited[field])
    .map((field) => ({
      op: 'write',
      path: posix.join(dir, `cpuset.${field}`),
      data: new TextEncoder().encode(inherited[field]),
      flags: WRONLY,
      mode: 0,
      where: 'host',
      because: 'a v1 cpuset is born empty and takes no process until it has its parent’s cpus and mems (cpuset(7))',
    }));
}

// -- v2: a cgroup has the controllers that its parent hands down

/** Always wanted where they can be had: OOM counts and process counts come from these. */
const USEFUL = ['memory', 'pids', 'cpu'];

function enableSteps(place: CgroupPlace, chain: readonly string[], facts: TreeFacts): Map<string, Step[]> {
  const byUnified = Object.keys(facts.resources.unified ?? {}).map((file) => file.split('.')[0] ?? '');
  const required = new Set(
    [...touchedControllers(facts.resources), ...byUnified].filter((c) => place.controllers.includes(c)),
  );
  const result = new Map<string, Step[]>();
  let offered = new Set(place.controllers);
  for (const dir of chain.slice(0, -1)) {
    const listed = facts.files.read(posix.join(dir, 'cgroup.controllers'));
    if (listed !== undefined) offered = new Set(listed.split(/\s+/));
    const enabled = new Set((facts.files.read(posix.join(dir, 'cgroup.subtree_control')) ?? '').split(/\s+/));
    const missing = [...required].filter((c) => !enabled.has(c));
    for (const controller of missing)
      if (!offered.has(controller))
        unmet('$.linux.resources', `${dir} does not offer the controller ${controller} that a limit needs`);
    // Only the top may have processes and hand controllers down ("No Internal Process Constraint").
    const busy = dir !== place.mount && !!facts.files.read(posix.join(dir, 'cgroup.procs'))?.trim();
    if (busy && missing.length > 0)
      unmet(
        '$.linux.resources',
        `${dir} has processes in it, so it cannot hand ${missing.join(', ')} down`,
        'choose a cgroupsPath below a cgroup without processes',
      );
    const useful = busy ? [] : USEFUL.filter((c) => offered.has(c) && !enabled.has(c) && !required.has(c));
    const wanted = [...missing, ...useful];
    if (wanted.length > 0) result.set(dir, [enableStep(dir, wanted)]);
    offered = new Set([...enabled, ...required, ...useful]);
  }
  return result;
}

function enableStep(dir: string, controllers: readonly string[]): Step {
  return {
    op: 'write',
    path: posix.join(dir, 'cgroup.subtree_control'),
    data: new TextEncoder().encode(controllers.map((c) => `+${c}`).join(' ')),
    flags: WRONLY,
    mode: 0,
    where: 'host',
    because: 'cgroup v2: limits need their controllers handed down from above',
  };
}
