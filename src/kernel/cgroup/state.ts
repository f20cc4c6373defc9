import { posix } from 'node:path';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { dirOf, placeOf, unifiedPlace } from '#kernel/cgroup/place.ts';
import type { Files } from '#kernel/files.ts';
import type { Op } from '#kernel/plan/plan.ts';

// What the kernel says about the processes of a cgroup.

/** Cgroups nest at most this deep in what we read; a deeper tree is a container at war with us. */
const MOST_DEPTH = 64;

/** Pids (as seen from here) in the container's cgroup and in all below it, sorted. */
export function processesIn(places: readonly CgroupPlace[], files: Files): number[] {
  // A process can be moved in one v1 hierarchy alone; the freezer's and the devices' are nobody's to move but root's.
  const place =
    (places.some((p) => p.version === 1) ? undefined : unifiedPlace(places)) ??
    ['freezer', 'devices', 'pids'].map((c) => placeOf(places, c)).find((p) => p !== undefined) ??
    places[0];
  if (!place) return [];
  const pids = new Set<number>();
  for (const dir of treeOf(dirOf(place), files))
    for (const line of (files.read(posix.join(dir, 'cgroup.procs')) ?? '').split('\n'))
      if (line) pids.add(Number(line));
  return [...pids].sort((a, b) => a - b);
}

export function hasProcesses(place: CgroupPlace, files: Files): boolean {
  return processesIn([place], files).length > 0;
}

/** A directory and all cgroups below, parents first. */
function treeOf(top: string, files: Files): string[] {
  const found: string[] = [];
  const walk = (dir: string, depth: number): void => {
    const names = files.list(dir);
    if (!names || depth > MOST_DEPTH) return;
    found.push(dir);
    // Control files all have a dot; a cgroup may have one too, then listing it tells.
    for (const name of names) {
      const child = posix.join(dir, name);
      if (!name.includes('.') || files.list(child)?.includes('cgroup.procs')) walk(child, depth + 1);
    }
  };
  walk(top, 0);
  return found.filter((dir) => files.list(dir)?.includes('cgroup.procs'));
}

export type FreezerState = 'frozen' | 'thawed' | 'freezing';

/** `undefined`: there is no freezer for these. */
export function freezerState(places: readonly CgroupPlace[], files: Files): FreezerState | undefined {
  const v1 = placeOf(places, 'freezer');
  if (v1) {
    const text = files.read(posix.join(dirOf(v1), 'freezer.state'))?.trim();
    const states: Partial<Record<string, FreezerState>> = { FROZEN: 'frozen', FREEZING: 'freezing', THAWED: 'thawed' };
    return text === undefined ? undefined : states[text];
  }
  const v2 = unifiedPlace(places);
  if (!v2) return undefined;
  const wanted = files.read(posix.join(dirOf(v2), 'cgroup.freeze'))?.trim();
  if (wanted === undefined) return undefined;
  if (wanted === '0') return 'thawed';
  return events(v2, 'cgroup.events', files)['frozen'] === 1 ? 'frozen' : 'freezing';
}

export function frozenNow(place: CgroupPlace, files: Files): boolean {
  if (place.version === 1 && !place.controllers.includes('freezer')) return false;
  const state = freezerState([place], files);
  return state === 'frozen' || state === 'freezing';
}

/**
 * Freezing is a wish: v1 may stay FREEZING while a process forks, until FROZEN is written again; v2 settles by itself.
 * Write, look at `freezerState`, write again.
 */
export function freezeOps(places: readonly CgroupPlace[], frozen: boolean): Op[] {
  const v1 = placeOf(places, 'freezer');
  const v2 = unifiedPlace(places);
  const [path, value] = v1
    ? [posix.join(dirOf(v1), 'freezer.state'), frozen ? 'FROZEN' : 'THAWED']
    : [v2 ? posix.join(dirOf(v2), 'cgroup.freeze') : '', frozen ? '1' : '0'];
  return path === '' ? [] : [{ op: 'write', path, data: new TextEncoder().encode(value), flags: 1, mode: 0 }];
}

/** How many processes the OOM killer took here since the cgroup was made; undefined where nobody counts. */
export function oomKills(places: readonly CgroupPlace[], files: Files): number | undefined {
  const place = placeOf(places, 'memory');
  if (!place) return undefined;
  return events(place, place.version === 1 ? 'memory.oom_control' : 'memory.events', files)['oom_kill'];
}

/** `key value` lines. */
export function events(place: CgroupPlace, file: string, files: Files): Record<string, number> {
  return keyed(files.read(posix.join(dirOf(place), file)) ?? '');
}

export function keyed(text: string): Record<string, number> {
  const pairs = text.split('\n').flatMap((line) => {
    const [key, value] = line.split(' ');
    return key && value !== undefined ? [[key, Number(value)] as const] : [];
  });
  return Object.fromEntries(pairs);
}
