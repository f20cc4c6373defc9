import type { Worker } from 'node:worker_threads';
import { EstibaError } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import type { Arrival } from '#image/layer/arrival.ts';
import { follow } from '#image/layer/follow.ts';
import { type SurveyJob, surveyMounted } from '#image/layer/mounted.ts';
import { type UnpackJob, type UnpackResult, unpackLayer } from '#image/layer/unpack.ts';
import type { Survey } from '#image/survey.ts';

/** What is heavy and synchronous, wherever it is done. */
export interface Unpacker {
  /** Turns an arriving blob into an image file. A failed job leaves its target to the caller to delete. */
  unpack(job: UnpackJob, arrival: Arrival): Promise<UnpackResult>;
  /** Given up when the signal says so. */
  survey(job: SurveyJob, signal?: AbortSignal): Promise<Survey>;
  close(): Promise<void>;
}

/** In this thread: for tests and one-shot tools. */
export const inlineUnpacker: Unpacker = {
  unpack: (job, arrival) => unpackLayer(job, follow(arrival)),
  survey: async (job) => surveyMounted(job),
  close: async () => undefined,
};

//   main thread                       worker (one layer at a time)
//     ── unpack job, path ─────────▶    opens the growing file
//     ── arrived N ────────────────▶    reads, inflates, writes up to N
//     ── gone (transfer failed) ───▶    gives up
//     ◀────────── result or error ──
//     ── survey job ───────────────▶    reads the mounted layers of an image
//     ◀────────── result or error ──

export type ToWorker =
  | { do: 'unpack'; id: number; job: UnpackJob; path: string; sizeBytes: number }
  | { do: 'survey'; id: number; job: SurveyJob }
  | { do: 'arrived'; id: number; offset: number; ended: boolean }
  | { do: 'gone'; id: number };
export type FromWorker =
  | { id: number; result: UnpackResult | Survey }
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
    const { path, sizeBytes } = arrival;
    const talk: Talk = (id, tell) => {
      tell({ do: 'unpack', id, job, path, sizeBytes });
      return this.#report(id, arrival, tell);
    };
    return this.#limiter.run(() => this.#run<UnpackResult>(talk, `unpacked ${job.blob}`));
  }

  survey(job: SurveyJob, signal?: AbortSignal): Promise<Survey> {
    const talk: Talk = async (id, tell) => tell({ do: 'survey', id, job });
    return this.#limiter.run(() => this.#run<Survey>(talk, 'surveyed an image', signal));
  }

  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    await Promise.all([...this.#all].map((worker) => worker.terminate()));
  }

  async #run<T>(talk: Talk, doing: string, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const worker = this.#idle.pop() ?? this.#start();
    try {
      const result = await this.#converse(worker, talk, doing, signal);
      this.#idle.push(worker);
      this.#endIdleLater();
      return result as T; // by `do`, as the protocol above says
    } catch (error) {
      // After an error nobody knows what a thread still holds; a new one costs 30 ms.
      void worker.terminate();
      this.#all.delete(worker);
      throw error;
    }
  }

  #converse(worker: Worker, talk: Talk, doing: string, signal?: AbortSignal): Promise<UnpackResult | Survey> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const done = (act: () => void): void => {
        worker.off('message', onMessage);
        worker.off('error', onError);
        worker.off('exit', onExit);
        signal?.removeEventListener('abort', onAbort);
        act();
      };
      const onMessage = (message: FromWorker): void => {
        if (message.id !== id) return;
        done(() => ('result' in message ? resolve(message.result) : reject(revive(message.error))));
      };
      const onError = (error: unknown): void => done(() => reject(error));
      const onExit = (): void =>
        done(() => reject(new EstibaError('LAYER_WORKER_ENDED', `the thread that ${doing} ended`)));
      const onAbort = (): void => done(() => reject(signal?.reason));
      worker.on('message', onMessage);
      worker.on('error', onError);
      worker.on('exit', onExit);
      signal?.addEventListener('abort', onAbort);
      talk(id, (message) => worker.postMessage(message)).catch((error) => done(() => reject(error)));
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
    const threads = process.getBuiltinModule('node:worker_threads'); // not before: a daemon's start does without
    const worker = new threads.Worker(this.#script, { stdout: false, stderr: false });
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

/** One side of a conversation with a thread. */
type Talk = (id: number, tell: (message: ToWorker) => void) => Promise<void>;

const REPORT_BYTES = 256 * 1024;

function revive(error: { code?: string; message: string; hint?: string; data?: object }): Error {
  if (error.code === undefined) return new Error(error.message);
  return new EstibaError(error.code, error.message, { hint: error.hint, ...(error.data ? { data: error.data } : {}) });
}
