import { readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import type { Clock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import type { FeedChange } from '#base/feed.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import { anything, object, record } from '#base/shape.ts';

/** Several changes in a row are written once. */
const SAVE_AFTER_MS = 100;

/** What follows one topic of the daemon's feed: the name server, the ingress proxy. */
export interface Follower {
  apply(change: FeedChange): Promise<void>;
  close(): Promise<void>;
}

/**
 * The cluster's half of the edge process: followers of the daemon's feed, and on disk what they were told last, so that names and
 * web applications are served on without a daemon, and after a restart of the edge.
 */
export class ClusterEdge {
  readonly #followers: ReadonlyMap<string, Follower>;
  readonly #stateFile: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #state = new Map<string, Map<string, unknown>>();
  readonly #saving = new Serial('cluster edge state');
  #cancelSave: (() => void) | undefined;

  constructor(options: {
    followers: ReadonlyMap<string, Follower>;
    stateFile: string;
    clock: Clock;
    log: Logger;
  }) {
    this.#followers = options.followers;
    this.#stateFile = options.stateFile;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Serves what was served before; a topic that cannot be read is said and left empty. */
  async restore(): Promise<void> {
    let text: string;
    try {
      text = readFileSync(this.#stateFile, 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    for (const [topic, values] of Object.entries(stateShape(JSON.parse(text), '$').topics)) {
      try {
        await this.apply(topic, { whole: true, set: new Map(Object.entries(values)), drop: [] });
      } catch (error) {
        this.#log.warn('topic not restored', { topic, error: describeChain(error) });
      }
    }
  }

  /** In force when it resolves. */
  async apply(topic: string, change: FeedChange): Promise<void> {
    const values = (change.whole ? undefined : this.#state.get(topic)) ?? new Map<string, unknown>();
    for (const [key, value] of change.set) values.set(key, value);
    for (const key of change.drop) values.delete(key);
    this.#state.set(topic, values);
    await this.#followers.get(topic)?.apply(change);
    this.#cancelSave ??= this.#clock.after(SAVE_AFTER_MS, () => {
      this.flush().catch((error: unknown) => this.#log.error('state not written', { error: describeChain(error) }));
    });
  }

  /** Writes what is pending. */
  async flush(): Promise<void> {
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    await this.#saving.run(async () => {
      if (this.#state.size === 0) return;
      const topics = Object.fromEntries([...this.#state].map(([name, values]) => [name, Object.fromEntries(values)]));
      const next = `${this.#stateFile}.new`;
      await writeFile(next, JSON.stringify({ topics }), { mode: 0o600 });
      await rename(next, this.#stateFile); // whole or not at all, for whoever reads it after our death
    });
  }

  async close(): Promise<void> {
    await this.flush();
    await Promise.all([...this.#followers.values()].map((follower) => follower.close()));
  }
}

const stateShape = object({ topics: record(record(anything())) });
