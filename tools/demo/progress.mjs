/**
 * Steps with weights, some of them side by side: a percentage, the time, and what is being done now. On a terminal the last line is
 * written over; elsewhere a line comes when something starts or ends, and every ten seconds while nothing does.
 */
const BEAT_MS = 10_000;

export class Progress {
  #startMs = performance.now();
  #doneWeight = 0;
  #allWeight;
  /** name → { weight, startMs, now } */
  #running = new Map();
  #tty = process.stdout.isTTY === true;
  #lastLineMs = performance.now();
  #timer;
  /** What is measured: [name, seconds, note]. */
  times = [];

  /** `weights`: about how many seconds each step takes on the first run. */
  constructor(weights) {
    this.#allWeight = weights.reduce((sum, weight) => sum + weight, 0);
    this.#timer = setInterval(() => this.#beat(), this.#tty ? 200 : 1000);
    this.#timer.unref();
  }

  /** Runs one step. `work` gets a function to say what it is about; its answer, when a string, is the step's note. */
  async step(name, weight, work) {
    const running = { weight, startMs: performance.now(), now: '' };
    this.#running.set(name, running);
    this.#line(`${name} …`);
    let note = '';
    try {
      const answer = await work((now) => {
        running.now = now;
      });
      if (typeof answer === 'string') note = answer;
    } catch (error) {
      throw Object.assign(error, { step: name });
    } finally {
      this.#running.delete(name);
    }
    this.#doneWeight += weight;
    const seconds = (performance.now() - running.startMs) / 1000;
    this.times.push([name, seconds, note]);
    this.#line(`${name}: ${seconds.toFixed(1)} s${note === '' ? '' : `, ${note}`}`);
  }

  get seconds() {
    return (performance.now() - this.#startMs) / 1000;
  }

  end() {
    clearInterval(this.#timer);
    if (this.#tty) process.stdout.write('\x1b[2K\r');
  }

  /** A step under way counts by its time, at most nearly whole: what it waits for, the network, tells no percentage. */
  #percent() {
    let weight = this.#doneWeight;
    for (const step of this.#running.values()) {
      const part = (performance.now() - step.startMs) / 1000 / step.weight;
      weight += step.weight * Math.min(0.95, part / (part + 0.5));
    }
    return Math.min(99, Math.floor((100 * weight) / this.#allWeight));
  }

  #head() {
    const s = Math.floor(this.seconds);
    return `[${String(this.#percent()).padStart(3)}%] ${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')} `;
  }

  #line(text) {
    this.#lastLineMs = performance.now();
    process.stdout.write(`${this.#tty ? '\x1b[2K\r' : ''}${this.#head()} ${text}\n`);
  }

  #beat() {
    const now = [...this.#running].map(([name, { now }]) => (now === '' ? name : `${name}: ${now}`)).join(' | ');
    if (now === '') return;
    if (this.#tty) {
      const line = `${this.#head()} ${now}`;
      process.stdout.write(`\x1b[2K\r${line.slice(0, (process.stdout.columns ?? 80) - 1)}`);
    } else if (performance.now() - this.#lastLineMs > BEAT_MS) this.#line(now.slice(0, 150));
  }
}
