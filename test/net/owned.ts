import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { hostFiles } from '#kernel/files.ts';
import { type Mount, parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { isAlive, readStat } from '#kernel/proc/process.ts';

// A test run that is killed with SIGKILL takes nothing back: namespaces that it has pinned below a directory of its own stay, and what
// serves in them. So the directory says whose it is, and the next run removes those whose owner has ended:
//
//   estiba-NAME-XXXXXX/.owner     pid · start time in clock ticks · the PID namespace in which that pid counts
//                      .cgroup    a name in the root of each hierarchy, of what runs there and ends with its owner

const OWNER = '.owner';
const CGROUP = '.cgroup';

/** A new directory for temporary files, this process's. */
export function ownedDirectory(prefix: string): string {
  const dir = mkdtempSync(join(tmpdir(), prefix));
  noteOwner(dir, process.pid);
  return dir;
}

export function noteOwner(dir: string, pid: number): void {
  const stat = readStat(pid, hostFiles);
  if (!stat) throw new Error(`no process ${pid}`);
  writeFileSync(join(dir, OWNER), `${pid} ${stat.startTicks} ${pidNamespace()}\n`);
}

/** What has run in cgroups of this name goes with the directory. */
export function noteCgroup(dir: string, name: string): void {
  writeFileSync(join(dir, CGROUP), name);
}

/** Removes what dead owners left in `parent`, with the processes in namespaces pinned there; answers with their directories. */
export function sweepDead(parent = tmpdir()): string[] {
  const dead = readdirSync(parent)
    .map((name) => join(parent, name))
    .filter(isDead)
    .filter(withoutCgroups);
  for (const dir of dead) {
    const mounts = mountsBelow(dir);
    for (const { fsType, mountPoint } of mounts) if (fsType === 'nsfs') endProcessesIn(mountPoint);
    for (const { mountPoint } of mounts.reverse()) spawnSync('umount', ['--lazy', mountPoint]);
    rmSync(dir, { recursive: true, force: true });
  }
  return dead;
}

/** Not while what was killed still ends: the next run's to remove. */
function withoutCgroups(dir: string): boolean {
  try {
    const name = textOf(join(dir, CGROUP));
    if (name) removeCgroups(name);
    return true;
  } catch (error) {
    if (errnoOf(error) !== 'EBUSY') throw error;
    return false;
  }
}

/** Of this name in each hierarchy, or in the only one, with those inside; nothing runs there any more. */
export function removeCgroups(name: string): void {
  const remove = (dir: string): void => {
    for (const entry of readdirSync(dir, { withFileTypes: true }))
      if (entry.isDirectory()) remove(join(dir, entry.name));
    rmdirSync(dir);
  };
  for (const hierarchy of ['', ...readdirSync('/sys/fs/cgroup')]) {
    const dir = join('/sys/fs/cgroup', hierarchy, name);
    if (existsSync(dir)) remove(dir);
  }
}

/** Not one that says nothing of an owner, nor one whose owner counts in another PID namespace: nobody here can tell. */
function isDead(dir: string): boolean {
  const [pid, startTicks, namespace] = (textOf(join(dir, OWNER)) ?? '').trim().split(' ');
  if (!startTicks || namespace !== pidNamespace()) return false;
  return !isAlive(Number(pid), BigInt(startTicks), hostFiles);
}

function pidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid');
}

function mountsBelow(dir: string): Mount[] {
  const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return mounts.filter(({ mountPoint }) => mountPoint.startsWith(`${dir}/`));
}

/** Nobody but the dead run's own have entered a network namespace that it pinned. */
function endProcessesIn(pin: string): void {
  const namespace = `net:[${statSync(pin).ino}]`;
  if (namespace === namespaceOf('self')) throw new Error(`${pin} is the namespace of this process`);
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
    if (namespaceOf(pid) === namespace) spawnSync('kill', ['-KILL', pid]); // fails when it has just ended
}

function namespaceOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return ''; // it has ended
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // no directory, or none of ours
  }
}
