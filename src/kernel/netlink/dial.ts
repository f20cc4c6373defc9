import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { Duplex } from 'node:stream';
import { NetworkStepFailed } from '#kernel/netlink/errors.ts';
import { findNetHand } from '#kernel/netlink/hand.ts';

const SAID_BYTES = 2_000;

/**
 * A TCP connection as a program inside the network namespace at `netns` would make it, to the first of the addresses that takes it
 * within ten seconds. NETWORK_STEP_FAILED says how each one answered. `signal` gives up before that, with its reason; once the stream
 * is there it has no say any more. The other side's end is the stream's; ending the stream ends one direction.
 */
export function dialIn(
  netns: string,
  port: number,
  addresses: readonly string[],
  signal?: AbortSignal,
): Promise<Duplex> {
  if (signal?.aborted) return Promise.reject(signal.reason);
  const child = spawn(findNetHand(), ['dial', netns, String(port), ...addresses], { stdio: ['pipe', 'pipe', 'pipe'] });
  const { stdout, stderr } = child;
  let said = '';
  stderr.on('data', (chunk: Buffer) => {
    if (said.length < SAID_BYTES) said += chunk.toString('utf8');
  });
  return new Promise((resolve, reject) => {
    const failed = (why: string): void =>
      reject(new NetworkStepFailed({ what: `connect to port ${port}`, errno: why.trim().replaceAll('\n', '; ') }));
    const givenUp = (): void => {
      child.kill('SIGKILL');
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', givenUp, { once: true });
    child.once('error', (error) => failed(error.message));
    child.once('close', () => {
      signal?.removeEventListener('abort', givenUp);
      failed(said || 'the helper ended');
    });
    stdout.once('data', (first: Buffer) => {
      if (signal?.aborted) return; // its byte was on the way when it was killed
      signal?.removeEventListener('abort', givenUp);
      stdout.pause();
      if (first.length > 1) stdout.unshift(first.subarray(1)); // after the byte that says it stands
      resolve(new Dialled(child));
    });
  });
}

class Dialled extends Duplex {
  readonly #child: ChildProcessWithoutNullStreams;

  constructor(child: ChildProcessWithoutNullStreams) {
    super();
    this.#child = child;
    child.stdin.on('error', () => undefined); // the other side takes no more: its end tells
    child.stdout.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) child.stdout.pause();
    });
    child.stdout.on('end', () => {
      this.push(null);
      this.end(); // nobody is there to take more
    });
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const { stdin } = this.#child;
    if (stdin.writable) stdin.write(chunk, () => done());
    else done();
  }

  override _final(done: () => void): void {
    this.#child.stdin.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#child.kill('SIGKILL');
    done(error);
  }
}
