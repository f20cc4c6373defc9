import { Worker } from 'node:worker_threads';
import { EstibaError } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import type { Arrival } from '#image/layer/arrival.ts';
import { follow } from '#image/layer/follow.ts';
import { type UnpackJob, type UnpackResult, unpackLayer } from '#image/layer/unpack.ts';

/** Turns an arriving blob into an image file. A failed job leaves its target to the caller to delete. */
export interface Unpacker {
  unpack(job: UnpackJob, arrival: Arrival): Promise<UnpackResult>;
  close(): Promise<void>;
}

/** In this thread: for tests and one-shot tools. */
export const inlineUnpacker: Unpacker = {
  unpack: (job, arrival) => unpackLayer(job, follow(arrival)),
  close: async () => undefined,
};

//   main thread                       worker (one layer at a time)
//     ── unpack job, path ─────────▶    opens the growing file
//     ── arrived N ────────────────▶    reads, inflates, writes up to N
//     ── gone (transfer failed) ───▶    gives up
//     ◀────────── result or error ──

export type ToWorker =
  | { do: 'unpack'; id: number; job: UnpackJob; path: string; sizeBytes: number }
  | { do: 'arrived'; id: number; offset: number; ended: boolean }
  | { do: 'gone'; id: number };
export type FromWorker =
  | { id: number; result: UnpackResult }
  | { id: number; error: { code?: string; message: string; hint?: string; data?: object } };

/**
 * A few worker threads, started when first needed and ended after a minute without work (each holds about 10 MB). What
 * they do is synchronous and heavy; the daemon's event loop only passes messages on.
 */
export class WorkerPool implements Unpacker {
  readonly #script: URL | string;
  readonly #limiter: Limiter;
  readonly #idle: Worker[] = [];
  readonly #all = new Set<Worker>();
  readonly #idleMs: number;
  #nextId = 1;
  #idleTimer: NodeJS.Timeout | undefined;

  /** `script`: the bundled `layer/worker.ts`. `threads`: as many as there are cores, at most 4. */
  constructor(script: URL | string, threads: number, idleMs = 60_000) {
    this.#script = script;
    this.#limiter = new Limiter(threads);
    this.#idleMs = idleMs;
  }

  unpack(job: UnpackJob, arrival: Arrival): Promise<UnpackResult> {
    return this.#limiter.run(() => this.#run(job, arrival));
  }

  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    await Promise.all([...this.#all].map((worker) => worker.terminate()));
  }

  async #run(job: UnpackJob, arrival: Arrival): Promise<UnpackResult> {
    const worker = this.#idle.pop() ?? this.#start();
    const id = this.#nextId++;
    try {
      const result = await this.#converse(worker, id, job, arrival);
      this.#idle.push(worker);
      this.#endIdleLater();
      return result;
    } catch (error) {
      // After an error nobody knows what a thread still holds; a new one costs 30 ms.
      void worker.terminate();
      this.#all.delete(worker);
      throw error;
    }
  }

  #converse(worker: Worker, id: number, job: UnpackJob, arrival: Arrival): Promise<UnpackResult> {
    return new Promise((resolve, reject) => {
      const done = (act: () => void): void => {
        worker.off('message', onMessage);
        worker.off('error', onError);
        worker.off('exit', onExit);
        act();
      };
      const onMessage = (message: FromWorker): void => {
        if (message.id !== id) return;
        done(() => ('result' in message ? resolve(message.result) : reject(revive(message.error))));
      };
      const onError = (error: unknown): void => done(() => reject(error));
      const onExit = (): void =>
        done(() => reject(new EstibaError('LAYER_WORKER_ENDED', `the thread that unpacked ${job.blob} ended`)));
      worker.on('message', onMessage);
      worker.on('error', onError);
      worker.on('exit', onExit);
      const tell = (message: ToWorker): void => worker.postMessage(message);
      tell({ do: 'unpack', id, job, path: arrival.path, sizeBytes: arrival.sizeBytes });
      this.#report(id, arrival, tell).catch(reject);
    });
  }

  /** Tells the worker how far the blob is, in steps worth a message. */
  async #report(id: number, arrival: Arrival, tell: (message: ToWorker) => void): Promise<void> {
    let told = -1;
    for (;;) {
      if (arrival.failure !== undefined) return tell({ do: 'gone', id });
      const ended = arrival.hasEnded || arrival.offset >= arrival.sizeBytes;
      if (ended || arrival.offset - told >= REPORT_BYTES) {
        tell({ do: 'arrived', id, offset: arrival.offset, ended });
        told = arrival.offset;
      }
      if (arrival.hasEnded) return;
      await arrival.change();
    }
  }

  #start(): Worker {
    clearTimeout(this.#idleTimer);
    const worker = new Worker(this.#script, { stdout: false, stderr: false });
    worker.unref();
    this.#all.add(worker);
    worker.on('exit', () => this.#all.delete(worker));
    return worker;
  }

  #endIdleLater(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => {
      for (const worker of this.#idle.splice(0)) void worker.terminate();
    }, this.#idleMs);
    this.#idleTimer.unref();
  }
}

const REPORT_BYTES = 256 * 1024;

function revive(error: { code?: string; message: string; hint?: string; data?: object }): Error {
  if (error.code === undefined) return new Error(error.message);
  return new EstibaError(error.code, error.message, { hint: error.hint, ...(error.data ? { data: error.data } : {}) });
}
