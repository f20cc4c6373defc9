import type { ChildProcess } from 'node:child_process';
import type { Machine } from './machine.ts';

/** One way to ask: where, by which name, and on how many connections. */
export interface Way {
  name: string;
  host: string;
  port: number;
  /** Of the `Host` header. */
  virtual?: string;
  /** Connections stay open; otherwise each request has its own. */
  keepAlive: boolean;
}

export interface Tally {
  name: string;
  done: number;
  /** What went wrong, the first few. */
  failures: string[];
  /** Answers by their text. */
  said: Record<string, number>;
}

/** Clients inside the machine that ask without pause, until they are told to stop. */
export class Load {
  readonly #child: ChildProcess;
  #out = '';

  constructor(machine: Machine, ways: readonly Way[]) {
    this.#child = machine.spawn(process.execPath, ['-e', SCRIPT, JSON.stringify(ways)]);
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#out += chunk.toString();
    });
  }

  /** What came of it. */
  async stop(): Promise<Tally[]> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin?.end();
    await ended;
    return JSON.parse(this.#out) as Tally[];
  }
}

const SCRIPT = `
const http = require('http');
const ways = JSON.parse(process.argv[1]);
let stop = false;
process.stdin.on('end', () => (stop = true)).resume();
const ask = (way, agent) => new Promise((resolve) => {
  const { host, port, virtual } = way;
  const q = http.get({ host, port, agent, headers: virtual ? { host: virtual } : {}, timeout: 10000 }, (r) => {
    let text = '';
    r.on('data', (d) => (text += d));
    r.on('error', (e) => resolve('broken ' + e.code));
    r.on('end', () => resolve(r.statusCode === 200 ? { text: text.trim() } : r.statusCode + ' ' + text.trim()));
  });
  q.on('timeout', () => q.destroy(new Error('timeout')));
  q.on('error', (e) => resolve('error ' + (e.code || e.message)));
});
const client = async (way) => {
  const agent = way.keepAlive ? new http.Agent({ keepAlive: true, maxSockets: 2 }) : false;
  const tally = { name: way.name, done: 0, failures: [], said: {} };
  const loop = async () => {
    while (!stop) {
      const answer = await ask(way, agent);
      tally.done++;
      if (typeof answer === 'string') tally.failures.length < 10 && tally.failures.push(answer);
      else tally.said[answer.text] = (tally.said[answer.text] || 0) + 1;
      await new Promise((r) => setTimeout(r, 4));
    }
  };
  await Promise.all([loop(), loop()]);
  return tally;
};
Promise.all(ways.map(client)).then((all) => { console.log(JSON.stringify(all)); process.exit(0); });
`;
