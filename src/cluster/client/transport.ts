import type { KubeObject } from './resources.ts';

export interface ApiRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** With the query, percent-encoded. */
  path: string;
  body?: unknown;
  contentType?: string;
  signal?: AbortSignal;
}

export interface ApiAnswer {
  /** HTTP status. */
  status: number;
  body: unknown;
}

export interface WatchEvent<T = KubeObject> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: T;
}

/**
 * How requests reach the API server: over HTTP, or in one process. Both answer with the server's status whatever it is and
 * throw `KUBE_UNREACHABLE` only when there is no answer. Objects that come out may be shared with the server: read only.
 */
export interface Transport {
  request(request: ApiRequest): Promise<ApiAnswer>;
  /** Ends when the server ends the watch or `signal` aborts; throws the server's refusal (`errors.ts`) when it does not start. */
  watch(path: string, signal: AbortSignal): AsyncIterable<WatchEvent>;
}
