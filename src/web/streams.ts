import type { EngineClient } from '#engine/client/client.ts';
import { FrameReader, RAW_STREAM, STDERR } from '#spec/docker/frames.ts';
import type { LogPut } from '#web/wire.ts';

/** What a page has of a stream: `put` waits while the page is behind. */
export interface Sink<T> {
  put(item: T): Promise<void>;
}

const TAIL_LINES = 500;
/** A line without an end is told in pieces. */
const LINE_MAX = 16 * 1024;

/** A container's log, from its last lines on; ends with the container. */
export async function readLog(
  engine: EngineClient,
  container: string,
  sink: Sink<LogPut>,
  signal: AbortSignal,
): Promise<string> {
  const query = { follow: 1, stdout: 1, stderr: 1, timestamps: 1, tail: TAIL_LINES };
  const body = await engine.open({ path: `/containers/${encodeURIComponent(container)}/logs`, query, signal });
  const frames = new FrameReader();
  const raw = body.headers['content-type'] === RAW_STREAM;
  const outputs = [new LogLines(false), new LogLines(true)] as const;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const parts = raw ? [{ stream: 1, payload: chunk }] : frames.push(chunk);
    const lines = parts.flatMap(({ stream, payload }) => outputs[stream === STDERR ? 1 : 0].push(payload));
    if (lines.length > 0) await sink.put({ lines });
  }
  const rest = outputs.flatMap((output) => output.rest());
  if (rest.length > 0) await sink.put({ lines: rest });
  return 'the container has ended';
}

/** Bytes of one output to lines: `2026-01-02T03:04:05.000000006Z the text`. */
export class LogLines {
  readonly #error: boolean;
  readonly #decoder = new TextDecoder();
  #partial = '';

  constructor(error: boolean) {
    this.#error = error;
  }

  push(bytes: Uint8Array): LogPut['lines'] {
    const parts = (this.#partial + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#partial = parts.pop() ?? '';
    if (this.#partial.length > LINE_MAX) parts.push(...this.#take());
    return parts.map((text) => this.#line(text));
  }

  rest(): LogPut['lines'] {
    return this.#take().map((text) => this.#line(text));
  }

  #take(): string[] {
    const text = this.#partial;
    this.#partial = '';
    return text === '' ? [] : [text];
  }

  #line(text: string): LogPut['lines'][number] {
    const [, at = '', said = text] = /^(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-][\d:]+)) (.*)$/s.exec(text) ?? [];
    return { at, error: this.#error, text: said.replace(/\r$/, '') };
  }
}

/** bash where there is one: it has a history and completes names. */
const SHELL = ['/bin/sh', '-c', 'command -v bash >/dev/null 2>&1 && exec bash; exec sh'];

export interface Terminal {
  input(text: string): void;
  resize(rows: number, columns: number): Promise<void>;
  /** Resolves with how it ended. */
  run(sink: Sink<string>): Promise<string>;
  close(): Promise<void>;
}

/** A shell in a container, on a terminal of its own. */
export async function openTerminal(
  engine: EngineClient,
  hangUp: (exec: string) => Promise<void>,
  wish: { container: string; rows: number; columns: number },
  signal: AbortSignal,
): Promise<Terminal> {
  const { Id } = await engine.json<{ Id: string }>({
    method: 'POST',
    path: `/containers/${encodeURIComponent(wish.container)}/exec`,
    json: {
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
      Tty: true,
      Env: ['TERM=xterm-256color'],
      Cmd: SHELL,
      ConsoleSize: [wish.rows, wish.columns],
    },
    signal,
  });
  const { socket, head } = await engine.attach({
    path: `/exec/${Id}/start`,
    json: { Detach: false, Tty: true, ConsoleSize: [wish.rows, wish.columns] },
    signal,
  });
  socket.on('error', () => undefined); // the end that follows is what counts
  return {
    input: (text) => {
      if (socket.writable) socket.write(text);
    },
    resize: (rows, columns) =>
      engine.send({ method: 'POST', path: `/exec/${Id}/resize`, query: { h: rows, w: columns }, signal }),
    run: async (sink) => {
      const decoder = new TextDecoder();
      if (head.length > 0) await sink.put(decoder.decode(head, { stream: true }));
      for await (const chunk of socket as AsyncIterable<Buffer>)
        await sink.put(decoder.decode(chunk, { stream: true }));
      const { ExitCode } = await engine.json<{ ExitCode: number | null }>({ path: `/exec/${Id}/json` });
      return ExitCode === null ? 'the shell has ended' : `the shell has ended with exit code ${ExitCode}`;
    },
    // A shell would wait for ever for keys of a page that is gone.
    close: async () => {
      socket.destroy();
      await hangUp(Id);
    },
  };
}
