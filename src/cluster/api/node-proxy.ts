import type { Duplex, Readable, Writable } from 'node:stream';
import { unavailable } from './status.ts';

/**
 * What the API server asks of the node a pod runs on. The node agent of this process implements it directly; for other nodes an
 * implementation that speaks HTTPS to them goes in the same place.
 */
export interface NodeProxy {
  /** Log lines as they are sent to the client, timestamps and limits applied. Ends when `signal` aborts or the log does. */
  logs(target: ContainerTarget, options: LogOptions, signal: AbortSignal): Promise<Readable>;
  exec(target: ContainerTarget, options: ExecOptions): Promise<ExecSession>;
  attach(target: ContainerTarget, options: Omit<ExecOptions, 'command'>): Promise<ExecSession>;
  /** A connection to a port inside the pod's network; `signal` gives up while there is none yet. */
  portForward(target: PodTarget, port: number, signal: AbortSignal): Promise<Duplex>;
}

export interface PodTarget {
  node: string;
  namespace: string;
  pod: string;
  uid: string;
}

export interface ContainerTarget extends PodTarget {
  container: string;
}

export interface LogOptions {
  follow: boolean;
  previous: boolean;
  timestamps: boolean;
  sinceSeconds?: number;
  /** RFC 3339 */
  sinceTime?: string;
  tailLines?: number;
  limitBytes?: number;
  stream?: 'All' | 'Stdout' | 'Stderr';
}

export interface ExecOptions {
  command: readonly string[];
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

export interface ExecSession {
  stdin: Writable | undefined;
  stdout: Readable | undefined;
  stderr: Readable | undefined;
  resize(columns: number, rows: number): void;
  /** Exit code of the command. */
  exited: Promise<number>;
  /** The client has gone. */
  close(): void;
}

/** Stands in while no node agent is connected. */
export const noNodes: NodeProxy = {
  logs: refuse,
  exec: refuse,
  attach: refuse,
  portForward: refuse,
};

async function refuse(target: PodTarget): Promise<never> {
  throw unavailable(
    `node ${JSON.stringify(target.node)} of pod ${target.namespace}/${target.pod} is not connected to this API server`,
  );
}
