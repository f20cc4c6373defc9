import type { NamespaceRow } from '#kernel/linux/namespaces.ts';
import { namespaceFlags } from '#kernel/linux/namespaces.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Op, OpName } from '#kernel/plan/plan.ts';
import type { Vocabulary } from '#kernel/plan/vocabulary.ts';
import { O_CLOEXEC, O_RDONLY, type PlanBuilder } from '#runtime/builder.ts';
import type { Host } from '#runtime/host.ts';
import type { ProcessIdentity } from '#runtime/state.ts';

/** What an exec's plan does about the namespaces of its container, each part at its place in the plan. */
export interface Entrance {
  /** On the host, first: of the process that was recorded, and of no other that got its pid. */
  open(): void;
  /**
   * Who clones the process that runs the program enters before. What is returned are that process's first steps: it enters what it could
   * not be born in, and nothing that leads here stays open in the container.
   */
  clone(flags: bigint, cgroup: number): () => void;
}

type Way = (b: PlanBuilder, init: ProcessIdentity, joins: readonly NamespaceRow[]) => Entrance;

const BECAUSE = 'the container’s namespaces';

/**
 * Who clones into a cgroup has to see it from its cgroup namespace, and its own as well, where the hierarchy is mounted with `nsdelegate`
 * (cgroup-v2.rst, Delegation Containment; systemd mounts it so): else it is ENOENT. So that namespace is left to the process that is born.
 */
function splitAt(joins: readonly NamespaceRow[], cgroup: number): { before: NamespaceRow[]; after: NamespaceRow[] } {
  const late = (row: NamespaceRow): boolean => row.type === 'cgroup' && cgroup !== NO_SLOT;
  return { before: joins.filter((row) => !late(row)), after: joins.filter(late) };
}

const typesOf = (joins: readonly NamespaceRow[]): number => namespaceFlags(joins.map((row) => row.type));

const BORN_INSIDE: readonly OpName[] = ['openProcess', 'cloneInto'];

function openProcess(b: PlanBuilder, { pid, startTime }: ProcessIdentity, into: number): void {
  b.host('default', { op: 'openProcess', into, pid, startTime: BigInt(startTime) });
}

/** Without a middle process: the executor enters, clones and is at home again in one step. */
export const bornInside: Way = (b, init, joins) => {
  const slot = b.slot();
  return {
    open: () => openProcess(b, init, slot),
    clone(flags, cgroup) {
      const { before, after } = splitAt(joins, cgroup);
      const types = typesOf(before);
      if (types === 0) b.host('default', { op: 'clone', flags, cgroup, sibling: 0 });
      else b.host(BECAUSE, { op: 'cloneInto', slot, pid: init.pid, types, flags, cgroup });
      return () => {
        if (after.length > 0) b.init(BECAUSE, { op: 'enterProcess', slot, pid: init.pid, types: typesOf(after) });
        b.close('init', 'default', slot);
      };
    },
  };
};

/** It cannot come back from a user namespace, and its own clocks are not to change for a moment either. */
export function needsMiddle(others: readonly NamespaceRow[], host: Host, knows: Vocabulary): boolean {
  const there = others.some(({ type }) => type === 'user' || type === 'time');
  return there || host.rootless || !host.entersByPidfd || !BORN_INSIDE.every((name) => knows.has(name));
}

/** All at once, by init's pidfd. */
const byPidfd: Way = (b, init, joins) => {
  const slot = b.slot();
  return {
    open: () => openProcess(b, init, slot),
    clone(flags, cgroup) {
      const { before, after } = splitAt(joins, cgroup);
      const enter = (rows: NamespaceRow[]): Op => ({ op: 'enterProcess', slot, pid: init.pid, types: typesOf(rows) });
      if (before.length > 0) b.middle(BECAUSE, enter(before));
      if (after.length === 0) b.close('middle', 'default', slot);
      b.middle('default', { op: 'clone', flags, cgroup, sibling: 0 });
      return () => {
        if (after.length === 0) return;
        b.init(BECAUSE, enter(after));
        b.close('init', 'default', slot);
      };
    },
  };
};

/** One by one, by their files: as every executor and every kernel can. */
const oneByOne: Way = (b, init, joins) => {
  const opened = joins.map((row) => ({ row, path: `/proc/${init.pid}/ns/${row.proc}`, slot: b.slot() }));
  return {
    open() {
      for (const { path, slot } of opened)
        b.host(BECAUSE, { op: 'open', into: slot, path, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
      // What was opened is the container's only if its process still is the one that was recorded: signal 0 asks, after.
      b.host('default', { op: 'kill', pid: init.pid, startTime: BigInt(init.startTime), signal: 0 });
    },
    clone(flags, cgroup) {
      const { after } = splitAt(joins, cgroup);
      const enter = ({ row, path, slot }: (typeof opened)[number]): Op => ({ op: 'setns', slot, path, type: row.flag });
      for (const one of opened) if (!after.includes(one.row)) b.middle(BECAUSE, enter(one));
      b.middle('default', { op: 'clone', flags, cgroup, sibling: 0 });
      return () => {
        for (const one of opened) {
          if (after.includes(one.row)) b.init(BECAUSE, enter(one));
          b.close('init', 'default', one.slot);
        }
      };
    },
  };
};

/** Of a middle process. The best way first, with the operations it takes beyond those of the first executors. The last one takes none. */
const WAYS: readonly (readonly [Way, ...OpName[]])[] = [[byPidfd, 'openProcess', 'enterProcess'], [oneByOne]];

/** The best way of a middle process that kernel and executor know; a shim may be of an older build than we are. */
export function entranceFor(host: Host, knows: Vocabulary): Way {
  if (!host.entersByPidfd) return oneByOne;
  const [way] = WAYS.find(([, ...takes]) => takes.every((name) => knows.has(name))) ?? [oneByOne];
  return way;
}
