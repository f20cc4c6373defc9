import { type Duplex, PassThrough, type Readable, type Writable } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { newId, type Random } from '#base/random.ts';
import { ContainerNotRunning, NoSuchContainerInPod } from '#cluster/node/errors.ts';
import { LABEL, type Run, runOf, sortRuns } from '#cluster/node/pod/runs.ts';
import type { NodeEngine, NodeHost } from '#cluster/node/seams.ts';
import { followLogs } from '#engine/core/log-follow.ts';
import { type LogLine, type LogWish, readLogs } from '#engine/core/log-reader.ts';

/** What the API server asks of a node, in the shape of its `NodeProxy`; `app` puts the two together. */
export interface PodPlace {
  namespace: string;
  pod: string;
  uid: string;
}

export interface ContainerPlace extends PodPlace {
  container: string;
}

export interface PodLogOptions {
  follow: boolean;
  previous: boolean;
  timestamps: boolean;
  sinceSeconds?: number;
  sinceTime?: string;
  tailLines?: number;
  limitBytes?: number;
  stream?: 'All' | 'Stdout' | 'Stderr';
}

export interface PodExecOptions {
  command: readonly string[];
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

export interface PodSession {
  stdin: Writable | undefined;
  stdout: Readable | undefined;
  stderr: Readable | undefined;
  resize(columns: number, rows: number): void;
  exited: Promise<number>;
  close(): void;
}

const SIGHUP = 1;

/** Logs, exec, attach and port-forward of this node's pods. */
export class PodStreams {
  readonly #o: { engine: NodeEngine; host: Pick<NodeHost, 'connect'>; clock: Clock; random: Random };

  constructor(options: { engine: NodeEngine; host: Pick<NodeHost, 'connect'>; clock: Clock; random: Random }) {
    this.#o = options;
  }

  async logs(place: ContainerPlace, options: PodLogOptions, signal: AbortSignal): Promise<Readable> {
    const { engine, clock } = this.#o;
    const run = this.#runFor(place, options.previous);
    const out = new PassThrough();
    const print = printer(options);
    const put = async (lines: LogLine[]): Promise<void> => {
      const { bytes, full } = print(lines);
      if (bytes.length > 0 && !out.write(bytes)) await drained(out, signal);
      if (full) stop.abort();
    };
    const stop = new AbortController();
    const ended = (): void => stop.abort();
    signal.addEventListener('abort', ended, { once: true });
    out.on('close', ended);
    const places = { path: engine.logPath(run.id), maxFiles: engine.logFiles };
    const wish = wishOf(options, clock.now());
    const read = async (): Promise<void> => {
      const upTo = await readLogs(places, 'json', wish, put);
      if (!options.follow || options.previous || stop.signal.aborted) return;
      const { tail: _tail, ...rest } = wish;
      const record = () => engine.containers.list().find((r) => r.id === run.id);
      const source = { ...places, record, now: () => clock.now() };
      await followLogs(source, 'json', rest, put, stop.signal, upTo);
    };
    void read().then(
      () => out.end(),
      (error: unknown) => out.destroy(error instanceof Error ? error : new Error(String(error))),
    );
    return out;
  }

  async exec(place: ContainerPlace, options: PodExecOptions): Promise<PodSession> {
    const { engine, random } = this.#o;
    const run = this.#running(place);
    const process = await whileRunning(place, async () => {
      const launched = await engine.containers.execs.launch(run.id, `kube${newId(random).slice(0, 12)}`, {
        argv: [...options.command],
        env: [],
        tty: options.tty,
        privileged: false,
        attach: { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr },
      });
      await launched.start();
      return launched;
    });
    const { stdin, stdout, stderr } = process.streams;
    if (!options.stdin) stdin.end();
    return {
      stdin: options.stdin ? stdin : undefined,
      stdout: shown(stdout, options.stdout),
      stderr: shown(stderr, options.stderr && !options.tty),
      resize: (columns, rows) => void process.resize(rows, columns).catch(() => undefined), // it has ended
      exited: process.wait().then(({ code }) => code),
      close: () => {
        stdin.end();
        // A terminal whose user has left hangs up; without one the program goes on, as kubectl's users expect.
        if (options.tty) void process.signal(SIGHUP).catch(() => undefined); // it has ended
        process.streams.detach();
      },
    };
  }

  async attach(place: ContainerPlace, options: Omit<PodExecOptions, 'command'>): Promise<PodSession> {
    const run = this.#running(place);
    const process = await whileRunning(place, async () => this.#o.engine.containers.running(run.id));
    const streams = await process.attach({ stdin: options.stdin });
    return {
      stdin: options.stdin ? streams.stdin : undefined,
      stdout: shown(streams.stdout, options.stdout),
      stderr: shown(streams.stderr, options.stderr && !options.tty),
      resize: (columns, rows) => void process.resize(rows, columns).catch(() => undefined), // it has ended
      exited: process.wait().then(({ code }) => code),
      close: () => streams.detach(),
    };
  }

  async portForward(place: PodPlace, port: number, signal: AbortSignal): Promise<Duplex> {
    const { engine, host } = this.#o;
    if (!engine.sandboxes.list().includes(place.uid))
      throw new ContainerNotRunning({ message: `unable to forward port because pod is not running: pod ${place.pod}` });
    const { namespaces, ips } = engine.sandboxes.find(place.uid);
    return host.connect({ netns: namespaces.network, ip: ips[0] }, port, signal);
  }

  #runs(place: ContainerPlace): Run[] {
    const records = this.#o.engine.containers.list().filter(({ spec: { labels } }) => labels[LABEL.uid] === place.uid);
    return sortRuns(records.flatMap((r) => runOf(r) ?? []).filter((run) => run.container === place.container));
  }

  #runFor(place: ContainerPlace, previous: boolean): Run {
    const runs = this.#runs(place);
    const run = previous ? runs.filter((r) => r !== runs.at(-1)).at(-1) : runs.at(-1);
    if (run && run.state !== 'made') return run;
    throw new ContainerNotRunning({
      message: previous
        ? `previous terminated container "${place.container}" in pod "${place.pod}" not found`
        : `container "${place.container}" in pod "${place.pod}" is waiting to start: ContainerCreating`,
    });
  }

  #running(place: ContainerPlace): Run {
    const run = this.#runs(place).at(-1);
    if (!run) throw new NoSuchContainerInPod(place);
    if (run.state === 'running') return run;
    throw notFound(place);
  }
}

/** The record of a container that a boot has ended says "running" until the engine has come to it. */
async function whileRunning<T>(place: ContainerPlace, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw isCode(error, 'WRONG_PHASE') ? notFound(place) : error;
  }
}

const notFound = (place: ContainerPlace): Error =>
  new ContainerNotRunning({ message: `unable to upgrade connection: container not found ("${place.container}")` });

/** An output nobody wants is read to its end all the same: a full pipe would stop the program. */
function shown(stream: Readable, wanted: boolean): Readable | undefined {
  if (wanted) return stream;
  stream.resume();
  return undefined;
}

function wishOf(options: PodLogOptions, nowMs: number): LogWish {
  const since =
    options.sinceTime !== undefined
      ? new Date(options.sinceTime)
      : options.sinceSeconds === undefined
        ? undefined
        : new Date(nowMs - options.sinceSeconds * 1000);
  return {
    stdout: options.stream !== 'Stderr',
    stderr: options.stream !== 'Stdout',
    ...(since ? { since } : {}),
    ...(options.tailLines === undefined ? {} : { tail: options.tailLines }),
  };
}

/** Lines as a client sees them, up to the limit. */
function printer(options: PodLogOptions): (lines: LogLine[]) => { bytes: Buffer; full: boolean } {
  let left = options.limitBytes ?? Number.POSITIVE_INFINITY;
  return (lines) => {
    const all = Buffer.concat(
      lines.flatMap((line) => (options.timestamps ? [Buffer.from(`${line.time} `), line.text] : [line.text])),
    );
    const bytes = all.length > left ? all.subarray(0, left) : all;
    left -= bytes.length;
    return { bytes, full: left <= 0 };
  };
}

function drained(out: PassThrough, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      out.off('drain', done);
      out.off('close', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    out.on('drain', done);
    out.on('close', done);
    signal.addEventListener('abort', done, { once: true });
  });
}
