import type { ContainerRow, EventRow, Figures, MachineRow, NodeRow, PodRow, World, WorldChange } from '#web/wire.ts';
import type { Connection } from './connection.ts';

/** One thing's figures over the last minutes, oldest first: seconds since 1970, percent of one CPU, bytes. */
export interface Series {
  at: number[];
  cpu: number[];
  memory: number[];
}

export interface Shown {
  /** False until the first list is here. */
  loaded: boolean;
  machine: MachineRow | undefined;
  containers: ContainerRow[];
  pods: PodRow[];
  nodes: NodeRow[];
  /** Youngest first. */
  events: EventRow[];
}

/** Five minutes, at a figure every two seconds. */
const SAMPLES_MAX = 150;
const NOTHING: Series = { at: [], cpu: [], memory: [] };

/** What the server has told, as the page shows it. Figures come only while somebody can see them. */
export class Store {
  #tables: { [T in keyof World]: Map<string, World[T]> } = emptyTables();
  #shown: Shown = { loaded: false, machine: undefined, containers: [], pods: [], nodes: [], events: [] };
  #latest: Figures | undefined;
  readonly #series = new Map<string, Series>();
  readonly #onWorld = new Set<() => void>();
  readonly #onFigures = new Set<() => void>();

  constructor(connection: Connection) {
    connection.open({ kind: 'world' }, { put: (change) => this.#change(change as WorldChange) });
    const openFigures = () =>
      connection.open({ kind: 'figures' }, { put: (figures) => this.#measure(figures as Figures) });
    let figures = document.hidden ? undefined : openFigures();
    document.addEventListener('visibilitychange', () => {
      figures?.close();
      figures = document.hidden ? undefined : openFigures();
    });
  }

  get shown(): Shown {
    return this.#shown;
  }

  get latest(): Figures | undefined {
    return this.#latest;
  }

  /** Of a container by its id, of the machine as `machine`. */
  series(id: string): Series {
    return this.#series.get(id) ?? NOTHING;
  }

  watch(what: 'world' | 'figures', listener: () => void): () => void {
    const listeners = what === 'world' ? this.#onWorld : this.#onFigures;
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  #change({ whole, set, gone }: WorldChange): void {
    if (whole) this.#tables = emptyTables();
    for (const [table, rows] of Object.entries(set))
      for (const row of rows) (this.#tables[table as keyof World] as Map<string, unknown>).set(row.key, row);
    for (const [table, keys] of Object.entries(gone))
      for (const key of keys) this.#tables[table as keyof World].delete(key);
    const { machine, containers, pods, nodes, events } = this.#tables;
    this.#shown = {
      loaded: true,
      machine: [...machine.values()][0],
      containers: [...containers.values()].sort(runningFirst),
      pods: [...pods.values()].sort((a, b) => a.key.localeCompare(b.key)),
      nodes: [...nodes.values()].sort((a, b) => a.name.localeCompare(b.name)),
      events: [...events.values()].sort((a, b) => b.atMs - a.atMs || (a.key < b.key ? 1 : -1)),
    };
    for (const listener of this.#onWorld) listener();
  }

  #measure(now: Figures): void {
    const before = this.#latest;
    this.#latest = now;
    this.#add('machine', now, before, now.machine, before?.machine);
    for (const [id, figure] of Object.entries(now.containers))
      this.#add(id, now, before, figure, before?.containers[id]);
    for (const id of this.#series.keys()) if (id !== 'machine' && !now.containers[id]) this.#series.delete(id);
    for (const listener of this.#onFigures) listener();
  }

  #add(
    id: string,
    now: Figures,
    before: Figures | undefined,
    figure: { cpuNs: number; memoryBytes: number },
    last: { cpuNs: number } | undefined,
  ): void {
    if (!before || !last || now.atMs <= before.atMs) return;
    const cpu = (Math.max(0, figure.cpuNs - last.cpuNs) / ((now.atMs - before.atMs) * 1e6)) * 100;
    const { at, cpu: cpus, memory } = this.series(id);
    const push = (list: number[], value: number): number[] => [...list.slice(1 - SAMPLES_MAX), value];
    this.#series.set(id, {
      at: push(at, now.atMs / 1000),
      cpu: push(cpus, cpu),
      memory: push(memory, figure.memoryBytes),
    });
  }
}

function emptyTables(): { [T in keyof World]: Map<string, World[T]> } {
  return { machine: new Map(), containers: new Map(), pods: new Map(), nodes: new Map(), events: new Map() };
}

function runningFirst(a: ContainerRow, b: ContainerRow): number {
  const ended = (c: ContainerRow): number =>
    Number(c.phase === 'exited' || c.phase === 'dead' || c.phase === 'created');
  return ended(a) - ended(b) || a.name.localeCompare(b.name) || b.createdAtMs - a.createdAtMs;
}
