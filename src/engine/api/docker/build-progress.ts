import type { BuildEvent } from '#build/events.ts';
import type { BuildGraph, StepId } from '#build/graph.ts';

/** A line of the classic builder's answer. */
export type ClassicLine =
  | { stream: string }
  | { aux: { ID: string } }
  | { errorDetail: { code?: number; message: string }; error: string };

/** Output of steps that run ahead of the one being told, kept until it is their turn. */
const AHEAD_MAX_BYTES = 1024 * 1024;

interface Told {
  text: string;
  step?: StepId;
}

/**
 * Events of a build, in which stages run at once, as the classic builder's stream, which knows one step after the other: each
 * instruction in the order of the file, what a later one says held back until the earlier have ended.
 */
export class ClassicProgress {
  readonly #put: (line: ClassicLine) => void;
  #lines: Told[] = [];
  #at = 0;
  #opened = false;
  readonly #ended = new Map<StepId, BuildEvent>();
  readonly #ahead = new Map<StepId, { chunks: string[]; bytes: number }>();

  constructor(put: (line: ClassicLine) => void) {
    this.#put = put;
  }

  begin(graph: BuildGraph): void {
    this.#lines = graph.stages.flatMap((stage) => stage.instructions);
    for (const [id, step] of graph.steps.entries())
      if (step.do === 'image') this.#ended.set(id, { at: 'cached', step: id });
    this.#advance();
  }

  take(event: BuildEvent): void {
    switch (event.at) {
      case 'output':
        this.#output(event.step, event.stream === 'stderr' ? inRed(event.text.toString()) : event.text.toString());
        return;
      case 'cached':
      case 'done':
      case 'failed':
        this.#ended.set(event.step, event);
        this.#advance();
        return;
      case 'note':
        this.#put({ stream: `${event.text}\n` });
        return;
      case 'warning':
        this.#put({
          stream: ` ---> [Warning] ${event.warning.message} (${event.warning.check}, line ${event.warning.lines.start})\n`,
        });
        return;
      default:
    }
  }

  /** What was held back of steps that will not be told any more. */
  flush(): void {
    for (const { chunks } of this.#ahead.values()) for (const text of chunks) this.#put({ stream: text });
    this.#ahead.clear();
  }

  #advance(): void {
    for (;;) {
      const line = this.#lines[this.#at];
      if (!line) return;
      if (!this.#opened) this.#open(line);
      const ended = line.step === undefined ? undefined : this.#ended.get(line.step);
      if (line.step !== undefined && !ended) return;
      if (ended?.at === 'failed') return;
      if (ended) this.#close(ended);
      this.#at++;
      this.#opened = false;
    }
  }

  #open(line: Told): void {
    this.#opened = true;
    this.#put({ stream: `Step ${this.#at + 1}/${this.#lines.length} : ${line.text.split('\n')[0]}` });
    this.#put({ stream: '\n' });
    const ahead = line.step === undefined ? undefined : this.#ahead.get(line.step);
    if (!ahead || line.step === undefined) return;
    this.#ahead.delete(line.step);
    for (const text of ahead.chunks) this.#put({ stream: text });
  }

  #close(event: BuildEvent): void {
    const isImage = this.#lines[this.#at]?.text.toUpperCase().startsWith('FROM');
    if (event.at === 'cached' && !isImage) this.#put({ stream: ' ---> Using cache\n' });
    if (event.at === 'done' && event.layer !== undefined) this.#put({ stream: ` ---> ${event.layer.slice(7, 19)}\n` });
  }

  #output(step: StepId, text: string): void {
    const current = this.#lines[this.#at];
    if (current?.step === step && this.#opened) {
      this.#put({ stream: text });
      return;
    }
    const held = this.#ahead.get(step) ?? { chunks: [], bytes: 0 };
    this.#ahead.set(step, held);
    held.chunks.push(text);
    held.bytes += text.length;
    while (held.bytes > AHEAD_MAX_BYTES && held.chunks.length > 1) held.bytes -= held.chunks.shift()?.length ?? 0;
  }
}

/** How Docker's builder tells standard error from standard output; clients look for it. */
function inRed(text: string): string {
  return `\x1b[91m${text}\x1b[0m`;
}
