import type { KubeObject, ManagedFields } from '#cluster/store/objects.ts';
import type { TypeFacts } from '#spec/kubernetes/facts.ts';
import type { JsonObject } from '../codec/json.ts';
import { StatusError } from '../status.ts';
import {
  compare,
  difference,
  emptySet,
  equalSets,
  type FieldSet,
  fieldsOf,
  fromFieldsV1,
  intersection,
  isEmpty,
  outside,
  pathsOf,
  type Shape,
  shapeOfType,
  toFieldsV1,
  union,
} from './fieldset.ts';
import { mergeConfig, removeFields } from './merge.ts';

/**
 * Who set which field. Every write goes through here:
 *
 *     update, patch   the writer owns what it changed; whoever owned it before does not any more
 *     apply           the writer owns exactly what its configuration says; what another owns with another value is a conflict;
 *                     what it said last time and does not say now is removed, unless somebody else owns it too
 */
export interface Writer {
  manager: string;
  subresource: string;
  /** Status is another's to write: through its own sub-resource only. */
  hasStatus: boolean;
  apiVersion: string;
  /** RFC 3339 */
  time: string;
}

interface Entry {
  manager: string;
  operation: 'Apply' | 'Update';
  apiVersion: string;
  subresource: string;
  time: string;
  set: FieldSet;
}

// Fields that belong to the object's identity or to the server; nobody manages them.
const NOBODYS: readonly (readonly string[])[] = [
  ['f:apiVersion'],
  ['f:kind'],
  ...[
    'name',
    'namespace',
    'generateName',
    'uid',
    'resourceVersion',
    'generation',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'managedFields',
    'selfLink',
  ].map((field) => ['f:metadata', `f:${field}`]),
];

// More managers than this share one entry: a client with a new name for every write must not grow the object without end.
const MAX_UPDATE_MANAGERS = 10;

/** Sets `metadata.managedFields` of `after` for a write that is no apply. */
export function trackUpdate(type: TypeFacts, before: KubeObject | undefined, after: KubeObject, writer: Writer): void {
  const shape = shapeOfType(type);
  const old = before?.metadata.managedFields ?? after.metadata.managedFields ?? [];
  const { changed, removed } = before
    ? compare(shape, before, after)
    : { changed: fieldsOf(shape, after), removed: emptySet() };
  const mine = within(managed(changed), writer);
  const gone = within(managed(removed), writer);
  if (isEmpty(mine) && isEmpty(gone)) {
    setManaged(after, old);
    return;
  }
  const entries = readEntries(old);
  const isMine = (e: Entry): boolean =>
    e.operation === 'Update' &&
    e.manager === writer.manager &&
    e.subresource === writer.subresource &&
    e.apiVersion === writer.apiVersion;
  for (const entry of entries) {
    if (!isMine(entry)) entry.set = outside(difference(entry.set, mine), gone);
  }
  const own = entries.find(isMine);
  const set = outside(union(own?.set ?? emptySet(), mine), gone);
  const rest = entries.filter((e) => !isMine(e));
  setManaged(after, writeEntries([...rest, entryOf(writer, 'Update', set)]));
}

export interface ApplyRequest {
  type: TypeFacts;
  live: KubeObject | undefined;
  config: JsonObject;
  writer: Writer;
  force: boolean;
}

/** The object after the apply, with its managed fields. Throws 409 with one cause a conflicting field. */
export function applyConfig(request: ApplyRequest): KubeObject {
  const { live, config, writer } = request;
  const shape = shapeOfType(request.type);
  const configured = within(managed(fieldsOf(shape, config)), writer);
  const entries = readEntries(live?.metadata.managedFields ?? []);
  const isMine = (e: Entry): boolean =>
    e.operation === 'Apply' && e.manager === writer.manager && e.subresource === writer.subresource;
  const last = entries.find(isMine)?.set ?? emptySet();
  const others = entries.filter((e) => !isMine(e));

  const merged = mergeConfig(shape, live ?? {}, config) as KubeObject;
  const { changed } = compare(shape, live ?? {}, merged);
  const taken = intersection(configured, changed);
  const conflicts = others.flatMap((entry) => {
    const set = intersection(entry.set, taken);
    return isEmpty(set) ? [] : [{ entry, set }];
  });
  if (conflicts.length > 0 && !request.force) throw conflictError(conflicts);
  for (const { entry, set } of conflicts) entry.set = difference(entry.set, set);

  const result = prune(shape, merged, difference(last, configured), others, configured);
  const mine = entryOf(writer, 'Apply', configured);
  const before = entries.find(isMine);
  // Applying the same again must not touch the object, its time included.
  if (before && equalSets(before.set, configured) && before.apiVersion === writer.apiVersion) mine.time = before.time;
  setManaged(result, writeEntries([...others, mine]));
  return result;
}

function prune(
  shape: Shape,
  merged: KubeObject,
  dropped: FieldSet,
  others: readonly Entry[],
  configured: FieldSet,
): KubeObject {
  if (isEmpty(dropped)) return merged;
  const elsewhere = others.reduce((all, e) => union(all, e.set), configured);
  return removeFields(shape, merged, difference(dropped, elsewhere), elsewhere) as KubeObject;
}

function conflictError(conflicts: readonly { entry: Entry; set: FieldSet }[]): StatusError {
  const causes = conflicts.flatMap(({ entry, set }) =>
    pathsOf(set).map((field) => ({
      reason: 'FieldManagerConflict',
      message: `conflict with "${entry.manager}"${entry.subresource === '' ? '' : ` with subresource "${entry.subresource}"`}${entry.operation === 'Update' ? ` using ${entry.apiVersion}${entry.time === '' ? '' : ` at ${entry.time}`}` : ''}`,
      field,
    })),
  );
  const managers = new Map<string, string[]>();
  for (const c of causes) managers.set(c.message, [...(managers.get(c.message) ?? []), `- ${c.field}`]);
  const text = [...managers].map(([who, fields]) => `${who}:\n${fields.join('\n')}`).join('\n');
  const head = `Apply failed with ${causes.length} conflict${causes.length === 1 ? '' : 's'}: `;
  const only = causes[0];
  const message =
    causes.length === 1 && only
      ? `${head}${only.message}: ${only.field}`
      : `${head}${text.replace(/^conflict/, 'conflicts')}`;
  return new StatusError(409, 'Conflict', message, { details: { causes } });
}

/** What a writer cannot change through this door it cannot own either. */
function within(set: FieldSet, writer: Writer): FieldSet {
  if (!writer.hasStatus) return set;
  const forStatus = writer.subresource === 'status';
  const kept = [...set.children].filter(
    ([element]) => (element === 'f:status') === forStatus || (forStatus && element === 'f:metadata'),
  );
  return { member: false, children: new Map(kept) };
}

function managed(set: FieldSet): FieldSet {
  const out: FieldSet = { member: false, children: new Map(set.children) };
  for (const [first = '', second] of NOBODYS) {
    const child = out.children.get(first);
    if (!child) continue;
    if (second === undefined) {
      out.children.delete(first);
      continue;
    }
    const rest: FieldSet = { member: false, children: new Map(child.children) };
    rest.children.delete(second);
    if (rest.children.size === 0) out.children.delete(first);
    else out.children.set(first, rest);
  }
  return out;
}

function entryOf(
  { manager, apiVersion, subresource, time }: Writer,
  operation: Entry['operation'],
  set: FieldSet,
): Entry {
  return { manager, operation, apiVersion, subresource, time, set };
}

function readEntries(list: readonly ManagedFields[]): Entry[] {
  return list.map((e) => ({
    manager: e.manager ?? '',
    operation: e.operation === 'Apply' ? 'Apply' : 'Update',
    apiVersion: e.apiVersion ?? '',
    subresource: e.subresource ?? '',
    time: e.time ?? '',
    set: fromFieldsV1(e.fieldsV1),
  }));
}

function writeEntries(entries: readonly Entry[]): ManagedFields[] {
  const live = entries.filter((e) => !isEmpty(e.set));
  return foldOldUpdates(live).map((e) => ({
    manager: e.manager,
    operation: e.operation,
    apiVersion: e.apiVersion,
    ...(e.time === '' ? {} : { time: e.time }),
    fieldsType: 'FieldsV1',
    fieldsV1: toFieldsV1(e.set),
    ...(e.subresource === '' ? {} : { subresource: e.subresource }),
  }));
}

function foldOldUpdates(entries: readonly Entry[]): readonly Entry[] {
  const updates = entries.filter((e) => e.operation === 'Update' && e.subresource === '');
  if (updates.length <= MAX_UPDATE_MANAGERS) return entries;
  const oldest = [...updates]
    .sort((a, b) => (a.time < b.time ? -1 : 1))
    .slice(0, updates.length - MAX_UPDATE_MANAGERS + 1);
  const folded: Entry = {
    ...(oldest.at(-1) as Entry),
    manager: 'ancient-changes',
    set: oldest.reduce((all, e) => union(all, e.set), emptySet()),
  };
  return [...entries.filter((e) => !oldest.includes(e)), folded];
}

function setManaged(object: KubeObject, entries: ManagedFields[]): void {
  if (entries.length === 0) delete object.metadata.managedFields;
  else object.metadata.managedFields = entries;
}
