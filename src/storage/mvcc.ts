import { assert } from '#base/errors.ts';
import { BadKey, BadTransaction, Compacted, FutureRevision, ValueTooLarge } from '#storage/errors.ts';
import { SortedMap } from '#storage/sorted.ts';
import {
  type Compare,
  KEY_MAX_LENGTH,
  type KeyRange,
  type LeaseId,
  TXN_MAX_BYTES,
  TXN_MAX_OPS,
  type Txn,
  type TxnOp,
} from '#storage/store.ts';

/**
 * The multi-version index: every key with its versions, newest first, and every change in order of revision. It knows
 * neither disks nor clocks; values are references `R` that the journal gave out.
 *
 *     'a' ─▶ v(mod 9) ─▶ v(mod 5) ─▶ v(mod 2)        history: [ …, v2, v5, v9 ]   ← compaction cuts both from the left
 */
export interface Version<R> {
  readonly key: string;
  readonly modRevision: number;
  readonly createRevision: number;
  /** Puts since it was made; 0 marks a delete. */
  readonly version: number;
  readonly lease: LeaseId | undefined;
  readonly ref: R | undefined;
  older: Version<R> | undefined;
}

/** What one transaction writes, decided but not yet applied. */
export interface Change {
  revision: number;
  entries: readonly ChangeEntry[];
}

export interface ChangeEntry {
  key: string;
  /** Undefined: the key is deleted. */
  value: Uint8Array | undefined;
  createRevision: number;
  version: number;
  lease: LeaseId | undefined;
}

export class Mvcc<R> {
  readonly #keys = new SortedMap<Version<R>>();
  #history: Version<R>[] = [];
  #revision = 1;
  #compacted = 0;
  #dropped: (version: Version<R>) => void = () => undefined;

  /** `hear` is told of every version that compaction forgets, so that its bytes can be given back. */
  onDropped(hear: (version: Version<R>) => void): void {
    this.#dropped = hear;
  }

  get revision(): number {
    return this.#revision;
  }

  get compactedRevision(): number {
    return this.#compacted;
  }

  get keyCount(): number {
    return this.#keys.size;
  }

  newest(key: string): Version<R> | undefined {
    const version = this.#keys.get(key);
    return version && version.version > 0 ? version : undefined;
  }

  checkReadable(revision: number): void {
    if (revision > this.#revision) throw new FutureRevision({ asked: revision, current: this.#revision });
    if (revision < this.#compacted) throw new Compacted({ asked: revision, compacted: this.#compacted });
  }

  /** Versions of the range that were newest at `revision`, at most `limit` of them, and how many there are in all. */
  select(range: KeyRange, revision: number, limit: number): { versions: Version<R>[]; count: number } {
    const versions: Version<R>[] = [];
    let count = 0;
    const take = (head: Version<R> | undefined): boolean => {
      const version = visibleAt(head, revision);
      if (version && ++count && versions.length < limit) versions.push(version);
      return true;
    };
    if (range.end === undefined) take(this.#keys.get(range.key));
    else this.#keys.scan(range.key, range.end, take);
    return { versions, count };
  }

  /** The change comes from `decide` in the order of revisions, or from the log at start. */
  apply(
    change: { revision: number; entries: readonly Omit<ChangeEntry, 'value'>[] },
    refs: readonly (R | undefined)[],
  ): void {
    assert(change.revision > this.#revision, 'revisions only grow');
    for (const [i, entry] of change.entries.entries()) {
      const version: Version<R> = {
        key: entry.key,
        modRevision: change.revision,
        createRevision: entry.createRevision,
        version: entry.version,
        lease: entry.lease,
        ref: refs[i],
        older: undefined,
      };
      version.older = this.#keys.set(entry.key, version);
      this.#history.push(version);
    }
    this.#revision = change.revision;
  }

  /** Takes in a key with its versions, newest first; keys come in order, before any change. `loaded` ends this. */
  load(versions: readonly Version<R>[]): void {
    const key = versions[0]?.key ?? '';
    // A long history comes in parts: the next part hangs below the oldest version so far.
    let newer = this.#keys.get(key);
    while (newer?.older) newer = newer.older;
    for (const version of versions) {
      if (newer) newer.older = version;
      else this.#keys.set(version.key, version);
      newer = version;
      this.#history.push(version);
    }
  }

  loaded(revision: number, compacted: number): void {
    this.#history = this.#history
      .filter((v) => v.modRevision > compacted)
      .sort((a, b) => a.modRevision - b.modRevision);
    this.#revision = revision;
    this.#compacted = compacted;
  }

  /**
   * Every key with its versions up to `revision`, newest first, in order. The index may change between two steps: keys
   * that are made meanwhile have no such version, keys that are compacted away meanwhile may be missing.
   */
  *keysAt(revision: number): Generator<Version<R>[]> {
    let after = '';
    for (;;) {
      const heads: Version<R>[] = [];
      this.#keys.scan(after, '', (head) => heads.push(head) < 256);
      for (const head of heads) {
        const versions: Version<R>[] = [];
        for (let at: Version<R> | undefined = head; at; at = at.older) {
          if (at.modRevision > revision) continue;
          const isOldest = at.modRevision <= this.#compacted;
          if (at.version > 0 || !isOldest) versions.push(at);
          if (isOldest) break;
        }
        if (versions.length > 0) yield versions;
      }
      const last = heads.at(-1);
      if (!last) return;
      after = `${last.key}\u0000`;
    }
  }

  /** The newest version of every key that exists, in order. */
  all(visit: (version: Version<R>) => void): void {
    this.#keys.scan('', '', (version) => {
      if (version.version > 0) visit(version);
      return true;
    });
  }

  /** Changes with a revision in [from, to], in order. */
  *changes(from: number, to: number): Generator<Version<R>> {
    for (let i = this.#firstChangeAt(from); i < this.#history.length; i++) {
      const version = this.#history[i] as Version<R>;
      if (version.modRevision > to) return;
      yield version;
    }
  }

  /**
   * Forgets what is older than `revision`, in slices, so that a long history does not stop the event loop: the caller
   * runs the generator and may pause between its steps. From the first step on the old revisions cannot be read.
   */
  *compact(revision: number): Generator<void> {
    if (revision > this.#revision) throw new FutureRevision({ asked: revision, current: this.#revision });
    if (revision <= this.#compacted) throw new Compacted({ asked: revision, compacted: this.#compacted });
    this.#compacted = revision;
    const gone = this.#history.splice(0, this.#firstChangeAt(revision + 1));
    for (const [i, version] of gone.entries()) {
      this.#trim(version.key, revision);
      if (i % 1024 === 1023) yield;
    }
  }

  #trim(key: string, revision: number): void {
    const head = this.#keys.get(key);
    let newer: Version<R> | undefined;
    let at = head;
    while (at && at.modRevision > revision) {
      newer = at;
      at = at.older;
    }
    if (!at) return;
    this.#dropFrom(at.older);
    at.older = undefined;
    if (at.version > 0) return;
    // A delete is only needed as long as an older revision can be asked for.
    if (newer) newer.older = undefined;
    else this.#keys.delete(key);
    this.#dropped(at);
  }

  #dropFrom(version: Version<R> | undefined): void {
    for (let at = version; at; at = at.older) this.#dropped(at);
  }

  #firstChangeAt(revision: number): number {
    let low = 0;
    let high = this.#history.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#history[middle] as Version<R>).modRevision < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function visibleAt<R>(head: Version<R> | undefined, revision: number): Version<R> | undefined {
  let at = head;
  while (at && at.modRevision > revision) at = at.older;
  return at && at.version > 0 ? at : undefined;
}

/** True when all comparisons hold. `read` gives the bytes of a value. */
export function compareAll<R>(index: Mvcc<R>, when: readonly Compare[], read: (v: Version<R>) => Uint8Array): boolean {
  return when.every((compare) => compareOne(index.newest(compare.key), compare, read));
}

function compareOne<R>(
  version: Version<R> | undefined,
  compare: Compare,
  read: (v: Version<R>) => Uint8Array,
): boolean {
  switch (compare.target) {
    case 'mod':
      return holds(version?.modRevision ?? 0, compare.is, compare.to);
    case 'create':
      return holds(version?.createRevision ?? 0, compare.is, compare.to);
    case 'version':
      return holds(version?.version ?? 0, compare.is, compare.to);
    case 'lease':
      return (version?.lease === compare.to) === (compare.is === '=');
    case 'value':
      // As in etcd: without the key, no comparison with a value holds.
      if (!version) return false;
      return (Buffer.compare(read(version), compare.to) === 0) === (compare.is === '=');
  }
}

function holds(have: number, is: '=' | '!=' | '<' | '>', want: number): boolean {
  switch (is) {
    case '=':
      return have === want;
    case '!=':
      return have !== want;
    case '<':
      return have < want;
    case '>':
      return have > want;
  }
}

/** Refuses what etcd would refuse too: so both drivers say no to the same transactions. */
export function checkTxn(txn: Txn): void {
  const compares = txn.when ?? [];
  if (compares.length > TXN_MAX_OPS) throw new BadTransaction({ rule: `more than ${TXN_MAX_OPS} comparisons` });
  for (const compare of compares) checkKey(compare.key);
  for (const ops of [txn.ops, txn.otherwise ?? []]) checkOps(ops);
}

function checkOps(ops: readonly TxnOp[]): void {
  if (ops.length > TXN_MAX_OPS) throw new BadTransaction({ rule: `more than ${TXN_MAX_OPS} operations` });
  let bytes = 0;
  const put = new Set<string>();
  for (const op of ops) {
    checkRange(op);
    if (op.do !== 'put') continue;
    if (put.has(op.key)) throw new BadTransaction({ rule: `key ${op.key} is put twice` });
    put.add(op.key);
    bytes += op.key.length + op.value.length;
  }
  if (bytes > TXN_MAX_BYTES) throw new ValueTooLarge({ bytes, limitBytes: TXN_MAX_BYTES });
  for (const op of ops) {
    if (op.do !== 'delete') continue;
    for (const key of put) if (inRange(key, op)) throw new BadTransaction({ rule: `key ${key} is put and deleted` });
  }
}

export function checkRange(range: KeyRange): void {
  checkKey(range.key);
  if (range.end !== undefined && range.end !== '') checkKey(range.end);
}

function checkKey(key: string): void {
  if (key === '') throw new BadKey({ key, rule: 'is empty' });
  if (key.length > KEY_MAX_LENGTH) throw new BadKey({ key, rule: `is longer than ${KEY_MAX_LENGTH} characters` });
  for (let i = 0; i < key.length; i++) {
    const unit = key.charCodeAt(i);
    if (unit === 0 || unit > 0xd7ff) throw new BadKey({ key, rule: `has the character U+${unit.toString(16)}` });
  }
}

export function inRange(key: string, range: KeyRange): boolean {
  if (range.end === undefined) return key === range.key;
  return key >= range.key && (range.end === '' || key < range.end);
}
