import { type Readable, Transform, type TransformCallback, type Writable } from 'node:stream';
import { fail } from '#base/shape.ts';
import type { Hijacked } from '#engine/api/reply.ts';
import type { Attached } from '#engine/core/parts.ts';
import { frameHeader, STDERR, STDOUT } from '#spec/docker/frames.ts';

export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

export interface JoinWish {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
  /** Output in frames that say which stream it is of; absent: without a terminal. */
  framed?: boolean;
  /** The program's input closes with the client's: of an exec, and of a container that is asked for it (StdinOnce). */
  closeStdin: boolean;
  detachKeys: string;
}

/**
 * A client and a program, byte for byte: output as it comes (in frames, without a terminal), input until the client closes its
 * side or presses the detach keys. Resolves when the output has ended or the client has left; what is slow is waited for.
 */
export async function joinStreams(
  connection: Hijacked,
  program: Attached,
  wish: JoinWish,
  signal: AbortSignal,
): Promise<'ended' | 'detached'> {
  return await new Promise((resolve) => {
    const outputs: [Readable, number, boolean][] = [
      [program.stdout, STDOUT, wish.stdout],
      [program.stderr, STDERR, wish.stderr && !wish.tty],
    ];
    let open = outputs.length;
    const finish = (how: 'ended' | 'detached'): void => {
      signal.removeEventListener('abort', onAbort);
      if (how === 'detached') program.detach();
      resolve(how);
    };
    const onAbort = (): void => {
      if (wish.stdin && wish.closeStdin && !wish.tty) program.stdin.end();
      finish('detached');
    };
    if (signal.aborted) return finish('detached');
    signal.addEventListener('abort', onAbort);
    for (const [source, stream, wanted] of outputs) {
      copyOutput(
        source,
        wanted ? connection.output : undefined,
        (wish.framed ?? !wish.tty) ? stream : undefined,
        () => {
          if (--open === 0) finish('ended');
        },
      );
    }
    if (!wish.stdin) {
      connection.input.resume(); // so that the client's leaving is seen
      return;
    }
    const watcher = wish.tty
      ? new DetachWatcher(parseDetachKeys(wish.detachKeys), () => finish('detached'))
      : undefined;
    const input = watcher ? connection.input.pipe(watcher) : connection.input;
    // A terminal outlives who sat at it: a client that detaches by itself just leaves, and the shell must not see an end of input.
    input.pipe(program.stdin, { end: wish.closeStdin && !wish.tty });
    program.stdin.on('error', () => input.unpipe(program.stdin)); // the program closed its input: nobody's failure
  });
}

function copyOutput(
  source: Readable,
  output: Writable | undefined,
  stream: number | undefined,
  ended: () => void,
): void {
  source.on('data', (chunk: Buffer) => {
    if (!output || output.destroyed) return;
    if (stream !== undefined) output.write(frameHeader(stream, chunk.length));
    if (output.write(chunk)) return;
    source.pause();
    output.once('drain', () => source.resume());
  });
  source.once('end', ended);
  source.once('error', ended);
}

/** `ctrl-p,ctrl-q`, `a`, `ctrl-@`: the bytes of a key sequence. */
export function parseDetachKeys(text: string): Buffer {
  const keys = (text || DEFAULT_DETACH_KEYS).split(',').map((key) => {
    const control = /^ctrl-([a-z@[\]\\^_])$/.exec(key)?.[1];
    if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
    return key.length === 1
      ? key.charCodeAt(0)
      : fail('query detachKeys', key, 'is neither one character nor ctrl- and one');
  });
  return Buffer.from(keys);
}

/** Lets input through, holding back what may be the beginning of the detach sequence. */
class DetachWatcher extends Transform {
  readonly #keys: Buffer;
  readonly #detach: () => void;
  #matched = 0;

  constructor(keys: Buffer, detach: () => void) {
    super();
    this.#keys = keys;
    this.#detach = detach;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const out: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#keys[this.#matched]) {
        if (++this.#matched === this.#keys.length) {
          this.push(Buffer.from(out));
          this.#detach();
          return;
        }
        continue;
      }
      if (this.#matched > 0) out.push(...this.#keys.subarray(0, this.#matched));
      this.#matched = 0;
      if (byte === this.#keys[0]) this.#matched = 1;
      else out.push(byte);
    }
    done(null, Buffer.from(out));
  }
}
