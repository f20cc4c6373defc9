import { join } from 'node:path';
import { Readable } from 'node:stream';
import { isCode } from '#base/errors.ts';
import { errnoName } from '#kernel/linux/names.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { decodeResults, type ExitStatus, exitStatus, planFailed, type ResultRecord } from '#kernel/plan/result.ts';
import { lacking, toldVocabulary, type Vocabulary } from '#kernel/plan/vocabulary.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import { ConnectionLost, ShimRefused, ShimTooOld, ShimVanished } from '#shim/errors.ts';
import { ASK, encodeOptions, type Frame, FrameSocket, STDIN_FRAME_BYTES, STREAMS, TELL, words } from '#shim/frames.ts';
import { type ExitRecord, readExit, readShimState, shimLives } from '#shim/state.ts';

export interface ShimOptions {
  /** The shim's directory: see state.ts. */
  dir: string;
  /** The plan has a `console` step without a socket: the shim owns the terminal. */
  terminal?: boolean;
  /** The container's stdin is a pipe; /dev/null if not. */
  stdin?: boolean;
  log?: {
    /** CRI's text lines, or Docker's JSON lines. */
    driver: 'cri' | 'json-file';
    path: string;
    /** A file larger than this is rotated; never when absent. */
    maxBytes?: number;
    /** Files kept, the current one among them; 1 when absent. */
    maxFiles?: number;
    /** json-file: put into every line as `attrs`. */
    attrs?: Readonly<Record<string, string>>;
  };
  /** The container's memory cgroup (v1, or v2's directory): out-of-memory kills are counted there. */
  oomCgroup?: string;
}

export interface Exit extends ExitStatus {
  oomKilled: boolean;
  /** Unix time. */
  atMs: number;
}

export interface ExecOptions {
  /** Letters, digits, - and _; the exit status is kept under it. */
  name: string;
  terminal?: boolean;
  stdin?: boolean;
  /** The plan's bytes, where they are there already. */
  encoded?: Uint8Array;
}

export function shimOptions(o: ShimOptions): Record<string, string | number | boolean | undefined> {
  return {
    dir: o.dir,
    terminal: o.terminal,
    stdin: o.stdin,
    'log-driver': o.log?.driver,
    log: o.log?.path,
    'log-size': o.log?.maxBytes,
    'log-files': o.log?.maxFiles,
    'log-attrs': o.log?.attrs && JSON.stringify(o.log.attrs),
    oom: o.oomCgroup,
  };
}

const EMPTY: Buffer = Buffer.alloc(0);

/** An exec often comes after another (probes, scripts, builds): its connection is there, for this long. */
const SPARE_MS = 2_000;

/** One container's shim, seen from a daemon. The shim outlives this object; `Shim.connect` finds it again by its directory. */
export class Shim {
  readonly dir: string;
  #pid: number;
  /** Until it has said so: what every shim knows. */
  #knows: Vocabulary = toldVocabulary(EMPTY);
  /** By which a start that fails names its step; nothing once it has started. */
  #plan: Plan | undefined;
  readonly #control: FrameSocket | undefined;
  readonly #exited: Promise<Exit>;
  /** The shim's process has let go of us: it has ended, or we have. */
  readonly #gone: Promise<void>;
  #tellGone: () => void = () => undefined;
  #spare: FrameSocket | undefined;
  #closeSpare: NodeJS.Timeout | undefined;
  /** Called when the kernel has killed a process of the container for memory. */
  onOom: () => void = () => undefined;

  private constructor(dir: string, pid: number, plan: Plan | undefined, control: FrameSocket | undefined) {
    this.dir = dir;
    this.#pid = pid;
    this.#plan = plan;
    this.#control = control;
    this.#gone = new Promise((resolve) => {
      this.#tellGone = resolve;
    });
    if (!control) this.#tellGone();
    this.#exited = control ? this.#watch(control) : this.#ended(0);
    this.#exited.catch(() => undefined); // told to whoever waits; nobody may
  }

  /** The container's process on the host. */
  get pid(): number {
    return this.#pid;
  }

  /** The operations that a plan for `exec` may have: the shim may be of an older build than we are. */
  get knows(): Vocabulary {
    return this.#knows;
  }

  /**
   * The shim that is carrying `plan` out: once its container is there, which is when it first answers. Rejects when it
   * cannot be reached or goes without an answer; its maker knows why.
   */
  static async made(dir: string, plan: Plan): Promise<Shim> {
    const control = await Shim.#reach(dir);
    const shim = new Shim(dir, 0, plan, control);
    shim.#pid = shim.#greeted(await control.request(ASK.watch)).pid;
    return shim;
  }

  /**
   * The shim of a directory: just made, or found after a restart. One that has ended is still answered for: `wait` gives
   * its exit status. Throws SHIM_VANISHED when it was killed and nobody knows.
   */
  static async connect(dir: string, made?: { pid: number; plan: Plan }): Promise<Shim> {
    let control: FrameSocket | undefined;
    try {
      control = await Shim.#reach(dir);
    } catch (error) {
      // It may have ended between making and connecting, or long ago.
      if (!(await readExit(dir, 'exit'))) {
        const state = await readShimState(dir);
        if (!(await shimLives(dir))) throw new ShimVanished({ dir, pid: state.pid }, { cause: error });
        throw error;
      }
    }
    const pid = made?.pid ?? (await readShimState(dir)).initPid ?? 0;
    const shim = new Shim(dir, pid, made?.plan, control);
    // Subscribed before anything else is asked: requests of one socket are served in order, so nobody has to wait for this one.
    control
      ?.request(ASK.watch)
      .then((answer) => shim.#greeted(answer))
      .catch(() => undefined); // a lost connection is told by `wait`
    return shim;
  }

  #greeted(answer: Buffer): ResultRecord {
    const record = one(answer);
    this.#knows = toldVocabulary(record.detail);
    return record;
  }

  static #reach(dir: string): Promise<FrameSocket> {
    return FrameSocket.connect(join(dir, 'shim.sock'));
  }

  /** Lets the container's program begin. Throws PlanFailed when it cannot be executed. */
  async start(): Promise<void> {
    await this.#ask('start', ASK.start);
    this.#plan = undefined;
  }

  /**
   * Whoever created it may have been killed before he said the word: now it is said. A program that runs already runs on, and how one
   * ended that could not be executed, `wait` tells.
   */
  async startIfNobodyHas(): Promise<void> {
    try {
      await this.start();
    } catch (error) {
      if (!isCode(error, 'SHIM_REFUSED', 'CONNECTION_LOST')) throw error;
    }
  }

  /**
   * To the container's process, or to an exec's. A container's last end takes its shim along: a signal that crosses it found
   * an ended process, which is no error. A shim that vanished without an exit is.
   */
  async signal(signal: number, process = 0): Promise<void> {
    try {
      await this.#ask('signal', ASK.signal, words(process, signal));
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
      await this.wait();
    }
  }

  async resize(size: { rows: number; cols: number }, process = 0): Promise<void> {
    await this.#ask('resize', ASK.resize, words(process, size.rows, size.cols));
  }

  /** Has the log file opened again by its path: whoever rotates has renamed it. */
  async reopenLog(): Promise<void> {
    await this.#ask('reopen the log', ASK.reopen);
  }

  /**
   * A packed log file takes the place of the turned one of that inode, under whatever name that stands by then. False: it has fallen away,
   * and `packed` is still there. A shim of before November 2026 hangs up.
   */
  async takePackedLog(inode: bigint, packed: string): Promise<boolean> {
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(inode);
    try {
      await this.#ask('take a packed log', ASK.packed, Buffer.concat([head, Buffer.from(packed)]));
      return true;
    } catch (error) {
      if (isCode(error, 'SHIM_REFUSED') && error.data['errno'] === 'ENOENT') return false;
      throw error;
    }
  }

  /** Runs a further process by plan, attached from its first byte. Throws SHIM_TOO_OLD for a plan with operations that it lacks. */
  async exec(plan: Plan, options: ExecOptions): Promise<Attachment> {
    const lacks = lacking(plan, this.#knows);
    if (lacks.length > 0) throw new ShimTooOld({ dir: this.dir, request: 'exec', lacks });
    const socket = this.#takeSpare() ?? (await Shim.#reach(this.dir));
    const attachment = new Attachment(socket, (free) => this.#keepSpare(free));
    try {
      const { encoded = encodePlan(plan), ...rest } = options;
      const record = one(await socket.request(ASK.exec, encodeOptions({ ...rest, attach: true }), encoded));
      refuse('exec', record, plan);
      attachment.begin({ process: record.status, pid: record.pid, terminal: options.terminal ?? false });
      return attachment;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** Streams of the container (or of an exec by number). Attach before `start` and no byte is missed. */
  async attach(options: { process?: number; stdin?: boolean; terminal?: boolean } = {}): Promise<Attachment> {
    const socket = await Shim.#reach(this.dir);
    const attachment = new Attachment(socket, (ended) => ended.close());
    const process = options.process ?? 0;
    const streams = STREAMS.stdout | STREAMS.stderr | (options.stdin ? STREAMS.stdin : 0);
    try {
      refuse('attach', one(await socket.request(ASK.attach, words(process, streams))));
      attachment.begin({ process, pid: this.pid, terminal: options.terminal ?? false });
      return attachment;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** The end of the container's process; its output is in the log by then. */
  wait(): Promise<Exit> {
    return this.#exited;
  }

  /** Nothing holds the container's namespaces any more, nor what was mounted there: a little after its end is told. */
  get gone(): Promise<void> {
    return this.#gone;
  }

  /** Kills whatever runs and ends the shim. */
  async shutdown(): Promise<void> {
    if (!this.#control) return;
    await this.#ask('end', ASK.end).catch((error: unknown) => {
      if (!(error instanceof ConnectionLost)) throw error; // it has ended already
    });
    await this.#exited.catch(() => undefined);
    await this.#gone; // it has removed its socket by then
    this.close();
  }

  /** Lets go of the shim; it lives on. */
  close(): void {
    this.#control?.close();
    this.#dropSpare();
  }

  #takeSpare(): FrameSocket | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    clearTimeout(this.#closeSpare);
    if (spare?.isClosed) return undefined;
    spare?.ref();
    return spare;
  }

  #keepSpare(socket: FrameSocket): void {
    this.#dropSpare();
    this.#spare = socket;
    socket.unref();
    this.#closeSpare = setTimeout(() => this.#dropSpare(), SPARE_MS).unref();
  }

  #dropSpare(): void {
    clearTimeout(this.#closeSpare);
    this.#spare?.close();
    this.#spare = undefined;
  }

  async #ask(request: string, kind: number, payload: Uint8Array = new Uint8Array()): Promise<ResultRecord> {
    if (!this.#control) throw new ConnectionLost({ path: this.dir, what: 'the container has ended' });
    const record = one(await this.#control.request(kind, payload));
    refuse(request, record, this.#plan);
    return record;
  }

  #watch(control: FrameSocket): Promise<Exit> {
    return new Promise((resolve) => {
      let told = false;
      control.onFrame = (frame) => {
        if (frame.kind === TELL.oom) return this.onOom();
        const exit = frame.kind === TELL.exit ? exitOf(frame.payload) : undefined;
        if (exit?.process !== 0) return;
        told = true;
        resolve(exit.exit);
      };
      // Its directory may be gone already when a shim that told its exit goes too: then there is nothing to look for.
      control.onClose = () => {
        this.#tellGone();
        if (!told) resolve(this.#ended(20));
      };
      // It may have ended while we read its directory: nobody would tell us again, and `wait` would never come back.
      if (control.isClosed) control.onClose();
    });
  }

  /** The file is renamed into place before the shim goes; after a SIGKILL of the shim there is none. */
  async #ended(attempts: number): Promise<Exit> {
    for (let left = attempts; ; left--) {
      const record = await readExit(this.dir, 'exit');
      if (record) return fromRecord(record);
      if (left <= 0) throw new ShimVanished({ dir: this.dir, pid: undefined });
      await new Promise((done) => setTimeout(done, 5));
    }
  }
}

/**
 * The streams of one process. They flow no faster than they are read: a reader that stops makes the program wait in its
 * next write, as a pipe would.
 */
export class Attachment {
  readonly stdout: Readable;
  readonly stderr: Readable;
  process = 0;
  pid = 0;
  terminal = false;
  readonly #socket: FrameSocket;
  readonly #exit: Promise<Exit>;
  readonly #release: (socket: FrameSocket) => void;
  /** The socket may be another process's by now: nothing is said there any more, and what is heard is not for us. */
  #over = false;
  #fed = false;
  #full = 0;

  /** `release` gets the socket back once the process has ended and all of it has been heard. */
  constructor(socket: FrameSocket, release: (socket: FrameSocket) => void) {
    this.#socket = socket;
    this.#release = release;
    this.stdout = this.#stream();
    this.stderr = this.#stream();
    this.#exit = new Promise((resolve, reject) => {
      socket.onFrame = (frame) => this.#frame(frame, resolve);
      socket.onClose = () => {
        this.#end();
        reject(new ConnectionLost({ path: socket.path, what: 'the shim let go before the process ended' }));
      };
    });
    this.#exit.catch(() => undefined);
  }

  begin(of: { process: number; pid: number; terminal: boolean }): void {
    Object.assign(this, of);
  }

  /** Gives input; resolves when there is room for more. */
  async write(data: Uint8Array): Promise<void> {
    this.#fed = true;
    for (let at = 0; at < data.length && !this.#over; at += STDIN_FRAME_BYTES)
      if (!this.#socket.send(ASK.stdin, data.subarray(at, at + STDIN_FRAME_BYTES))) await this.#socket.drained();
  }

  /** The end of input: the pipe is closed; a terminal gets ^D. */
  end(): void {
    if (!this.#over) this.#socket.send(ASK.stdinEnd);
  }

  async resize(size: { rows: number; cols: number }): Promise<void> {
    await this.#ask('resize', ASK.resize, words(this.process, size.rows, size.cols));
  }

  async signal(signal: number): Promise<void> {
    await this.#ask('signal', ASK.signal, words(this.process, signal));
  }

  /** The process's exit; all of its output is in the streams by then. */
  wait(): Promise<Exit> {
    return this.#exit;
  }

  /** Detaches; the process lives on. */
  close(): void {
    if (!this.#over) this.#socket.close();
  }

  async #ask(request: string, kind: number, payload: Uint8Array): Promise<void> {
    if (this.#over) throw new ConnectionLost({ path: this.#socket.path, what: 'the process has ended' });
    refuse(request, one(await this.#socket.request(kind, payload)));
  }

  #stream(): Readable {
    let full = false;
    const stream = new Readable({
      read: () => {
        if (!full) return;
        full = false;
        if (--this.#full === 0) this.#socket.resume();
      },
    });
    stream.on('estiba:full', () => {
      if (full) return;
      full = true;
      this.#full++;
      this.#socket.pause();
    });
    return stream;
  }

  #frame(frame: Frame, resolve: (exit: Exit) => void): void {
    if (frame.kind === TELL.stdout || frame.kind === TELL.stderr) {
      const stream = frame.kind === TELL.stdout ? this.stdout : this.stderr;
      // A destroyed stream's bytes are dropped: its reader has gone and the other stream must flow on.
      if (!stream.destroyed && !stream.push(frame.payload)) stream.emit('estiba:full');
    } else if (frame.kind === TELL.exit) {
      // Only the attached process's comes here; its number may not be known yet, when the answer is in the same chunk.
      resolve(exitOf(frame.payload).exit);
      this.#end();
      this.#letGo();
    }
  }

  /** Nobody else can use one that was stopped for a reader who lags, or where input may still wait for a program that has gone. */
  #letGo(): void {
    this.#over = true;
    const socket = this.#socket;
    if (this.#full > 0 || this.#fed || socket.isWaiting) {
      socket.close();
      return;
    }
    socket.onFrame = () => undefined;
    socket.onClose = () => undefined;
    this.#release(socket);
  }

  #end(): void {
    for (const stream of [this.stdout, this.stderr]) if (!stream.destroyed && !stream.readableEnded) stream.push(null);
  }
}

/** The exit status of an exec that ended while nobody watched; undefined when none of that name has. */
export async function readExecExit(dir: string, name: string): Promise<Exit | undefined> {
  const record = await readExit(dir, `exec.${name}`);
  return record && fromRecord(record);
}

function fromRecord(record: ExitRecord): Exit {
  return { ...exitStatus(record.status), oomKilled: record.oomKilled, atMs: record.atMs };
}

/** process u32 · status u32 · oom u32 · time u64 in ns */
function exitOf(payload: Buffer): { process: number; exit: Exit } {
  const atMs = Number(payload.readBigUInt64LE(12) / 1_000_000n);
  return {
    process: payload.readUInt32LE(0),
    exit: { ...exitStatus(payload.readUInt32LE(4)), oomKilled: payload.readUInt32LE(8) !== 0, atMs },
  };
}

function one(payload: Buffer): ResultRecord {
  const record = decodeResults(payload).records.at(-1);
  if (!record) throw new ConnectionLost({ path: 'shim', what: 'its answer holds no result' });
  return record;
}

function refuse(request: string, record: ResultRecord, plan?: Plan): void {
  if (record.kind !== 'failed') return;
  if (plan && record.opCode !== 0) throw planFailed(plan, record);
  const errno = record.errno === 0 ? '' : errnoName(record.errno);
  throw new ShimRefused({ request, errno, detail: record.detail.toString('utf8') });
}
