import type { Readable, Writable } from 'node:stream';
import type { WebSocket, WebSocketHandlers } from '#base/websocket.ts';

/** What a handler answers. The server knows how to send each kind, over plain HTTP and over an upgraded connection. */
export type Reply =
  | { kind: 'json'; status: number; body: unknown; headers?: Record<string, string> }
  | { kind: 'empty'; status: number; headers?: Record<string, string> }
  | { kind: 'text'; status: number; body: string; headers?: Record<string, string> }
  /** A body that comes over time. `write` waits when the client reads slowly; it rejects when the client is gone. */
  | {
      kind: 'stream';
      status: number;
      type: string;
      headers?: Record<string, string>;
      run: (out: Out, signal: AbortSignal) => Promise<void>;
    }
  /** A file or archive as it comes. */
  | { kind: 'pipe'; status: number; type: string; headers?: Record<string, string>; body: Readable }
  /** Attach and exec: raw bytes both ways until either side ends. */
  | { kind: 'hijack'; type: string; run: (connection: Hijacked, signal: AbortSignal) => Promise<void> }
  /** WebSocket messages both ways until either side closes. */
  | { kind: 'websocket'; run: (open: WebSocketOpener, signal: AbortSignal) => Promise<void> };

/** Messages of the client go to these handlers from here on. */
export type WebSocketOpener = (handlers: WebSocketHandlers) => WebSocket;

export interface Out {
  write(chunk: string | Uint8Array): Promise<void>;
}

export interface Hijacked {
  /** The client's standard input; ends when the client closes its side. */
  input: Readable;
  output: Writable;
}

export function json(body: unknown, status = 200, headers?: Record<string, string>): Reply {
  return { kind: 'json', status, body, ...(headers ? { headers } : {}) };
}

export function empty(status = 204): Reply {
  return { kind: 'empty', status };
}

/** Progress and events: one JSON object a line. */
export function jsonLines(run: (put: (item: unknown) => Promise<void>, signal: AbortSignal) => Promise<void>): Reply {
  return {
    kind: 'stream',
    status: 200,
    type: 'application/json',
    run: (out, signal) => run((item) => out.write(`${JSON.stringify(item)}\r\n`), signal),
  };
}
