import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, isCode, messageOf } from '#base/errors.ts';
import { ExecutorFailed } from '#kernel/plan/errors.ts';
import { findExecutor, type PlanResult, Results } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { decodeResults } from '#kernel/plan/result.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import { ConnectionLost } from '#shim/errors.ts';
import { ASK, encodeOptions, FrameSocket, TELL } from '#shim/frames.ts';
import { Shim, type ShimOptions, shimOptions } from '#shim/shim.ts';

//   daemon                          spawner                        shim
//     ── run: plan ───────────────▶   runs it, or a child does
//     ◀────────────────── result ──
//     ── shim: options, plan ─────▶   forks ─────────────────────▶   runs the plan up to `ready`
//     ◀───────────────── listens ──
//     ── DIR/shim.sock: watch ────────────────────────────────────▶
//     ◀─────────────────────────────────────────────────── result ──   … and lives on: start, attach, exec …
//     ◀────────────────── result ──   ◀───────────── result ──────   the same, or why there is no container

/** The daemon's small helper: runs plans and makes shims. One process; requests cost 0.05 ms. */
export class Spawner {
  readonly #connection: FrameSocket;

  private constructor(connection: FrameSocket) {
    this.#connection = connection;
    // It waits for nobody: only pending requests keep this process up.
    connection.unref();
  }

  /**
   * Connects to the spawner of an earlier daemon, or starts one that listens at `path`. One that is not a copy of `executor` is of another
   * build: it may lack what plans have now, and so would every shim it makes. It ends; the shims it has made live on.
   */
  static async start(path: string, executor: string = findExecutor()): Promise<Spawner> {
    try {
      const found = await Spawner.connect(path);
      if (await found.#isOf(executor)) return found;
      await found.quit();
    } catch (error) {
      if (!isCode(error, 'CONNECTION_LOST')) throw error;
    }
    await mkdir(dirname(path), { recursive: true });
    await startProcess(executor, path);
    return Spawner.connect(path);
  }

  static async connect(path: string): Promise<Spawner> {
    return new Spawner(await FrameSocket.connect(path));
  }

  /** It runs from a copy in memory (native/main.c), which the kernel shows under its pid. Those of before this question refuse it. */
  async #isOf(executor: string): Promise<boolean> {
    const answer = decodeResults(await this.#connection.request(ASK.who)).records.at(-1);
    if (answer?.kind !== 'done') return false;
    return sameBytes(`/proc/${answer.pid}/exe`, executor);
  }

  /** Runs a plan of the daemon's own steps, or one that makes a process nobody looks after. */
  async run(plan: Plan): Promise<PlanResult> {
    return finish(plan, await this.#connection.request(ASK.run, encodePlan(plan)));
  }

  /**
   * Makes a shim, which carries the plan out up to `ready` (or to its end when it has none). `options.dir` must exist and
   * be empty; it is the shim's from here on, and says everything about it to whoever comes later.
   */
  create(plan: Plan, options: ShimOptions): Promise<Shim> {
    return new Promise((resolve, reject) => {
      // It listens before the container is made: connecting goes on beside that, and then the shim itself is the first to
      // say that it is made. Where it cannot be reached, or fails, the spawner's result says so.
      let made: Promise<Shim | undefined> = Promise.resolve(undefined);
      const news = (kind: number): void => {
        if (kind !== TELL.listens) return;
        made = Shim.made(options.dir, plan).catch(() => undefined); // as above
        made.then((shim) => shim && resolve(shim));
      };
      const told = async (payload: Buffer): Promise<void> => {
        const { pid } = finish(plan, payload);
        resolve((await made) ?? (await Shim.connect(options.dir, { pid, plan })));
      };
      const request = [encodeOptions(shimOptions(options)), encodePlan(plan)];
      this.#connection
        .requestWithNews(news, ASK.shim, ...request)
        .then(told)
        .catch(reject);
    });
  }

  /** Ends the spawner; shims live on. */
  async quit(): Promise<void> {
    if (this.#connection.isClosed) return;
    const closed = new Promise<void>((resolve) => {
      this.#connection.onClose = resolve;
    });
    this.#connection.ref();
    this.#connection.send(ASK.quit);
    await closed;
  }

  close(): void {
    this.#connection.close();
  }
}

export function spawnerSocket(runRoot: string): string {
  return join(runRoot, 'spawner.sock');
}

/** By this thread: they lie in memory, and a daemon that starts has work for the others. One that may not be looked at is not the same. */
function sameBytes(running: string, executor: string): boolean {
  try {
    return readFileSync(running).equals(readFileSync(executor));
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  }
}

function finish(plan: Plan, payload: Buffer): PlanResult {
  const results = new Results(plan);
  results.take(payload);
  const result = results.finish();
  if (!result) throw new ConnectionLost({ path: 'spawner', what: 'its answer holds no result' });
  return result;
}

/** Ready when it says so: a connection then succeeds. */
function startProcess(executor: string, path: string): Promise<void> {
  const child = spawn(executor, ['spawner', path], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => reject(new ExecutorFailed({ path: executor, reason }));
    child.once('error', (error) => fail(messageOf(error)));
    child.once('exit', (code, signal) => fail(`ended with ${signal ?? code} before it was ready`));
    child.stdout.once('data', () => {
      child.removeAllListeners('exit');
      child.stdout.destroy();
      child.unref();
      resolve();
    });
  });
}
