import { randomUUID } from 'node:crypto';
import type { Clock } from '#base/clock.ts';
import { Serial } from '#base/queue.ts';
import type { ContentStore, Ingest } from '#image/content.ts';
import { refuse } from '#registry/server/errors.ts';

/**
 * Uploads in progress. Each is a transfer of the content store, which keeps its bytes across our own restarts; its name
 * there says which repository may go on with it.
 *
 *     POST ─▶ open ──PATCH──▶ open ──PUT, digest fits──▶ a blob, linked in the repository
 *              │                └───PUT, digest differs─▶ gone
 *              └──────────DELETE, or no request for a day─▶ gone
 */
export class Uploads {
  readonly #content: ContentStore;
  readonly #clock: Clock;
  readonly #sessions = new Map<string, Session>();
  #restored: Promise<void> | undefined;

  constructor(content: ContentStore, clock: Clock, maxBytes: number) {
    this.#content = content;
    this.#clock = clock;
    this.#maxBytes = maxBytes;
  }
  readonly #maxBytes: number;

  async create(repository: string): Promise<string> {
    const open = this.#sessions.size;
    if (open >= SESSIONS_MAX) refuse('TOOMANYREQUESTS', `${open} uploads are in progress; finish or cancel some first`);
    const id = randomUUID();
    const ref = refOf(repository, id);
    const session = new Session(this.#clock.now());
    session.ingest = await this.#content.ingest(ref, { maxBytes: this.#maxBytes });
    this.#sessions.set(ref, session);
    return id;
  }

  /**
   * Runs `work` on an upload, alone. A newer request takes over: the body an older one is still reading is cut, since a
   * client that resumes has lost that connection though we may not know it yet.
   */
  async use<T>(repository: string, id: string, work: (ingest: Ingest, signal: AbortSignal) => Promise<T>): Promise<T> {
    const ref = refOf(repository, id);
    await this.#restore();
    const session = this.#sessions.get(ref) ?? refuse('BLOB_UPLOAD_UNKNOWN');
    session.interrupt();
    return session.serial.run(async () => {
      if (session.ended) return refuse('BLOB_UPLOAD_UNKNOWN');
      const signal = session.begin(this.#clock.now());
      session.ingest ??= await this.#content.ingest(ref, { maxBytes: this.#maxBytes });
      try {
        return await work(session.ingest, signal);
      } finally {
        session.touchedAtMs = this.#clock.now();
      }
    });
  }

  /** To be called inside `use`: the transfer was committed or aborted. */
  forget(repository: string, id: string): void {
    const ref = refOf(repository, id);
    const session = this.#sessions.get(ref);
    if (session) session.ended = true;
    this.#sessions.delete(ref);
  }

  /** Removes uploads nobody has touched for `idleMs`, those of earlier lives too. Returns how many. */
  async sweep(idleMs: number): Promise<number> {
    await this.#restore();
    const before = this.#clock.now() - idleMs;
    let removed = 0;
    for (const [ref, session] of this.#sessions) {
      if (session.touchedAtMs > before || session.serial.waiting > 0) continue;
      await session.serial.run(async () => {
        const ingest = session.ingest ?? (await this.#content.ingest(ref));
        await ingest.abort();
        session.ended = true;
        this.#sessions.delete(ref);
      });
      removed++;
    }
    return removed;
  }

  /** Lets go of all transfers; the next daemon's clients can resume them. */
  async close(): Promise<void> {
    for (const session of this.#sessions.values()) {
      session.interrupt();
      await session.serial.run(async () => {
        session.ended = true;
        await session.ingest?.close();
      });
    }
    this.#sessions.clear();
  }

  /** Uploads that an earlier daemon left behind. */
  #restore(): Promise<void> {
    this.#restored ??= this.#content.ingests().then((list) => {
      for (const { ref, updatedAtMs } of list) {
        if (ref.startsWith(PREFIX) && !this.#sessions.has(ref)) this.#sessions.set(ref, new Session(updatedAtMs));
      }
    });
    return this.#restored;
  }
}

const SESSIONS_MAX = 1000;
const PREFIX = 'registry-upload/';

/** The repository is part of the name: the right to push there was checked, the right to push elsewhere was not. */
function refOf(repository: string, id: string): string {
  return `${PREFIX}${repository}/${id}`;
}

class Session {
  readonly serial = new Serial('upload', 16);
  ingest: Ingest | undefined;
  ended = false;
  touchedAtMs: number;
  #abort = new AbortController();

  constructor(touchedAtMs: number) {
    this.touchedAtMs = touchedAtMs;
  }

  interrupt(): void {
    this.#abort.abort();
  }

  begin(nowMs: number): AbortSignal {
    this.touchedAtMs = nowMs;
    this.#abort = new AbortController();
    return this.#abort.signal;
  }
}
