import { spawn } from 'node:child_process';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { userInfo } from 'node:os';
import { dirname } from 'node:path';
import { seccompStore } from '#app/seccomp.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { EstibaError, messageOf } from '#base/errors.ts';
import { type Files, hostFiles } from '#kernel/files.ts';
import { archOfNode } from '#kernel/linux/syscalls.ts';
import { type PlanResult, Results } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import { SeccompCache } from '#kernel/seccomp/cache.ts';
import type { CliContext, ExecuteOptions } from '#runtime/cli/context.ts';
import { runCommand } from '#runtime/cli/main.ts';

// The resident planner: decides for `bin/estiba-oci` what each command does, so that no call pays for a start of Node.js. It touches
// nothing itself that the caller could not: the front carries plans out with its own stdio, cgroup and parent.
//
//   front (native/front.c)                  planner
//     ── HELLO argv, env, cwd, ids ────────▶  the command runs here
//     ◀──────────────── PLAN flags, plan ──   as often as the command wants
//     ── RESULT … , PLAN_END ──────────────▶
//     ◀──────────── STDOUT, STDERR bytes ──
//     ◀────────────────────── WANT_STDIN ──
//     ── STDIN_ALL ────────────────────────▶
//     ◀───────────────────────── EXIT code ──  or YOURSELF: another build asks
//
//   estiba-oci-planner --fd N     for one call, over a descriptor (bin/estiba-oci without a resident planner)
//   estiba-oci-planner SOCKET     prints "ready"; ends by itself after IDLE_MS without a call
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
const IDLE_MS = 10 * 60_000;
const FOREGROUND = 1;
const SECCOMP = seccompCache();

function serve(path: string): void {
  const home = dirname(dirname(process.argv[1] ?? ''));
  const built = statSync(process.argv[1] ?? '').mtimeMs;
  let calls = 0;
  let idle: NodeJS.Timeout | undefined;
  const server = createServer((socket) => {
    calls++;
    clearTimeout(idle);
    new Call(socket, (theirs) => theirs === home && statSync(process.argv[1] ?? '').mtimeMs === built);
    socket.once('close', () => {
      calls--;
      if (calls === 0) idle = setTimeout(end, IDLE_MS);
    });
  });
  const end = (): void => {
    rmSync(path, { force: true });
    server.close();
    process.exit(0);
  };
  process.umask(0o177);
  rmSync(path, { force: true });
  server.listen(path, () => {
    process.umask(0o022);
    process.stdout.write('ready\n');
    idle = setTimeout(end, IDLE_MS);
  });
  process.once('SIGTERM', end);
}

/** One command, from greeting to exit code. */
class Call {
  readonly #socket: Socket;
  readonly #mayServe: (home: string) => boolean;
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #plan: { id: number; results: Results; finish: (error?: Error) => void } | undefined;
  #stdin: ((text: string) => void) | undefined;

  constructor(socket: Socket, mayServe: (home: string) => boolean) {
    this.#socket = socket;
    this.#mayServe = mayServe;
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
    if (version !== FRONT_VERSION || !this.#mayServe(home)) {
      this.#send(YOURSELF, 0);
      return;
    }
    const argv = reader.strs();
    const env = Object.fromEntries(
      reader.strs().map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]),
    );
    const exit = (code: number): void => {
      const payload_ = Buffer.alloc(4);
      payload_.writeUInt32LE(code);
      this.#send(EXIT, 0, payload_);
      this.#socket.end();
    };
    runCommand(argv, this.#context({ cwd, env, uid, gid, pid })).then(exit, (error: unknown) => {
      this.#send(STDERR, 0, Buffer.from(`estiba-oci: ${messageOf(error)}\n`));
      exit(1);
    });
  }

  #context(caller: Pick<CliContext, 'cwd' | 'env' | 'uid' | 'gid' | 'pid'>): CliContext {
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
      run: (command, args) => run(command, args, caller),
      ...(SECCOMP ? { seccomp: (profile) => SECCOMP.compile(profile) } : {}),
      version: VERSION,
    };
  }

  #execute(plan: Plan, options: ExecuteOptions = {}): Promise<PlanResult> {
    const id = this.#nextId++;
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(options.foreground ? FOREGROUND : 0);
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
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(payload.reduce((n, p) => n + p.length, 0));
    head[4] = kind;
    head.writeUInt32LE(id, 8);
    this.#socket.write(Buffer.concat([head, ...payload]));
  }
}

/** Every caller is of our own uid (SO_PEERCRED, checked by the front): what was compiled for one serves all. */
function seccompCache(): SeccompCache | undefined {
  const native = archOfNode(process.arch);
  return native && new SeccompCache({ native }, seccompStore(process.geteuid?.() ?? 0, process.env));
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

function run(
  command: string,
  args: readonly string[],
  caller: Pick<CliContext, 'cwd' | 'env'>,
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: caller.cwd, env: caller.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', (error) => resolve({ code: 127, output: error.message }));
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

function nameOfUser(): string {
  try {
    return userInfo().username;
  } catch {
    return `#${process.geteuid?.() ?? 0}`; // an id without an entry in /etc/passwd
  }
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

// Last, since classes are there only once they have been read.
const [socketPath, fd] = process.argv.slice(2);
if (socketPath === '--fd') {
  // For one call, at the other end of our caller's socket pair; it ends us when it has heard enough.
  new Call(new Socket({ fd: Number(fd), readable: true, writable: true }), () => true);
} else if (socketPath === undefined || socketPath.startsWith('-')) {
  process.stdout.write('usage: estiba-oci-planner SOCKET\n');
} else {
  serve(socketPath);
}
