import { posix } from 'node:path';
import { checkResources, touchedControllers, unmet } from '#kernel/cgroup/convert.ts';
import { DEFAULT_DEVICE_RULES, deviceLines, deviceProgram } from '#kernel/cgroup/devices.ts';
import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import { hierarchyOf, unifiedOf } from '#kernel/cgroup/layout.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { dirOf, hierarchiesFor, placeOf, placesFor, unifiedPlace } from '#kernel/cgroup/place.ts';
import { fileProbe } from '#kernel/cgroup/probe.ts';
import type { CgroupResources, CgroupWrite, Controller, DeviceRule } from '#kernel/cgroup/resources.ts';
import { frozenNow, hasProcesses } from '#kernel/cgroup/state.ts';
import { treeSteps } from '#kernel/cgroup/tree.ts';
import { V1_WRITERS } from '#kernel/cgroup/v1.ts';
import { V2_WRITERS } from '#kernel/cgroup/v2.ts';
import { CgroupUnfit } from '#kernel/errors.ts';
import type { Files } from '#kernel/files.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Op, Step } from '#kernel/plan/plan.ts';

export interface CgroupRequest {
  /** `linux.cgroupsPath`. */
  cgroupsPath?: string;
  /** Names the cgroup when there is no path. */
  id: string;
  resources?: CgroupResources;
  /** What wishes are named by; `$.linux.resources` unless said. */
  because?: string;
  /**
   * True inside a user namespace: no device filter can be set there (and none is needed: nodes cannot be made), and
   * hierarchies we may not write to are left out as long as no wish needs them.
   */
  rootless?: boolean;
  /**
   * Beside v1 also in the unified hierarchy, wished for or not. Costs 0.1 ms; runc does so, and who reads the last line of
   * /proc/PID/cgroup to find a container counts on it.
   */
  unified?: boolean;
}

export interface CgroupPlan {
  /** To be kept: update, exec, stats and removal start from these. */
  places: readonly CgroupPlace[];
  /** On the host, before the container's process is made. */
  create: readonly Step[];
  /**
   * v1: in init, right after its making, as long as it sees the host's mounts. A cgroup namespace is unshared after
   * these: clone(2) would root it in the maker's cgroup.
   */
  join: readonly Step[];
  /** v2: the directory that the process is cloned into (CLONE_INTO_CGROUP). */
  cloneInto?: string;
  /** For the log: wishes that hold in another way than asked, things found that need not be. */
  warnings: readonly string[];
}

const HOST = 'host';
const WRONLY = 1;

/** The steps that make a container's cgroup, with every wish in it before a process is. */
export function planCgroup(request: CgroupRequest, layout: CgroupLayout, host: Files): CgroupPlan {
  const files = lookingOnce(host);
  const { resources = {}, because = '$.linux.resources', rootless = false } = request;
  checkResources(resources, because);
  const touched = touchedControllers(resources);
  requireControllers(touched, resources, layout, because);

  const devicesOnV2 = !rootless && !hierarchyOf(layout, 'devices');
  const needsUnified =
    request.unified === true ||
    devicesOnV2 ||
    Object.keys(resources.unified ?? {}).length > 0 ||
    touched.some((controller) => hierarchyOf(layout, controller)?.version === 2);
  const hierarchies = hierarchiesFor(layout, needsUnified && unifiedOf(layout) !== undefined);
  const all = placesFor(request.cgroupsPath, request.id, hierarchies);
  const places = rootless ? writablePlaces(all, touched, files, because) : all;
  const warnings = places.flatMap((place) => checkFit(place, files));

  const devices = rootless ? [] : deviceSteps(allDevices(resources), places, because, layout);
  const create = [
    ...places.flatMap((place) => treeSteps(place, { files, touched, resources, reason: pathReason(request) })),
    ...wishSteps(resources, places, because, files, 'create'),
    ...devices,
  ];
  const unified = unifiedPlace(places);
  return {
    places,
    create,
    join: joinSteps(places),
    ...(unified ? { cloneInto: dirOf(unified) } : {}),
    warnings: [...warnings, ...statedWishes(resources, because)],
  };
}

/** Changes a running container's limits. Each step takes the old value back when a later one fails. */
export function planUpdate(
  places: readonly CgroupPlace[],
  resources: CgroupResources,
  files: Files,
  because = '$.linux.resources',
): Step[] {
  checkResources(resources, because);
  for (const controller of touchedControllers(resources))
    if (!placeOf(places, controller)) unmet(`${because}.${fieldOf(controller)}`, noController(controller));
  const devices = resources.devices ? deviceSteps(allDevices(resources), places, because) : [];
  return [...wishSteps(resources, places, because, files, 'update'), ...devices];
}

/**
 * v1: the process writes itself into each cgroup. 0.02 ms; written by another process it may cost 10 ms. Where init is in
 * a user namespace and may not, the runtime opens the `tasks` files on the host and gives slots.
 */
export function joinSteps(places: readonly CgroupPlace[]): Step[] {
  return places
    .filter((place) => place.version === 1)
    .map((place) => ({
      op: 'joinCgroup',
      path: dirOf(place),
      slot: NO_SLOT,
      where: 'init',
      because: 'the container’s cgroup',
    }));
}

/**
 * Where an exec has to go on v2: into init's own cgroup, should init have moved itself into a child and given it
 * controllers (systemd does), because the kernel takes no process into a cgroup whose children have controllers.
 * `initCgroup` is /proc/PID/cgroup of the container's init.
 */
export function execDir(places: readonly CgroupPlace[], initCgroup: string): string | undefined {
  const unified = unifiedPlace(places);
  if (!unified) return undefined;
  const path = /^0::(.*)$/m.exec(initCgroup)?.[1];
  const below = path !== undefined && (path === unified.path || path.startsWith(`${unified.path}/`));
  return below ? posix.join(unified.mount, path) : dirOf(unified);
}

/** Removal, children first. Nothing may run in them any more. */
export function removeOps(places: readonly CgroupPlace[]): Op[] {
  return places.map((place) => ({ op: 'removeCgroup', path: dirOf(place) }));
}

/**
 * v2 delegation: the container's root gets its cgroup, when it has a cgroup namespace of its own and the cgroup file
 * system writable (config-linux.md, "Cgroup ownership"). Only the directory and the files the kernel names.
 */
export function delegationSteps(places: readonly CgroupPlace[], uid: number, gid: number, files: Files): Step[] {
  const unified = unifiedPlace(places);
  if (!unified || places.some((place) => place.version === 1)) return [];
  const listed = files.read('/sys/kernel/cgroup/delegate')?.split('\n').filter(Boolean);
  const known = listed ?? ['cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads'];
  const has = fileProbe(unified, files);
  const names = ['', ...known.filter((name) => name.startsWith('cgroup.') || has(name))];
  return names.map((name) => ({
    op: 'chown',
    path: posix.join(dirOf(unified), name),
    uid,
    gid,
    where: HOST,
    because: 'config-linux.md, Cgroup ownership: the cgroup mount is writable',
  }));
}

// -- wishes

function wishSteps(
  resources: CgroupResources,
  places: readonly CgroupPlace[],
  because: string,
  files: Files,
  when: 'create' | 'update',
): Step[] {
  const steps: Step[] = [];
  for (const controller of touchedControllers(resources)) {
    const place = placeOf(places, controller);
    if (!place || controller === 'devices') continue;
    const writer = (place.version === 1 ? V1_WRITERS : V2_WRITERS)[controller];
    const now = (file: string): string | undefined =>
      when === 'update' ? files.read(posix.join(dirOf(place), file)) : undefined;
    const writes = writer(resources, { because, has: fileProbe(place, files), now });
    steps.push(...writes.map((write) => writeStep(place, write, now(write.file))));
  }
  // Last, as the specification's own words come before conversions of v1's.
  const unified = unifiedPlace(places);
  for (const [file, value] of Object.entries(resources.unified ?? {})) {
    if (!unified) unmet(`${because}.unified`, 'there is no cgroup v2 hierarchy here');
    for (const line of value.split('\n').filter(Boolean))
      steps.push(writeStep(unified, { file, value: line, because: `${because}.unified[${JSON.stringify(file)}]` }));
  }
  return steps;
}

function writeStep(place: CgroupPlace, { file, value, because }: CgroupWrite, old?: string): Step {
  const path = posix.join(dirOf(place), file);
  // Only plain values can be written back as they read: keyed files (io.max) tell every device.
  const plain = old !== undefined && /^\S+( \S+)?\n?$/.test(old) && !value.includes(':');
  return {
    op: 'write',
    path,
    data: bytes(value),
    flags: WRONLY,
    mode: 0,
    where: HOST,
    because,
    ...(plain ? { undo: [{ op: 'write', path, data: bytes(old.trim()), flags: WRONLY, mode: 0 }] } : {}),
  };
}

/** Whether a directory is there is asked for several reasons. */
function lookingOnce(files: Files): Files {
  const seen = new Map<string, boolean>();
  const exists = (path: string): boolean => {
    const known = seen.get(path) ?? files.exists(path);
    seen.set(path, known);
    return known;
  };
  return { ...files, exists };
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function allDevices(resources: CgroupResources): DeviceRule[] {
  return [...(resources.devices ?? []), ...DEFAULT_DEVICE_RULES];
}

function deviceSteps(
  rules: readonly DeviceRule[],
  places: readonly CgroupPlace[],
  because: string,
  layout?: CgroupLayout,
): Step[] {
  const v1 = placeOf(places, 'devices');
  if (v1) return deviceLines(rules).map((line) => writeStep(v1, { ...line, because: `${because}.devices` }));
  const unified = unifiedPlace(places);
  if (!unified) {
    // No cgroups at all: then nothing can be limited, and only an explicit wish is an error.
    if (layout?.kind === 'none' && rules.length === DEFAULT_DEVICE_RULES.length) return [];
    return unmet(`${because}.devices`, 'neither a devices hierarchy nor cgroup v2 is mounted', 'mount cgroup2');
  }
  return [
    {
      op: 'deviceFilter',
      cgroup: dirOf(unified),
      program: deviceProgram(rules),
      where: HOST,
      because: `${because}.devices`,
    },
  ];
}

// -- can it be had?

function requireControllers(
  touched: readonly Controller[],
  resources: CgroupResources,
  layout: CgroupLayout,
  because: string,
): void {
  for (const controller of touched)
    if (!hierarchyOf(layout, controller))
      unmet(`${because}.${fieldOf(controller)}`, noController(controller), MOUNT_HINT);
  for (const file of Object.keys(resources.unified ?? {})) {
    const [controller = ''] = file.split('.');
    const unified =
      unifiedOf(layout) ?? unmet(`${because}.unified`, 'there is no cgroup v2 hierarchy here', MOUNT_HINT);
    // "The runtime MUST generate an error when the configuration refers to a cgroup controller that is not present."
    if (controller !== 'cgroup' && !unified.controllers.includes(controller))
      unmet(
        `${because}.unified[${JSON.stringify(file)}]`,
        `cgroup v2 has no controller ${controller} here`,
        MOUNT_HINT,
      );
  }
}

const MOUNT_HINT = 'see `estiba doctor` for the controllers of this host';

function noController(controller: Controller): string {
  return `the cgroup controller ${controller} is not available`;
}

function fieldOf(controller: Controller): string {
  const fields: Partial<Record<Controller, string>> = {
    cpuset: 'cpu.cpus',
    io: 'blockIO',
    hugetlb: 'hugepageLimits',
    net_cls: 'network.classID',
    net_prio: 'network.priorities',
  };
  return fields[controller] ?? controller;
}

/** Without root: the hierarchies that were given to this user. None is fine, unless a limit needs one. */
function writablePlaces(
  places: readonly CgroupPlace[],
  touched: readonly Controller[],
  files: Files,
  because: string,
): CgroupPlace[] {
  const writable = places.filter((place) => files.writable(nearestExisting(place, files)));
  for (const controller of touched)
    if (!placeOf(writable, controller))
      unmet(
        `${because}.${fieldOf(controller)}`,
        'this user may not make cgroups there',
        'ask for cgroup v2 delegation',
      );
  return writable;
}

function nearestExisting(place: CgroupPlace, files: Files): string {
  let dir = dirOf(place);
  while (dir !== place.mount && !files.exists(dir)) dir = posix.dirname(dir);
  return dir;
}

function checkFit(place: CgroupPlace, files: Files): string[] {
  const dir = dirOf(place);
  if (!files.exists(dir)) return []; // nearly always: an error for each file that is not there costs five times this look
  // A container made in a frozen cgroup would hang before its first instruction, and we with it.
  if (frozenNow(place, files))
    throw new CgroupUnfit({
      dir,
      rule: "container's cgroup unexpectedly frozen",
      hint: 'thaw it or choose another cgroupsPath',
    });
  if (!hasProcesses(place, files)) return [];
  return [`container's cgroup is not empty (${dir}): its limits count the processes in it too`];
}

/** Wishes that a newer kernel meets by doing something else, said instead of dropped. */
function statedWishes(resources: CgroupResources, because: string): string[] {
  const { memory = {} } = resources;
  return [
    ...(memory.kernel !== undefined && BigInt(memory.kernel) > 0n
      ? [`${because}.memory.kernel: no kernel since 5.16 limits its own memory apart; it counts in memory.limit`]
      : []),
    ...(memory.useHierarchy === false
      ? [`${because}.memory.useHierarchy: no kernel since 5.11 accounts without hierarchy`]
      : []),
  ];
}

function pathReason(request: CgroupRequest): string {
  return request.cgroupsPath ? '$.linux.cgroupsPath' : 'default: a cgroup named after the container';
}
