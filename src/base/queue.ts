import { defineError } from '#base/errors.ts';

export const QueueFull = defineError('QUEUE_FULL', (d: { queue: string; bound: number }) => ({
  message: `${d.queue}: ${d.bound} requests are waiting already`,
  hint: 'try again when some of them are done',
}));

/** One at a time, in order of arrival. The owner of a state changes it; all others queue requests here. */
export class Serial {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  readonly #name: string;
  readonly #bound: number;

  constructor(name: string, bound = 10_000) {
    this.#name = name;
    this.#bound = bound;
  }

  get waiting(): number {
    return this.#waiting;
  }

  run<T>(work: () => Promise<T> | T): Promise<T> {
    if (this.#waiting >= this.#bound) return Promise.reject(new QueueFull({ queue: this.#name, bound: this.#bound }));
    this.#waiting++;
    const result = this.#tail.then(work);
    this.#tail = result.then(noop, noop).finally(() => this.#waiting--);
    return result;
  }
}

/** A `Serial` a key, forgotten when nobody uses it. */
export class KeyedSerial<K> {
  readonly #queues = new Map<K, { serial: Serial; users: number }>();
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async run<T>(key: K, work: () => Promise<T> | T): Promise<T> {
    const queue = this.#queues.get(key) ?? { serial: new Serial(`${this.#name} ${String(key)}`), users: 0 };
    this.#queues.set(key, queue);
    queue.users++;
    try {
      return await queue.serial.run(work);
    } finally {
      queue.users--;
      if (queue.users === 0) this.#queues.delete(key);
    }
  }
}

/** At most `limit` at once, the rest wait in order. */
export class Limiter {
  #running = 0;
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  async run<T>(work: () => Promise<T> | T): Promise<T> {
    if (this.#running >= this.#limit) await new Promise<void>((go) => this.#waiting.push(go));
    else this.#running++;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}

/** Behind all that is ready to be done now. */
export function nextTurn(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

function noop(): void {}
