import type { Position, Tree } from './tree.ts';

/** The whole application after merging, extending, including and interpolating. Sizes are bytes, times milliseconds. */
export interface ComposeProject {
  name: string;
  services: Record<string, ComposeService>;
  networks: Record<string, ComposeNetwork>;
  volumes: Record<string, ComposeVolume>;
  secrets: Record<string, ComposeFileObject>;
  configs: Record<string, ComposeFileObject>;
}

export interface ComposeService {
  name: string;
  at: Position;
  image?: string;
  build?: ComposeBuild;
  /** Null: the image's own. A string in the file is split as a shell would. */
  command?: readonly string[] | null;
  entrypoint?: readonly string[] | null;
  /** Null: taken from the environment of whoever runs it, if set there. */
  environment: Record<string, string | null>;
  ports: readonly ComposePort[];
  expose: readonly string[];
  volumes: readonly ComposeMount[];
  networks: Record<string, ComposeAttachment>;
  dependsOn: Record<string, { condition: DependsCondition; required: boolean; restart: boolean }>;
  healthcheck?: ComposeHealthcheck;
  secrets: readonly ComposeFileMount[];
  configs: readonly ComposeFileMount[];
  labels: Record<string, string>;
  profiles: readonly string[];
  restart?: string;
  replicas?: number;
  user?: string;
  workingDir?: string;
  hostname?: string;
  containerName?: string;
  stopGracePeriodMs?: number;
  stopSignal?: string;
  tmpfs: readonly string[];
  capAdd: readonly string[];
  capDrop: readonly string[];
  privileged?: boolean;
  readOnly?: boolean;
  init?: boolean;
  tty?: boolean;
  stdinOpen?: boolean;
  /** Limits and reservations, from `deploy.resources` or the older attributes. */
  resources: {
    cpus?: number;
    memoryBytes?: number;
    reservedCpus?: number;
    reservedMemoryBytes?: number;
    pids?: number;
  };
  /** Attributes that are valid and have no field above, as written, with their places: a user of the model takes or refuses each. */
  rest: ReadonlyMap<string, Tree>;
  /** Where an attribute was written. */
  where: (attribute: string) => Position;
}

export interface ComposeAttachment {
  aliases: readonly string[];
  ipv4Address?: string;
  /** As `rest` of the service, when there is any. */
  rest?: ReadonlyMap<string, Tree>;
}

export interface ComposeBuild {
  context: string;
  dockerfile?: string;
  dockerfileInline?: string;
  args: Record<string, string | null>;
  target?: string;
  rest: ReadonlyMap<string, Tree>;
}

export interface ComposePort {
  target: number;
  /** Undefined: any free one. */
  published?: number;
  hostIp?: string;
  protocol: string;
  at: Position;
}

export interface ComposeMount {
  type: 'bind' | 'volume' | 'tmpfs' | 'image' | 'npipe' | 'cluster';
  source?: string;
  target: string;
  readOnly: boolean;
  at: Position;
  rest: ReadonlyMap<string, Tree>;
}

export type DependsCondition = 'service_started' | 'service_healthy' | 'service_completed_successfully';

export interface ComposeHealthcheck {
  disabled: boolean;
  /** `["CMD", …]`, `["CMD-SHELL", text]`, `["NONE"]`; undefined: the image's own. */
  test?: readonly string[];
  intervalMs?: number;
  timeoutMs?: number;
  startPeriodMs?: number;
  startIntervalMs?: number;
  retries?: number;
}

export interface ComposeFileMount {
  source: string;
  /** In the container; secrets without one stand under /run/secrets. */
  target: string;
  uid?: string;
  gid?: string;
  mode?: number;
  at: Position;
}

export interface ComposeNetwork {
  name: string;
  external: boolean;
  internal: boolean;
  at: Position;
  rest: ReadonlyMap<string, Tree>;
}
export interface ComposeVolume {
  name: string;
  external: boolean;
  at: Position;
  rest: ReadonlyMap<string, Tree>;
}
/** A secret or a config; exactly one of file, environment, content, unless external. */
export interface ComposeFileObject {
  name: string;
  external: boolean;
  file?: string;
  environment?: string;
  content?: string;
  at: Position;
  rest: ReadonlyMap<string, Tree>;
}
