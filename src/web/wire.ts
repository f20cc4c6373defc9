/**
 * What the page and its server say to each other. The lists are the same for everybody who looks; streams belong to one page.
 *
 *     page                                              server
 *       ── {"open":1,"topic":{"kind":"world"}} ──────────▶
 *       ◀── {"channel":1,"put":{whole, set, gone}} ──────   all, then what changes
 *       ── {"open":2,"topic":{"kind":"terminal",…}} ─────▶
 *       ── {"input":2,"text":"ls\r"} ────────────────────▶
 *       ◀── {"channel":2,"put":"bin dev etc\r\n"} ───────
 *       ◀── {"channel":2,"end":"exit code 0"} ───────────   over by itself; "error": it failed
 *       ── {"close":1} ──────────────────────────────────▶   the page wants no more
 */
export type Topic =
  | { kind: 'world' }
  /** What runs uses, every two seconds while somebody looks. */
  | { kind: 'figures' }
  | { kind: 'logs'; container: string }
  | { kind: 'terminal'; container: string; rows: number; columns: number };

export type Ask =
  | { open: number; topic: Topic }
  | { input: number; text: string }
  | { resize: number; rows: number; columns: number }
  | { close: number };

export type Tell =
  | { channel: number; put: unknown }
  | { channel: number; end: string }
  | { channel: number; error: string; hint?: string };

/** Rows by key, and keys that are gone. The first message of a `world` has `whole`. */
export interface WorldChange {
  whole: boolean;
  set: { [T in keyof World]?: World[T][] };
  gone: { [T in keyof World]?: string[] };
}

export interface World {
  machine: MachineRow;
  containers: ContainerRow;
  pods: PodRow;
  nodes: NodeRow;
  events: EventRow;
}

/** The machine the daemon runs on: one row. */
export interface MachineRow {
  key: string;
  hostname: string;
  version: string;
  kernel: string;
  cpus: number;
  memoryBytes: number;
  /** Whether it serves the Kubernetes API: without it there are no pods to show. */
  cluster: boolean;
}

export type Phase = 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'removing' | 'dead';

export interface ContainerRow {
  key: string;
  name: string;
  image: string;
  phase: Phase;
  health?: 'starting' | 'healthy' | 'unhealthy';
  command: string;
  createdAtMs: number;
  startedAtMs: number;
  /** 0: it has not ended. */
  finishedAtMs: number;
  exitCode: number;
  oomKilled: boolean;
  /** What the daemon could not do for it, in words. */
  error: string;
  restarts: number;
  ports: string[];
  networks: string[];
  mounts: { target: string; source: string; readOnly: boolean }[];
  labels: Record<string, string>;
  /** The app it belongs to, when it says so. */
  app?: string;
  pod?: { namespace: string; name: string; container: string };
}

export interface PodRow {
  key: string;
  namespace: string;
  name: string;
  app: string;
  phase: string;
  /** Why it is not well, as `kubectl get pods` has it: `CrashLoopBackOff`; the phase when there is nothing to say. */
  state: string;
  message: string;
  ready: number;
  wanted: number;
  restarts: number;
  node: string;
  ip: string;
  createdAtMs: number;
  owner: string;
  containers: { name: string; image: string; state: string; ready: boolean; restarts: number; init: boolean }[];
}

export interface NodeRow {
  key: string;
  name: string;
  ready: boolean;
  /** Why it is not ready, or that nothing new is placed on it. */
  note: string;
  version: string;
  os: string;
  address: string;
  cpus: number;
  memoryBytes: number;
  podsMax: number;
  createdAtMs: number;
}

export interface EventRow {
  key: string;
  atMs: number;
  from: 'engine' | 'cluster';
  warning: boolean;
  kind: string;
  /** `namespace/name` of what Kubernetes holds. */
  name: string;
  action: string;
  text: string;
  count: number;
  /** Full id, of containers. */
  container?: string;
}

/** By id of running containers. CPU time and bytes as counted since the container's start. */
export interface Figures {
  atMs: number;
  machine: { cpuNs: number; memoryBytes: number };
  containers: Record<string, Figure>;
}

export interface Figure {
  cpuNs: number;
  memoryBytes: number;
  /** Undefined: no limit but the machine's. */
  memoryLimitBytes?: number;
  rxBytes: number;
  txBytes: number;
  processes: number;
}

/** Lines of a log; `at` as the log has it (RFC 3339). */
export interface LogPut {
  lines: { at: string; error: boolean; text: string }[];
}

/** Answer of `/api/containers/ID/xray`: see `engine/core/insight/xray.ts`. */
export interface XrayAnswer {
  container: { id: string; name: string; image: string; phase: string; pid: number };
  sees: XrayAnswerLine[];
  mayDo: XrayAnswerLine[];
  mayUse: XrayAnswerLine[];
}

export interface XrayAnswerLine {
  topic: string;
  name?: string;
  value: string;
  because: string;
  wished?: string;
}

export const CONTAINER_ACTIONS = ['start', 'stop', 'restart', 'remove'] as const;
export type ContainerAction = (typeof CONTAINER_ACTIONS)[number];
