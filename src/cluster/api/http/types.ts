import type { User } from '../authn/user.ts';

/** A request without its transport: sockets, the simulation and in-process clients all make these. */
export interface ApiRequest {
  method: string;
  /** Path and query as sent. */
  url: string;
  /** Lower-case names. */
  headers: Readonly<Record<string, string | undefined>>;
  body: Uint8Array;
  /** From the transport: a verified client certificate, or who runs in this process. */
  peer?: User | undefined;
}

export type ApiResponse = WholeResponse | StreamResponse;

export interface WholeResponse {
  code: number;
  headers: Record<string, string | string[]>;
  readonly body: Buffer | string;
  /** What the body says, for a client in this process: it reads and does not change it. Absent where there is text alone. */
  readonly value?: unknown;
}

export interface StreamResponse {
  code: number;
  headers: Record<string, string | string[]>;
  /** Starts writing; the returned function is called once the reader has gone or `end` was called. */
  stream: (sink: Sink) => () => void;
}

export interface Sink {
  /** False: the reader is behind; what it holds unread is in `pendingBytes`. */
  write(chunk: Buffer): boolean;
  /** A reader in this process: it gets the events of a watch themselves, which it does not change, and no bytes. */
  take?(event: { type: string; object: unknown }): void;
  pendingBytes(): number;
  end(): void;
  /** Cuts the connection: the reader must not take the rest for the whole. */
  destroy(): void;
}

export function isStream(response: ApiResponse): response is StreamResponse {
  return 'stream' in response;
}
