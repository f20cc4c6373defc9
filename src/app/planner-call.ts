import { readFileSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { nameOfUser, runProgram } from '#app/oci-caller.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { EstibaError, messageOf } from '#base/errors.ts';
import { type Files, hostFiles } from '#kernel/files.ts';
import { type PlanResult, Results } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import type { CliContext, ExecuteOptions } from '#runtime/cli/context.ts';
import { runCommand } from '#runtime/cli/main.ts';
import { words } from '#shim/frames.ts';

// One call of `bin/estiba-oci` as its planner sees it. A planner touches nothing itself that the caller could not: the front
// carries plans out with its own stdio, cgroup and parent.
//
//   front (native/front.c)                  planner
//     ── HELLO argv, env, cwd, ids ────────▶  the command runs here
//     ◀──────────────── PLAN flags, plan ──   as often as the command wants
//     ── RESULT … , PLAN_END ──────────────▶
//     ◀──────────── STDOUT, STDERR bytes ──
//     ◀────────────────────── WANT_STDIN ──
//     ── STDIN_ALL ────────────────────────▶
//     ◀───────────────────────── EXIT code ──  or YOURSELF: another build asks
const HELLO = 30;
const PLAN_END = 31;
const STDIN_ALL = 32;
const RESULT = 64;
const PLAN = 80;
const STDOUT = 81;
const STDERR = 82;
const WANT_STDIN = 83;
const EXIT = 84;
const YOURSELF = 85;
const FRONT_VERSION = 1;
const HEAD_BYTES = 12;
const MAX_FRAME_BYTES = 4 << 20;
const FOREGROUND = 1;

export interface Planner {
  /** Whether an installation (its directory) is the one this planner was built with. */
  mayServe(home: string): boolean;
  seccomp: CliContext['seccomp'];
}

/** One command, from greeting to exit code. */
export class Call {
  readonly #socket: Duplex;
  readonly #planner: Planner;
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #plan: { id: number; results: Results; finish: (error?: Error) => void } | undefined;
  #stdin: ((text: string) => void) | undefined;

  constructor(socket: Duplex, planner: Planner) {
    this.#socket = socket;
    this.#planner = planner;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#plan?.finish(new EstibaError('CALLER_GONE', 'the caller was killed')));
  }

  #take(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= HEAD_BYTES) {
      const size = bytes.readUInt32LE(0);
      if (size > MAX_FRAME_BYTES) {
        this.#socket.destroy();
        return;
      }
      if (bytes.length < HEAD_BYTES + size) break;
      this.#frame(bytes[4] ?? 0, bytes.subarray(HEAD_BYTES, HEAD_BYTES + size));
      bytes = bytes.subarray(HEAD_BYTES + size);
    }
    this.#rest = bytes;
  }

  #frame(kind: number, payload: Buffer): void {
    if (kind === HELLO) this.#hello(payload);
    else if (kind === RESULT) this.#plan?.results.take(payload);
    else if (kind === PLAN_END) this.#plan?.finish();
    else if (kind === STDIN_ALL) this.#stdin?.(payload.toString('utf8'));
    else this.#socket.destroy();
  }

  #hello(payload: Buffer): void {
    const reader = new Reader(payload);
    const [version, uid, gid, pid] = [reader.u32(), reader.u32(), reader.u32(), reader.u32()];
    const [home, cwd] = [reader.str(), reader.str()];
    if (version !== FRONT_VERSION || !this.#planner.mayServe(home)) {
      this.#send(YOURSELF, 0);
      return;
    }
    const argv = reader.strs();
    const env = Object.fromEntries(
      reader.strs().map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]),
    );
    const exit = (code: number): void => {
      this.#send(EXIT, 0, words(code));
      this.#socket.end();
    };
    runCommand(argv, this.#context({ cwd, env, uid, gid, pid })).then(exit, (error: unknown) => {
      this.#send(STDERR, 0, Buffer.from(`estiba-oci: ${messageOf(error)}\n`));
      exit(1);
    });
  }

  #context(caller: Pick<CliContext, 'cwd' | 'env' | 'uid' | 'gid' | 'pid'>): CliContext {
    const { seccomp } = this.#planner;
    return {
      ...caller,
      userName: nameOfUser(),
      clock: systemClock,
      files: filesOf(caller.pid),
      stdout: (text) => this.#send(STDOUT, 0, Buffer.from(text)),
      stderr: (text) => this.#send(STDERR, 0, Buffer.from(text)),
      readStdin: () => this.#readStdin(),
      readFile: async (path) => readFileSync(path, 'utf8'),
      execute: (plan, options) => this.#execute(plan, options),
      run: (command, args) => runProgram(command, args, caller),
      ...(seccomp ? { seccomp } : {}),
      version: VERSION,
    };
  }

  #execute(plan: Plan, options: ExecuteOptions = {}): Promise<PlanResult> {
    const id = this.#nextId++;
    const flags = words(options.foreground ? FOREGROUND : 0);
    const results = new Results(plan, options.onReady);
    return new Promise((resolve, reject) => {
      const finish = (error?: Error): void => {
        this.#plan = undefined;
        try {
          if (error) throw error;
          const result = results.finish();
          if (!result) throw new EstibaError('CALLER_GONE', 'the caller ended before it answered');
          resolve(result);
        } catch (failure) {
          reject(failure);
        }
      };
      this.#plan = { id, results, finish };
      if (this.#socket.destroyed) finish(new EstibaError('CALLER_GONE', 'the caller was killed'));
      else this.#send(PLAN, id, flags, encodePlan(plan));
    });
  }

  #readStdin(): Promise<string> {
    return new Promise((resolve) => {
      this.#stdin = resolve;
      this.#send(WANT_STDIN, 0);
    });
  }

  #send(kind: number, id: number, ...payload: Buffer[]): void {
    this.#socket.write(frame(kind, id, ...payload));
  }
}

/** /proc/self is the caller's: its cgroup, capabilities and mounts are meant. */
function filesOf(pid: number): Files {
  const theirs = (path: string): string => path.replace(/^\/proc\/self(?=\/|$)/, `/proc/${pid}`);
  return {
    read: (path) => hostFiles.read(theirs(path)),
    list: (path) => hostFiles.list(theirs(path)),
    exists: (path) => hostFiles.exists(theirs(path)),
    readlink: (path) => hostFiles.readlink(theirs(path)),
    writable: (path) => hostFiles.writable(theirs(path)),
  };
}

/** What a front sends first. */
export function greeting(
  caller: Pick<CliContext, 'cwd' | 'uid' | 'gid' | 'pid'> & { argv: readonly string[] },
): Buffer {
  const str = (text: string): Buffer => Buffer.concat([words(Buffer.byteLength(text)), Buffer.from(`${text}\0`)]);
  const { uid, gid, pid, cwd, argv } = caller;
  const numbers = words(FRONT_VERSION, uid, gid, pid);
  return frame(HELLO, 0, numbers, str(''), str(cwd), words(argv.length), ...argv.map(str), words(0));
}

/** Whether bytes from a planner begin with a plan; and the answer that says nothing of what became of it. */
export function isPlan(bytes: Buffer): boolean {
  return bytes[4] === PLAN;
}
export const NO_RESULT = frame(PLAN_END, 0);

function frame(kind: number, id: number, ...payload: readonly Buffer[]): Buffer {
  const size = payload.reduce((n, p) => n + p.length, 0);
  return Buffer.concat([words(size, kind, id), ...payload]);
}

/** The greeting's fields: u32; str as length, bytes, NUL; strs as count and str each. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  u32(): number {
    this.#at += 4;
    return this.#bytes.readUInt32LE(this.#at - 4);
  }

  str(): string {
    const length = this.u32();
    const text = this.#bytes.toString('utf8', this.#at, this.#at + length);
    this.#at += length + 1;
    return text;
  }

  strs(): string[] {
    return Array.from({ length: this.u32() }, () => this.str());
  }
}
