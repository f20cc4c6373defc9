import type { ProcessPlan } from '#engine/core/image-defaults.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';

/**
 * A container as the node remembers it: `containers/ID` in the node's store. Written before anything of it exists, so that a
 * start-up sweep can finish or undo what a crash left.
 *
 *     creating ──▶ created ──▶ starting ──▶ running ⇄ paused
 *                                  ▲           │
 *                                  │           ▼
 *                              restarting ◀── exited ──▶ removing ──▶ (gone)
 *
 * `creating`, `starting` and `removing` are intents: after a crash the first and last are swept, the second is looked into. A removal
 * that destroys nothing but what the container wrote needs none: its record is the first that goes.
 */
export interface ContainerRecord {
  id: string;
  name: string;
  createdAtMs: number;
  spec: ContainerSpec;
  process: ProcessPlan;
  image: { id: string; reference: string };
  hostname: string;
  state: ContainerState;
  mounts: MountRecord[];
  /** Names of networks → what the container has there. */
  endpoints: Record<string, EndpointRecord>;
  ports: PortRecord[];
  /** Variables from old links to other containers, as its last start found them. */
  linkEnv?: string[];
}

export type Phase =
  | 'creating'
  | 'created'
  | 'starting'
  | 'running'
  | 'paused'
  | 'restarting'
  | 'exited'
  | 'removing'
  | 'dead';

export interface ContainerState {
  phase: Phase;
  pid: number;
  /** Field 22 of `/proc/PID/stat`: with the pid it names the process for good. */
  startTicks: number;
  exitCode: number;
  error: string;
  oomKilled: boolean;
  startedAtMs: number;
  finishedAtMs: number;
  /** Restarts by policy since somebody last started it by hand. */
  restartCount: number;
  /** Stopped by hand: `unless-stopped` and `always` leave it be until the next start, or the next boot (`always`). */
  stoppedByHand: boolean;
  health?: HealthState;
}

export interface HealthState {
  status: 'starting' | 'healthy' | 'unhealthy';
  failingStreak: number;
  /** The last five, oldest first. */
  log: HealthResult[];
}

export interface HealthResult {
  startMs: number;
  endMs: number;
  exitCode: number;
  output: string;
}

export interface MountRecord {
  type: 'bind' | 'volume' | 'tmpfs';
  /** Of volumes. */
  name?: string;
  driver?: string;
  source: string;
  target: string;
  readonly: boolean;
  propagation: string;
  /** As `docker inspect` shows it. */
  mode: string;
  /** What was asked for; says what the fields above do not: sub-path, owner, options. */
  wish: MountSpec;
}

export interface EndpointRecord {
  networkId: string;
  endpointId: string;
  ipv4?: string;
  prefix4?: number;
  gateway4?: string;
  ipv6?: string;
  prefix6?: number;
  gateway6?: string;
  mac: string;
  /** Addresses that were asked for, and so are kept. */
  asked?: { ipv4?: string; ipv6?: string; mac?: string; linkLocal?: string[] };
  aliases: string[];
  links: string[];
  gwPriority?: number;
  driverOptions: Record<string, string>;
}

export interface PortRecord {
  containerPort: number;
  protocol: 'tcp' | 'udp' | 'sctp';
  /** Absent: exposed and not published. */
  hostIp?: string;
  hostPort?: number;
}

export const FRESH_STATE: ContainerState = {
  phase: 'creating',
  pid: 0,
  startTicks: 0,
  exitCode: 0,
  error: '',
  oomKilled: false,
  startedAtMs: 0,
  finishedAtMs: 0,
  restartCount: 0,
  stoppedByHand: false,
};

/** What a container is again when a start of it is taken back. */
export function phaseAtRest({ startedAtMs }: ContainerState): 'created' | 'exited' {
  return startedAtMs === 0 ? 'created' : 'exited';
}

export function isRunning(state: ContainerState): boolean {
  return state.phase === 'running' || state.phase === 'paused' || state.phase === 'starting';
}
