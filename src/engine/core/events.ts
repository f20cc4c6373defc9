import { type Filters, labelMatches } from '#spec/docker/filters.ts';

/** Something that happened to an object of the node, in Docker's words; every front end reads from here. */
export interface NodeEvent {
  type: 'container' | 'image' | 'network' | 'volume' | 'daemon' | 'builder';
  action: string;
  id: string;
  attributes: Record<string, string>;
  atNs: bigint;
}

type Listener = (event: NodeEvent) => void;

const HISTORY = 1_000;

/** Publishing never waits: who reads slowly has a queue of its own, with a bound. */
export class Events {
  readonly #now: () => bigint;
  readonly #listeners = new Set<Listener>();
  readonly #history: NodeEvent[] = [];

  /** `now`: nanoseconds since the epoch. */
  constructor(now: () => bigint) {
    this.#now = now;
  }

  publish(event: Omit<NodeEvent, 'atNs'>): void {
    const stamped = { ...event, atNs: this.#now() };
    this.#history.push(stamped);
    if (this.#history.length > HISTORY) this.#history.shift();
    for (const listener of this.#listeners) listener(stamped);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  /** Calls back for each event from now on; returns what ends it. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The youngest events that are kept, oldest first. */
  since(fromNs: bigint, toNs: bigint): NodeEvent[] {
    return this.#history.filter((event) => event.atNs >= fromNs && event.atNs <= toNs);
  }
}

const OBJECTS = [
  'container',
  'image',
  'network',
  'volume',
  'daemon',
  'plugin',
  'service',
  'node',
  'secret',
  'config',
] as const;

/** Docker's filters of `/events`. */
export function eventMatches(filters: Filters, event: NodeEvent): boolean {
  filters.allow('type', 'event', 'label', 'scope', ...OBJECTS);
  if (!filters.any('type', (type) => type === event.type)) return false;
  // `exec_create: sh -c …` is asked for as `exec_create`.
  if (!filters.any('event', (action) => action === event.action || event.action.startsWith(`${action}:`))) return false;
  if (!filters.any('scope', (scope) => scope === 'local')) return false;
  if (!filters.every('label', (label) => labelMatches(event.attributes, label))) return false;
  return OBJECTS.every((object) => filters.any(object, (wish) => named(event, object, wish)));
}

/** Of an image there are also the containers that were made from it. */
function named({ type, id, attributes }: NodeEvent, object: (typeof OBJECTS)[number], wish: string): boolean {
  if (object === 'image' && (type === 'image' || type === 'container')) {
    const image = attributes[type === 'image' ? 'name' : 'image'] ?? '';
    return (type === 'image' && id.startsWith(wish)) || image === wish || withoutTag(image) === wish;
  }
  return object === type && (id.startsWith(wish) || attributes['name'] === wish);
}

/** A colon before the last slash belongs to a registry's port. */
function withoutTag(reference: string): string {
  return reference.replace(/:[^:/]*$/, '');
}
