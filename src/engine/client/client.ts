import type { IncomingMessage } from 'node:http';
import { isCode } from '#base/errors.ts';
import type { CallOptions, DaemonConnection, Upgraded } from '#engine/client/connection.ts';
import { RAW_STREAM } from '#spec/docker/frames.ts';

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export interface Call extends CallOptions {
  /** `/containers/json`; a version in front is allowed. */
  path: string;
  query?: Query;
}

export interface Attached extends Upgraded {
  /** Output comes in frames of stdout and stderr; otherwise it is a terminal's one stream. */
  multiplexed: boolean;
}

/** Calls of the daemon's HTTP API as commands make them: Docker's, and our own under `/estiba/v1`. */
export class EngineClient {
  readonly connection: DaemonConnection;

  constructor(connection: DaemonConnection) {
    this.connection = connection;
  }

  /** The answer as JSON; undefined when it is empty. */
  async json<T = unknown>({ path, query, ...call }: Call): Promise<T> {
    return (await this.connection.json(withQuery(path, query), call)) as T;
  }

  /** For calls whose answer says nothing. */
  async send({ path, query, ...call }: Call): Promise<void> {
    (await this.connection.stream(withQuery(path, query), call)).resume();
  }

  /** Lines of JSON as they come: events, progress, statistics. */
  lines<T = unknown>({ path, query, ...call }: Call): AsyncGenerator<T> {
    return this.connection.lines(withQuery(path, query), call) as AsyncGenerator<T>;
  }

  /** The answer's body as it comes. */
  open({ path, query, ...call }: Call): Promise<IncomingMessage> {
    return this.connection.stream(withQuery(path, query), call);
  }

  /** Attaches to a container, or starts an exec: a stream both ways. */
  async attach({ path, query, json, signal }: Pick<Call, 'path' | 'query' | 'json' | 'signal'>): Promise<Attached> {
    const upgraded = await this.connection.upgrade(withQuery(path, query), signal, json);
    return { ...upgraded, multiplexed: upgraded.contentType !== RAW_STREAM };
  }
}

function withQuery(path: string, query: Query = {}): string {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) out.append(name, String(item));
  }
  const text = out.toString();
  return text === '' ? path : `${path}?${text}`;
}

/** The status of a refusal; undefined for other errors. */
export function refusedStatus(error: unknown): number | undefined {
  return isCode(error, 'REQUEST_REFUSED') ? Number(error.data['status']) : undefined;
}
