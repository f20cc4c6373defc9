import { type Clock, sleep } from '#base/clock.ts';
import type { Random } from '#base/random.ts';
import { KubeUnreachable } from '#cluster/client/errors.ts';
import type { ApiAnswer, ApiRequest, Transport, WatchEvent } from '#cluster/client/transport.ts';

/** Chances are from 0 to 1, a request or a watch event each. */
export interface Faults {
  /** Requests take up to this long each way; so later ones overtake earlier ones. */
  delayMs: number;
  /** The request never arrives. */
  loseRequest: number;
  /** It was carried out, and the answer never arrives. */
  loseAnswer: number;
  /** A watch ends after an event. */
  cutWatch: number;
}

export const NO_FAULTS: Faults = { delayMs: 0, loseRequest: 0, loseAnswer: 0, cutWatch: 0 };

/** How long somebody waits for an answer that does not come. */
const TIMEOUT_MS = 500;

/** A network between a client and the API server. Within one watch events keep their order, as TCP keeps them. */
export class FaultyTransport implements Transport {
  readonly #inner: Transport;
  readonly #clock: Clock;
  readonly #random: Random;
  /** May be changed at any time: calm comes by setting it to NO_FAULTS. */
  faults: Faults;

  constructor(inner: Transport, options: { clock: Clock; random: Random; faults: Faults }) {
    this.#inner = inner;
    this.#clock = options.clock;
    this.#random = options.random;
    this.faults = options.faults;
  }

  async request(request: ApiRequest): Promise<ApiAnswer> {
    const what = `${request.method} ${request.path}`;
    await this.#delay();
    if (this.#random.next() < this.faults.loseRequest) await this.#timeOut(what);
    const answer = await this.#inner.request(request);
    if (this.#random.next() < this.faults.loseAnswer) await this.#timeOut(what);
    await this.#delay();
    return answer;
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    await this.#delay();
    if (this.#random.next() < this.faults.loseRequest) await this.#timeOut(`watch ${path}`);
    const own = new AbortController();
    const abort = (): void => own.abort();
    signal.addEventListener('abort', abort, { once: true });
    try {
      for await (const event of this.#inner.watch(path, own.signal)) {
        await this.#delay();
        yield event;
        if (this.#random.next() < this.faults.cutWatch) return;
      }
    } finally {
      own.abort();
      signal.removeEventListener('abort', abort);
    }
  }

  async #delay(): Promise<void> {
    if (this.faults.delayMs > 0) await sleep(this.#clock, Math.floor(this.#random.next() * this.faults.delayMs));
  }

  async #timeOut(what: string): Promise<never> {
    await sleep(this.#clock, TIMEOUT_MS);
    throw new KubeUnreachable({ what });
  }
}
