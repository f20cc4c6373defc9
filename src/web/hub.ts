import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { World, WorldChange } from '#web/wire.ts';

export type Table = keyof World;

/** Where rows come from. `start` resolves when the first rows are in; what it answers ends it. */
export interface Feed {
  start(tables: Tables): Promise<() => void>;
}

/** The side of the hub that feeds write to. */
export interface Tables {
  put<T extends Table>(table: T, row: World[T]): void;
  drop(table: Table, key: string): void;
  /** Exactly these from now on. */
  replace<T extends Table>(table: T, rows: readonly World[T][]): void;
}

/** Changes of a moment go out together: a pod's start is a dozen of them. */
const GATHER_MS = 150;
/** A page that is loaded again finds everything still there. */
const LINGER_MS = 10_000;
/** The youngest are kept. */
const EVENTS_MAX = 500;

/**
 * What all pages show, kept once for all of them, and only while there is one: the first page starts the feeds, the last one's
 * leaving ends them.
 */
export class Hub {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #feeds: readonly Feed[];
  readonly #pages = new Set<{ put: (change: WorldChange) => void; greeted: boolean }>();
  #run: Run | undefined;
  #cancelLinger: (() => void) | undefined;

  constructor({ clock, log, feeds }: { clock: Clock; log: Logger; feeds: readonly Feed[] }) {
    this.#clock = clock;
    this.#log = log;
    this.#feeds = feeds;
  }

  /** Calls back with all rows, then with what changes; returns what ends it. */
  subscribe(put: (change: WorldChange) => void): () => void {
    const page = { put, greeted: false };
    this.#pages.add(page);
    this.#cancelLinger?.();
    this.#cancelLinger = undefined;
    if (!this.#run) this.#start();
    else if (this.#run.ready) this.#greet();
    return () => {
      if (this.#pages.delete(page) && this.#pages.size === 0)
        this.#cancelLinger = this.#clock.after(LINGER_MS, () => this.close());
    };
  }

  get isRunning(): boolean {
    return this.#run !== undefined;
  }

  close(): void {
    this.#cancelLinger?.();
    this.#run?.stop();
    this.#run = undefined;
  }

  #start(): void {
    const run = new Run(this.#clock, (change) => {
      for (const page of this.#pages) if (page.greeted) page.put(change);
    });
    this.#run = run;
    const started = this.#feeds.map(async (feed) => {
      try {
        run.onStop(await feed.start(run));
      } catch (error) {
        // The others' rows are worth showing all the same.
        this.#log.error('a part of the dashboard has nothing to show', { error: describeChain(error) });
      }
    });
    void Promise.all(started).then(() => {
      run.ready = true;
      if (this.#run === run) this.#greet();
    });
  }

  #greet(): void {
    const all = this.#run?.all();
    if (!all) return;
    for (const page of this.#pages) {
      if (page.greeted) continue;
      page.greeted = true;
      page.put(all);
    }
  }
}

/** From the first page to the last one. */
class Run implements Tables {
  ready = false;
  readonly #clock: Clock;
  readonly #tell: (change: WorldChange) => void;
  readonly #rows = new Map<Table, Map<string, { row: World[Table]; json: string }>>();
  readonly #changed = new Map<Table, Set<string>>();
  readonly #stops: (() => void)[] = [];
  #stopped = false;
  #cancelTelling: (() => void) | undefined;

  constructor(clock: Clock, tell: (change: WorldChange) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  onStop(stop: () => void): void {
    if (this.#stopped) stop();
    else this.#stops.push(stop);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTelling?.();
    for (const stop of this.#stops) stop();
  }

  all(): WorldChange {
    const tables = [...this.#rows].map(([table, rows]) => [table, [...rows.values()].map(({ row }) => row)]);
    return { whole: true, set: Object.fromEntries(tables), gone: {} };
  }

  put<T extends Table>(table: T, row: World[T]): void {
    const rows = this.#table(table);
    const json = JSON.stringify(row);
    if (rows.get(row.key)?.json === json) return;
    rows.set(row.key, { row, json });
    this.#touch(table, row.key);
    if (table === 'events' && rows.size > EVENTS_MAX) {
      const [oldest] = rows.keys();
      if (oldest !== undefined) this.drop(table, oldest);
    }
  }

  drop(table: Table, key: string): void {
    if (this.#table(table).delete(key)) this.#touch(table, key);
  }

  replace<T extends Table>(table: T, rows: readonly World[T][]): void {
    const keys = new Set(rows.map((row) => row.key));
    for (const key of this.#table(table).keys()) if (!keys.has(key)) this.drop(table, key);
    for (const row of rows) this.put(table, row);
  }

  #table(table: Table): Map<string, { row: World[Table]; json: string }> {
    const known = this.#rows.get(table) ?? new Map<string, { row: World[Table]; json: string }>();
    this.#rows.set(table, known);
    return known;
  }

  #touch(table: Table, key: string): void {
    this.#changed.set(table, (this.#changed.get(table) ?? new Set()).add(key));
    this.#cancelTelling ??= this.#clock.after(GATHER_MS, () => this.#say());
  }

  #say(): void {
    this.#cancelTelling = undefined;
    const set: Record<string, World[Table][]> = {};
    const gone: Record<string, string[]> = {};
    for (const [table, keys] of this.#changed) {
      const rows = this.#table(table);
      for (const key of keys) {
        const known = rows.get(key);
        if (known) set[table] = [...(set[table] ?? []), known.row];
        else gone[table] = [...(gone[table] ?? []), key];
      }
    }
    this.#changed.clear();
    this.#tell({ whole: false, set: set as WorldChange['set'], gone });
  }
}
