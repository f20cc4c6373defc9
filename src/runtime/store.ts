import { readdirSync } from 'node:fs';
import { errnoOf, messageOf } from '#base/errors.ts';
import { freezerState } from '#kernel/cgroup/state.ts';
import type { Files } from '#kernel/files.ts';
import { BadContainerId, ContainerNotFound, StateUnreadable } from '#runtime/errors.ts';
import { type ContainerRecord, type ProcessIdentity, parseIdentity, paths, RECORD_VERSION } from '#runtime/state.ts';
import { checkConfig, type OciConfig } from '#spec/oci/config.ts';
import { parseJson } from '#spec/oci/json.ts';
import type { Status } from '#spec/oci/state.ts';

export interface Container {
  record: ContainerRecord;
  config: OciConfig;
  /** Of init; absent before it was made. It may be gone by now: `status` says. */
  init?: ProcessIdentity;
  status: Status;
}

/** runc's alphabet. `.` and `..` are made of it too, and are directories. */
const ID = /^[\w+.-]{1,1024}$/;

export function checkId(id: string): void {
  if (!ID.test(id)) throw new BadContainerId({ id, rule: 'may only have letters, digits, _, +, - and .' });
  if (id === '.' || id === '..') throw new BadContainerId({ id, rule: 'is a directory name' });
}

export function loadContainer(root: string, id: string, files: Files): Container {
  checkId(id);
  const at = paths(root, id);
  const text = files.read(at.record);
  if (text === undefined) {
    if (!files.exists(at.dir)) throw new ContainerNotFound({ id });
    throw new StateUnreadable({ path: at.record, why: 'it is not there' });
  }
  const record = parseRecord(text, at.record);
  const init = parseIdentity(files.read(at.pid) ?? '');
  const status = statusOf({ record, init, hasFifo: files.exists(at.fifo) }, files);
  return { record, config: checkConfig(record.config), ...(init ? { init } : {}), status };
}

function parseRecord(text: string, path: string): ContainerRecord {
  let record: ContainerRecord;
  try {
    record = parseJson(text) as ContainerRecord;
  } catch (error) {
    throw new StateUnreadable({ path, why: messageOf(error) });
  }
  if (record.version !== RECORD_VERSION)
    throw new StateUnreadable({ path, why: `it has version ${record.version}, and ${RECORD_VERSION} is known here` });
  return record;
}

function statusOf(
  seen: { record: ContainerRecord; init: ProcessIdentity | undefined; hasFifo: boolean },
  files: Files,
): Status {
  const { record, init, hasFifo } = seen;
  if (!init) return record.creator && isAlive(record.creator, files) ? 'creating' : 'stopped';
  if (!isAlive(init, files)) return 'stopped';
  const frozen = freezerState(record.cgroups, files);
  if (frozen === 'frozen' || frozen === 'freezing') return 'paused';
  return hasFifo ? 'created' : 'running';
}

/** Is it still this process, and more than a zombie? Field 22 of /proc/PID/stat is the start time. */
export function isAlive(identity: ProcessIdentity, files: Files): boolean {
  const found = readProcess(identity.pid, files);
  return found !== undefined && found.startTime === BigInt(identity.startTime) && !'ZX'.includes(found.state);
}

export function readProcess(pid: number, files: Files): { state: string; startTime: bigint } | undefined {
  const stat = files.read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name in parentheses may hold spaces and parentheses itself: fields are counted from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '?', startTime: BigInt(fields[19] ?? 0) };
}

/** Ids below a root, sorted. No root means no containers yet. */
export function listIds(root: string): string[] {
  try {
    const entries = readdirSync(root, { withFileTypes: true });
    return entries
      .filter((e) => e.isDirectory() && ID.test(e.name))
      .map((e) => e.name)
      .sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
