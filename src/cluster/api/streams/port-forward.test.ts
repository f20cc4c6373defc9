import { Duplex, PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { forwardOverChannels, type PortForward } from './port-forward.ts';

/** A client that listens to nothing and leaves when it is told to. */
function client(): Duplex {
  return new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
}

function settled(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

describe('a port that is forwarded', () => {
  it('is not dialled any further when its client has gone', async () => {
    let given: AbortSignal | undefined;
    const connect: PortForward['connect'] = (_port, signal) => {
      given = signal;
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    };
    const socket = client();
    forwardOverChannels(socket, Buffer.alloc(0), { clock: new FakeClock(), pod: 'default/web', connect }, [80]);
    expect(given?.aborted).toBe(false);
    socket.destroy();
    await settled();
    expect(given?.aborted).toBe(true);
  });

  it('is let go of when it answers after its client has gone', async () => {
    const there = new PassThrough();
    let answer: (connection: Duplex) => void = () => undefined;
    const connect: PortForward['connect'] = () =>
      new Promise((resolve) => {
        answer = resolve;
      });
    const socket = client();
    forwardOverChannels(socket, Buffer.alloc(0), { clock: new FakeClock(), pod: 'default/web', connect }, [80]);
    socket.destroy();
    await settled();
    answer(there);
    await settled();
    expect(there.destroyed).toBe(true);
  });
});
