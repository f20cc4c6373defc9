import { NAMESPACES, type NamespaceRow, type NamespaceType, namespaceRow } from '#kernel/linux/namespaces.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { O_CLOEXEC, O_RDONLY, O_WRONLY, type PlanBuilder, utf8 } from '#runtime/builder.ts';
import type { Host } from '#runtime/host.ts';
import type { OciConfig } from '#spec/oci/config.ts';

// What a create has to know of namespaces: which exist already, who maps the ids, and the clocks of a new time namespace.

/** A new user namespace, or an existing one to join: init is root there and nowhere else. */
export type UserNamespace = 'none' | 'new' | 'joined';

/** Joining the namespace one is in already is nothing; runc takes it so, and engines write it. */
export function usernsKind(config: OciConfig, host: Host): UserNamespace {
  const ns = config.linux?.namespaces?.find((n) => n.type === 'user');
  if (!ns) return 'none';
  if (!ns.path) return 'new';
  return host.sameFile(ns.path, '/proc/self/ns/user') ? 'none' : 'joined';
}

/** An existing namespace to join; `slot` holds its file, opened before the first one was entered. */
export interface Opened {
  row: NamespaceRow;
  path: string;
  because: string;
  slot: number;
}

/** Joining the namespace one is in already is nothing: runc takes it so, and engines write it. */
export function joinedNamespaces(config: OciConfig, host: Host) {
  const list = config.linux?.namespaces ?? [];
  return NAMESPACES.flatMap((row) => {
    const i = list.findIndex((ns) => ns.type === row.type && ns.path);
    const path = list[i]?.path;
    if (path === undefined || host.sameFile(path, `/proc/self/ns/${row.proc}`)) return [];
    return [{ row, path, because: `$.linux.namespaces[${i}]` }];
  });
}

/** The executor can enter these for the moment of a clone and return: it keeps nothing there, and its own steps go by paths and pids. */
const VISITED: readonly NamespaceType[] = ['ipc', 'uts', 'network'];

/**
 * Whether a process of its own has to enter namespaces before init is made: to be born in a PID or time namespace, or in an ordinary
 * user's own namespaces, or where paths mean something else. It costs a fork and four context switches, 1.6 ms of a start.
 */
export function needsMiddle(config: OciConfig, host: Host): boolean {
  const joined = joinedNamespaces(config, host);
  if (config.linux?.namespaces?.some((ns) => ns.type === 'time' && !ns.path)) return true;
  return joined.some(({ row }) => host.rootless || !VISITED.includes(row.type));
}

/** Into namespaces that nothing of the executor's own depends on, and the steps by which it returns to its own: init is cloned between. */
export function planVisits(b: PlanBuilder, opened: readonly Opened[]): { because: string; back: Op; slot: number }[] {
  const own = opened.map(({ row, because }) => {
    const [slot, path] = [b.slot(), `/proc/self/ns/${row.proc}`];
    b.host(because, { op: 'open', into: slot, path, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
    return { because, back: { op: 'setns', slot, path, type: row.flag } as const, slot };
  });
  opened.forEach(({ slot, path, row, because }, i) => {
    b.host(because, { op: 'setns', slot, path, type: row.flag }, ...own.slice(i, i + 1).map(({ back }) => back));
  });
  return own;
}

/** Offsets are taken only while nobody is in the namespace: its maker writes them, the next child enters (time_namespaces(7)). */
export function planTimeNamespace(b: PlanBuilder, config: OciConfig, index: number): void {
  b.middle(`$.linux.namespaces[${index}]`, { op: 'unshare', flags: namespaceRow('time').flag });
  const offsets = config.linux?.timeOffsets ?? {};
  for (const clock of ['monotonic', 'boottime'] as const) {
    const offset = offsets[clock];
    if (!offset) continue;
    const data = utf8(`${clock} ${offset.secs ?? 0} ${offset.nanosecs ?? 0}\n`);
    b.middle(`$.linux.timeOffsets.${clock}`, {
      op: 'write',
      path: '/proc/self/timens_offsets',
      data,
      flags: O_WRONLY,
      mode: 0,
    });
  }
}

/** One id of one's own needs no helper; anything else goes through newuidmap(1), which checks /etc/subuid. */
export function needsMapTool(config: OciConfig, host: Host): boolean {
  const one = (mappings: readonly { hostID: number; size: number }[] = [], own: number): boolean =>
    mappings.length === 1 && mappings[0]?.size === 1 && mappings[0].hostID === own;
  return host.uid !== 0 && !(one(config.linux?.uidMappings, host.uid) && one(config.linux?.gidMappings, host.gid));
}
