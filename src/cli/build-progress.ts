import type { BuildFailure, BuildLine } from '#spec/estiba/build.ts';

/** How a build is shown; `close` before anything else is printed. */
export interface ProgressView {
  take(line: BuildLine): void;
  close(): void;
}

export interface Screen {
  write(text: string): void;
  columns: number;
  now(): number;
}

/** A line an event, each with its step's number: for logs and CI. */
export class PlainProgress implements ProgressView {
  readonly #screen: Screen;
  readonly #startedAtMs = new Map<number, number>();
  readonly #rest = new Map<number, string>();
  #titles: string[] = [];

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  take(line: BuildLine): void {
    switch (line.at) {
      case 'steps':
        this.#titles = line.titles;
        return;
      case 'start':
        this.#startedAtMs.set(line.step, this.#screen.now());
        this.#put(line.step, this.#titles[line.step] ?? '');
        return;
      case 'cached':
        this.#put(line.step, this.#titles[line.step] ?? '');
        this.#put(line.step, 'CACHED\n');
        return;
      case 'done':
        this.#end(line.step);
        this.#put(line.step, `DONE ${seconds(line.tookMs)}\n`);
        return;
      case 'failed':
        this.#end(line.step);
        this.#put(line.step, 'ERROR\n');
        return;
      case 'output':
        this.#output(line.step, line.text);
        return;
      case 'note':
        this.#screen.write(`${line.text}\n`);
        return;
      case 'warning':
        this.#screen.write(`warning ${line.check}, line ${line.line}: ${line.message}\n`);
        return;
      default:
    }
  }

  close(): void {
    for (const step of [...this.#rest.keys()]) this.#end(step);
  }

  #output(step: number, text: string): void {
    const lines = ((this.#rest.get(step) ?? '') + text).split('\n');
    this.#rest.set(step, lines.pop() ?? '');
    const at = seconds(this.#screen.now() - (this.#startedAtMs.get(step) ?? 0));
    for (const line of lines) this.#put(step, `${at} ${line.replace(/\r$/, '')}`);
  }

  #end(step: number): void {
    const rest = this.#rest.get(step);
    this.#rest.delete(step);
    if (rest) this.#put(step, rest);
  }

  #put(step: number, text: string): void {
    this.#screen.write(`#${step} ${text}\n`);
  }
}

const TAIL_LINES = 4;
const REDRAW_MS = 100;

/** What is done as lines that stay, what runs below them with its last output, drawn anew as it goes. */
export class LiveProgress implements ProgressView {
  readonly #screen: Screen;
  readonly #running = new Map<number, { startedAtMs: number; tail: string[] }>();
  readonly #timer: NodeJS.Timeout;
  #titles: string[] = [];
  #drawn = 0;

  constructor(screen: Screen) {
    this.#screen = screen;
    this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
    this.#timer.unref();
  }

  take(line: BuildLine): void {
    switch (line.at) {
      case 'steps':
        this.#titles = line.titles;
        return;
      case 'start':
        this.#running.set(line.step, { startedAtMs: this.#screen.now(), tail: [] });
        return;
      case 'cached':
        this.#settle(line.step, 'CACHED');
        return;
      case 'done':
        this.#settle(line.step, seconds(line.tookMs));
        return;
      case 'failed':
        this.#settle(line.step, 'ERROR');
        return;
      case 'output': {
        const running = this.#running.get(line.step);
        const lines = line.text.split('\n').filter((text) => text.trim() !== '');
        if (running) running.tail = [...running.tail, ...lines].slice(-TAIL_LINES);
        return;
      }
      case 'note':
        this.#stay(line.text);
        return;
      case 'warning':
        this.#stay(`warning ${line.check}, line ${line.line}: ${line.message}`);
        return;
      default:
    }
  }

  close(): void {
    clearInterval(this.#timer);
    this.#erase();
  }

  #settle(step: number, how: string): void {
    this.#running.delete(step);
    this.#stay(this.#row(this.#titles[step] ?? '', how));
  }

  #stay(text: string): void {
    this.#erase();
    this.#screen.write(`${text}\n`);
    this.#draw();
  }

  #draw(): void {
    this.#erase();
    const rows: string[] = [];
    for (const [step, { startedAtMs, tail }] of this.#running) {
      rows.push(this.#row(this.#titles[step] ?? '', seconds(this.#screen.now() - startedAtMs)));
      for (const line of tail) rows.push(`   ${printable(line)}`.slice(0, this.#screen.columns - 1));
    }
    if (rows.length > 0) this.#screen.write(`${rows.join('\n')}\n`);
    this.#drawn = rows.length;
  }

  /** Up as many lines as were drawn, and away with what is below. */
  #erase(): void {
    if (this.#drawn > 0) this.#screen.write(`\u001b[${this.#drawn}A\u001b[0J`);
    this.#drawn = 0;
  }

  #row(title: string, right: string): string {
    const room = Math.max(10, this.#screen.columns - right.length - 2);
    return `${printable(title).slice(0, room).padEnd(room)} ${right}`;
  }
}

/** A command's output must not steer the terminal. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, ' ');
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)}s`;
}

/** Where and why, the command's last words, and the way on. */
export function failureText({ message, hint, file, line, excerpt, tail, exitCode }: BuildFailure): string {
  const parts = [`${file === undefined ? '' : `${file}${line === undefined ? '' : `:${line}`}: `}${message}`];
  if (tail) parts.push('------', tail.trimEnd(), '------');
  if (excerpt) parts.push(excerpt);
  if (hint !== undefined) parts.push(hint);
  if (exitCode !== undefined) parts.push('estiba debug-build looks into the file system as the command left it');
  return `${parts.join('\n')}\n`;
}
