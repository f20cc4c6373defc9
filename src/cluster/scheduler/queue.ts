import type { Clock } from '#base/clock.ts';
import type { PodInfo } from './state.ts';
import { type ClusterChange, TURNED_BY, type VerdictCode } from './verdict.ts';

interface Entry {
  info: PodInfo;
  priority: number;
  sequence: number;
  attempts: number;
  /** What made it not fit; empty after an error. */
  codes: ReadonlySet<VerdictCode>;
  parkedAtMs: number;
  retryAtMs: number;
}

const BACKOFF_MS = { base: 1_000, max: 10_000 };
// A pod whose turning event was missed is tried again all the same.
const FLUSH_MS = 300_000;

/**
 *     add ──▶ ready ──▶ taken ──▶ bound: forget
 *               ▲          └─▶ parked ── an event that turns its verdict, after its back-off ──▶ ready
 *
 * Ready pods come by priority, then by age. A parked pod waits for a change that can turn its verdict (`TURNED_BY`), at least
 * its back-off of 1 s · 2^attempts up to 10 s, at most five minutes.
 */
export class SchedulingQueue {
  readonly #clock: Clock;
  readonly #wake: () => void;
  readonly #ready: Entry[] = [];
  readonly #byUid = new Map<string, Entry>();
  readonly #parked = new Set<Entry>();
  #sequence = 0;
  /** Counts changes: one that happens while a pod is being decided must not be lost to it. */
  readonly #changes = new Map<ClusterChange, number>();
  #changeCount = 0;

  constructor(clock: Clock, wake: () => void) {
    this.#clock = clock;
    this.#wake = wake;
  }

  get readyCount(): number {
    return this.#ready.length;
  }

  get parkedCount(): number {
    return this.#parked.size;
  }

  /** Mark for `park`: changes after it count. */
  get changeMark(): number {
    return this.#changeCount;
  }

  add(info: PodInfo): void {
    const known = this.#byUid.get(info.uid);
    if (known) {
      known.info = info;
      // A changed pod may fit now.
      if (this.#parked.has(known)) this.#unpark(known);
      return;
    }
    const entry: Entry = {
      info,
      priority: info.pod.spec.priority ?? 0,
      sequence: this.#sequence++,
      attempts: 0,
      codes: new Set(),
      parkedAtMs: 0,
      retryAtMs: 0,
    };
    this.#byUid.set(info.uid, entry);
    this.#push(entry);
  }

  forget(uid: string): void {
    const entry = this.#byUid.get(uid);
    if (!entry) return;
    this.#byUid.delete(uid);
    this.#parked.delete(entry);
  }

  /** The next pod to decide about; it stays ours until `forget` or `park`. */
  take(): { info: PodInfo; attempts: number } | undefined {
    for (;;) {
      const entry = this.#pop();
      if (!entry) return undefined;
      if (this.#byUid.get(entry.info.uid) !== entry) continue;
      entry.attempts++;
      return { info: entry.info, attempts: entry.attempts };
    }
  }

  /** Puts a taken pod aside. `since` is the `changeMark` from before the decision. */
  park(uid: string, codes: ReadonlySet<VerdictCode>, since: number): void {
    const entry = this.#byUid.get(uid);
    if (!entry) return;
    const nowMs = this.#clock.monotonic();
    entry.codes = codes;
    entry.parkedAtMs = nowMs;
    entry.retryAtMs = nowMs + Math.min(BACKOFF_MS.max, BACKOFF_MS.base * 2 ** Math.min(entry.attempts - 1, 10));
    this.#parked.add(entry);
    const missed = [...this.#changes].some(([change, at]) => at > since && this.#turns(entry, change));
    if (codes.size === 0 || missed) this.#unpark(entry);
    else
      this.#clock.after(FLUSH_MS, () => this.#parked.has(entry) && entry.parkedAtMs === nowMs && this.#unpark(entry));
  }

  changed(change: ClusterChange): void {
    this.#changes.set(change, ++this.#changeCount);
    for (const entry of this.#parked) if (this.#turns(entry, change)) this.#unpark(entry);
  }

  #turns(entry: Entry, change: ClusterChange): boolean {
    for (const code of entry.codes) if (TURNED_BY[code].includes(change)) return true;
    return false;
  }

  #unpark(entry: Entry): void {
    this.#parked.delete(entry);
    const waitMs = entry.retryAtMs - this.#clock.monotonic();
    if (waitMs <= 0) this.#push(entry);
    else this.#clock.after(waitMs, () => this.#push(entry));
  }

  #push(entry: Entry): void {
    const heap = this.#ready;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const up = (at - 1) >> 1;
      const parent = heap[up];
      if (!parent || !before(entry, parent)) break;
      heap[at] = parent;
      at = up;
    }
    heap[at] = entry;
    this.#wake();
  }

  #pop(): Entry | undefined {
    const heap = this.#ready;
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      const [left, right] = [heap[down], heap[down + 1]];
      if (!left) break;
      if (right && before(right, left)) down++;
      const child = heap[down];
      if (!child || !before(child, last)) break;
      heap[at] = child;
      at = down;
    }
    heap[at] = last;
    return top;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.priority !== b.priority ? a.priority > b.priority : a.sequence < b.sequence;
}
