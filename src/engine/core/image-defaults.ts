import { defineError } from '#base/errors.ts';
import type { ContainerSpec, HealthSpec } from '#engine/core/spec.ts';
import type { RunConfig } from '#spec/image/manifest.ts';

export const NoCommand = defineError('NO_COMMAND', (d: { image: string }) => ({
  message: 'no command specified',
  hint: `image ${d.image} names no program either; give one`,
}));

/** A spec with the image's own settings filled in: what will run, as whom, with which environment. */
export interface ProcessPlan {
  argv: string[];
  env: string[];
  cwd: string;
  user: string;
  stopSignal: string;
  labels: Record<string, string>;
  /** Directories that get an anonymous volume unless something is mounted there. */
  volumes: string[];
  /** `80/tcp`. */
  exposedPorts: string[];
  health: HealthSpec | undefined;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const SECOND_NS = 1_000_000_000;
const HEALTH_DEFAULTS = {
  intervalNs: 30 * SECOND_NS,
  timeoutNs: 30 * SECOND_NS,
  startPeriodNs: 0,
  startIntervalNs: 5 * SECOND_NS,
  retries: 3,
};

/** Docker's rules: a new entry point drops the image's command; variables are joined by name; labels of the wish win. */
export function applyImage(spec: ContainerSpec, image: RunConfig): ProcessPlan {
  const entrypoint = spec.process.entrypoint ?? image.Entrypoint ?? [];
  const imageCmd = spec.process.entrypoint === undefined ? (image.Cmd ?? []) : [];
  const args = spec.process.args !== undefined && spec.process.args.length > 0 ? spec.process.args : imageCmd;
  const argv = [...entrypoint, ...args];
  if (argv.length === 0 || argv[0] === '') throw new NoCommand({ image: spec.image });
  return {
    argv,
    env: joinEnv(image.Env ?? [], spec.process.env, spec.process.tty),
    cwd: spec.process.cwd || image.WorkingDir || '/',
    user: spec.process.user ?? image.User ?? '',
    stopSignal: spec.stop.signal ?? image.StopSignal ?? 'SIGTERM',
    labels: { ...image.Labels, ...spec.labels },
    volumes: Object.keys(image.Volumes ?? {}),
    exposedPorts: [...new Set([...Object.keys(image.ExposedPorts ?? {}), ...Object.keys(spec.network.ports)])].map(
      withProtocol,
    ),
    health: healthOf(spec.health, image.Healthcheck, spec.process.shell ?? image.Shell),
  };
}

/** `NAME=value` sets, `NAME` alone takes away. PATH is always there; TERM is for terminals. */
function joinEnv(image: readonly string[], own: readonly string[], tty: boolean): string[] {
  const values = new Map<string, string>();
  for (const entry of image) set(values, entry);
  if (!values.has('PATH')) values.set('PATH', DEFAULT_PATH);
  if (tty && !values.has('TERM')) values.set('TERM', 'xterm');
  for (const entry of own) set(values, entry);
  return [...values].map(([name, value]) => `${name}=${value}`);
}

function set(values: Map<string, string>, entry: string): void {
  const at = entry.indexOf('=');
  if (at < 0) values.delete(entry);
  else values.set(entry.slice(0, at), entry.slice(at + 1));
}

/** Each part of the check is inherited on its own; zero means "as the image says", and at last the default. */
function healthOf(
  wish: HealthSpec | undefined,
  image: RunConfig['Healthcheck'],
  shell: string[] | undefined,
): HealthSpec | undefined {
  const test = wish && wish.test.length > 0 ? wish.test : (image?.Test ?? []);
  if (test.length === 0 || test[0] === 'NONE') return undefined;
  return {
    test,
    intervalNs: wish?.intervalNs || image?.Interval || HEALTH_DEFAULTS.intervalNs,
    timeoutNs: wish?.timeoutNs || image?.Timeout || HEALTH_DEFAULTS.timeoutNs,
    startPeriodNs: wish?.startPeriodNs || image?.StartPeriod || HEALTH_DEFAULTS.startPeriodNs,
    startIntervalNs: wish?.startIntervalNs || image?.StartInterval || HEALTH_DEFAULTS.startIntervalNs,
    retries: wish?.retries || image?.Retries || HEALTH_DEFAULTS.retries,
    ...(shell?.length ? { shell } : {}),
  };
}

function withProtocol(port: string): string {
  return port.includes('/') ? port : `${port}/tcp`;
}
