import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { CliUsage, ExitWith } from '#cli/errors.ts';
import type { Io } from '#cli/verb.ts';
import type { Attached } from '#engine/client/client.ts';
import { FrameReader, STDERR } from '#spec/docker/frames.ts';

export interface AttachOptions {
  /** Hands our stdin on. */
  stdin: boolean;
  tty: boolean;
  /** Bytes that leave the container to itself. */
  detachKeys: Uint8Array;
}

export const DETACHED = new ExitWith({ code: 0, says: '' });

// docker's own default.
const DEFAULT_KEYS = 'ctrl-p,ctrl-q';

/** `ctrl-p,ctrl-q`, `a`, `ctrl-[`: one byte each. */
export function parseDetachKeys(written: string | undefined): Uint8Array {
  const keys = (written === undefined || written === '' ? DEFAULT_KEYS : written).split(',').map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
    if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
    if (key.length === 1) return key.charCodeAt(0);
    throw new CliUsage({ why: `--detach-keys: ${JSON.stringify(key)} is no key: a letter, or ctrl- and a letter` });
  });
  return Uint8Array.from(keys);
}

/** Joins our standard streams with a container's until its output ends. Throws `DETACHED` when the keys are typed. */
export async function joinStreams(attached: Attached, io: Io, options: AttachOptions): Promise<void> {
  const { socket } = attached;
  const raw = options.stdin && options.tty && io.stdin.isTTY;
  const output = copyOutput(attached, io);
  let detached = false;
  const input = options.stdin
    ? new InputPump(io.stdin, attached, options.tty ? options.detachKeys : new Uint8Array(), () => {
        detached = true;
        socket.destroy();
      })
    : undefined;
  if (raw) io.stdin.setRawMode(true);
  input?.start();
  try {
    await output;
  } catch (error) {
    if (!detached) throw error;
  } finally {
    input?.stop();
    if (raw) io.stdin.setRawMode(false);
    socket.destroy();
  }
  if (detached) throw DETACHED;
}

/** Frames are taken apart; a terminal's stream goes through as it is. Waits for slow readers of ours. */
async function copyOutput({ socket, head, multiplexed }: Attached, io: Io): Promise<void> {
  const reader = new FrameReader();
  const put = async (chunk: Uint8Array): Promise<void> => {
    if (!multiplexed) return write(io.stdout, chunk);
    for (const { stream, payload } of reader.push(chunk))
      await write(stream === STDERR ? io.stderr : io.stdout, payload);
  };
  if (head.length > 0) await put(head);
  for await (const chunk of socket as AsyncIterable<Buffer>) await put(chunk);
}

/** The same for an answer's body: logs. */
export async function copyFrames(body: Readable, multiplexed: boolean, io: Io): Promise<void> {
  const reader = new FrameReader();
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (!multiplexed) await write(io.stdout, chunk);
    else
      for (const { stream, payload } of reader.push(chunk))
        await write(stream === STDERR ? io.stderr : io.stdout, payload);
  }
}

async function write(stream: NodeJS.WriteStream, chunk: Uint8Array): Promise<void> {
  if (stream.write(chunk)) return;
  await Promise.race([new Promise<void>((resolve) => stream.once('drain', resolve)), finished(stream)]);
}

/** Our stdin into the socket; half-closes it at the end, so that `cat` in the container ends, too. */
class InputPump {
  readonly #stdin: NodeJS.ReadStream;
  readonly #socket: Attached['socket'];
  readonly #keys: Uint8Array;
  readonly #detach: () => void;
  #typed = 0;

  constructor(stdin: NodeJS.ReadStream, { socket }: Attached, keys: Uint8Array, detach: () => void) {
    this.#stdin = stdin;
    this.#socket = socket;
    this.#keys = keys;
    this.#detach = detach;
  }

  start(): void {
    this.#stdin.on('data', this.#onData).on('end', this.#onEnd);
    this.#socket.on('drain', this.#onDrain);
    this.#stdin.resume();
  }

  stop(): void {
    this.#stdin.off('data', this.#onData).off('end', this.#onEnd);
    this.#socket.off('drain', this.#onDrain);
    this.#stdin.pause();
    // A pipe that nobody reads any more would keep the process alive.
    this.#stdin.unref?.();
  }

  readonly #onData = (chunk: Buffer): void => {
    const keys = this.#keys;
    for (const byte of keys.length === 0 ? [] : chunk) {
      this.#typed = byte === keys[this.#typed] ? this.#typed + 1 : byte === keys[0] ? 1 : 0;
      if (this.#typed === keys.length) {
        this.#detach();
        return;
      }
    }
    if (!this.#socket.write(chunk)) this.#stdin.pause();
  };
  readonly #onDrain = (): void => {
    this.#stdin.resume();
  };
  readonly #onEnd = (): void => {
    this.#socket.end();
  };
}

/** Tells the size of our terminal now and whenever it changes, until stopped. */
export function followSize(io: Io, tell: (size: { h: number; w: number }) => Promise<void>): () => void {
  if (!io.stdout.isTTY) return () => undefined;
  const send = (): void => {
    // The program may have ended; its size is nobody's concern then.
    tell({ h: io.stdout.rows, w: io.stdout.columns }).catch(() => undefined);
  };
  send();
  io.stdout.on('resize', send);
  return () => {
    io.stdout.off('resize', send);
  };
}
