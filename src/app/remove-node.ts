import { readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { retireEdge } from '#app/edge-door.ts';
import { sleep, systemClock } from '#base/clock.ts';
import { defineError, errnoOf } from '#base/errors.ts';
import { HeldAddresses } from '#cluster/proxy/held-addresses.ts';
import { removeTable as removeServicesTable } from '#cluster/proxy/table.ts';
import { readCgroupLayout } from '#kernel/cgroup/layout.ts';
import { hostFiles } from '#kernel/files.ts';
import { findNetHand, type NetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { formatIp } from '#kernel/netlink/ip.ts';
import { deleteLink, dumpLinks, parseLinks } from '#kernel/netlink/link.ts';
import { deleteAddress, dumpAddresses, parseAddresses } from '#kernel/netlink/route.ts';
import { type Message, NETLINK_NETFILTER, NETLINK_ROUTE, type Received } from '#kernel/netlink/wire.ts';
import { batch } from '#kernel/nft/message.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Step } from '#kernel/plan/plan.ts';
import { parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { removeTable } from '#network/ruleset.ts';
import { Spawner, spawnerSocket } from '#shim/spawner.ts';
import { lockDirectory } from '#storage/lock.ts';

/**
 * `estiba daemon --remove`: the node goes, with its containers, pods, images and volumes. For leaving a machine as it was before;
 * the daemon has ended by then. Nothing is asked of the node's own records, which may be what is broken: all that is ours is known by
 * its place (below the roots) or its name (cgroups, links, tables).
 */
export interface NodePlaces {
  name: string;
  dataRoot: string;
  runRoot: string;
}

export const NodeStays = defineError('NODE_STAYS', (d: { what: string }) => ({
  message: `${d.what} does not end`,
  hint: 'a system call holds it (see /proc/PID/stack); run the command again when it has gone',
}));

const END_MAX_MS = 10_000;
const END_POLL_MS = 20;
const MNT_DETACH = 2;
const LOOPBACK_INDEX = 1;

export async function removeNode(places: NodePlaces, say: (text: string) => void): Promise<void> {
  const { name, dataRoot, runRoot } = places;
  if ((await below(runRoot)).length > 0) lockDirectory(join(runRoot, 'daemon.lock')); // a daemon that runs is named; it goes with R
  const cgroups = readCgroupLayout(hostFiles).hierarchies.map((h) => join(h.mount, name));
  say(`${await endContainers(cgroups)} processes of containers`);
  await retireEdge(runRoot);
  await endSpawner(runRoot);
  const hand = spawnNetHand(findNetHand());
  try {
    await removeTables(hand, name);
    await removeAddresses(hand, new HeldAddresses(runRoot).read());
    say(`${await removeLinks(hand, name)} network links`);
  } finally {
    hand.close();
  }
  say(`${await unmountBelow([runRoot, dataRoot])} mounts`);
  for (const cgroup of cgroups) await removeCgroup(cgroup);
  await rm(runRoot, { recursive: true, force: true });
  await rm(dataRoot, { recursive: true, force: true });
  say(`${runRoot} and ${dataRoot}`);
}

/** Their shims see the end, write it down and go too. Again until none is left: a program may fork while it is looked for. */
async function endContainers(cgroups: readonly string[]): Promise<number> {
  const ended = new Set<number>();
  for (let waitedMs = 0; ; waitedMs += END_POLL_MS) {
    const pids = (await Promise.all(cgroups.map(processesOf))).flat();
    if (pids.length === 0) return ended.size;
    if (waitedMs > END_MAX_MS) throw new NodeStays({ what: `process ${pids[0]}` });
    for (const pid of pids) {
      ended.add(pid);
      kill(pid);
    }
    await sleep(systemClock, END_POLL_MS);
  }
}

async function processesOf(cgroup: string): Promise<number[]> {
  const own = (hostFiles.read(join(cgroup, 'cgroup.procs')) ?? '').split('\n').filter(Boolean).map(Number);
  const children = await Promise.all((await directories(cgroup)).map(processesOf));
  return [...own, ...children.flat()];
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}

async function endSpawner(runRoot: string): Promise<void> {
  if (!(await below(runRoot)).includes('spawner.sock')) return;
  const spawner = await Spawner.start(spawnerSocket(runRoot)); // one that died left its socket: the next takes its place, and ends
  await spawner.quit();
}

async function removeTables(hand: NetHand, name: string): Promise<void> {
  for (const messages of [removeTable(name), removeServicesTable(name)]) {
    await hand.netlink({ what: 'remove a table', protocol: NETLINK_NETFILTER, messages: batch(messages) });
  }
}

async function removeLinks(hand: NetHand, name: string): Promise<number> {
  const links = parseLinks(await route(hand, [dumpLinks()]));
  const ours = links.filter((link) => link.name === `${name}0` || link.name.startsWith(`${name}-`));
  for (const link of ours) await route(hand, [deleteLink({ index: link.index })]);
  return ours.length;
}

/** What Services of type LoadBalancer got of a pool. */
async function removeAddresses(hand: NetHand, addresses: readonly string[]): Promise<void> {
  const present = parseAddresses(await route(hand, [dumpAddresses()]));
  for (const { index, cidr } of present)
    if (index === LOOPBACK_INDEX && addresses.includes(formatIp(cidr.ip)))
      await route(hand, [deleteAddress({ index, cidr })]);
}

function route(hand: NetHand, messages: Message[]): Promise<Received[]> {
  return hand.netlink({ what: 'remove links', protocol: NETLINK_ROUTE, messages });
}

/** The last mounted first: one may stand on another. */
async function unmountBelow(roots: readonly string[]): Promise<number> {
  const mounts = parseMountInfo(hostFiles.read('/proc/self/mountinfo') ?? '').map((m) => m.mountPoint);
  const ours = mounts.filter((at) => roots.some((root) => at === root || at.startsWith(`${root}/`))).reverse();
  const steps = ours.map(
    (target): Step => ({
      op: 'umount',
      where: 'host',
      because: 'the node goes',
      target,
      flags: MNT_DETACH,
    }),
  );
  if (steps.length > 0) await runPlan({ steps });
  return ours.length;
}

async function removeCgroup(cgroup: string): Promise<void> {
  for (const child of await directories(cgroup)) await removeCgroup(child);
  for (let waitedMs = 0; ; waitedMs += END_POLL_MS) {
    try {
      return await rmdir(cgroup);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      // A process that was killed leaves its cgroup when the kernel is done with it.
      if (errnoOf(error) !== 'EBUSY' || waitedMs > END_MAX_MS) throw error;
    }
    await sleep(systemClock, END_POLL_MS);
  }
}

async function directories(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((e) => e.isDirectory()).map((e) => join(path, e.name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function below(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
