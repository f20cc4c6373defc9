import type { Healthcheck } from '#spec/dockerfile/instructions.ts';

/**
 * The `config` object of an image (OCI image-spec, "Image Configuration", with Docker's Healthcheck, OnBuild and Shell), as
 * the instructions of a stage change it. Keys are absent when nothing set them.
 */
export interface ImageSettings {
  User?: string;
  ExposedPorts?: Record<string, object>;
  Env?: string[];
  Entrypoint?: string[];
  Cmd?: string[];
  Volumes?: Record<string, object>;
  WorkingDir?: string;
  Labels?: Record<string, string>;
  StopSignal?: string;
  Healthcheck?: HealthcheckSetting;
  OnBuild?: string[];
  Shell?: string[];
}

/** Durations in nanoseconds, as Docker writes them. */
export interface HealthcheckSetting {
  Test?: string[];
  Interval?: number;
  Timeout?: number;
  StartPeriod?: number;
  StartInterval?: number;
  Retries?: number;
}

export const DEFAULT_SHELL: readonly string[] = ['/bin/sh', '-c'];
export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A copy with `name` set; a name keeps its place, a new one comes last. */
export function withEnv(env: readonly string[], name: string, value: string): string[] {
  const at = env.findIndex((entry) => entry.startsWith(`${name}=`));
  return at < 0 ? [...env, `${name}=${value}`] : env.map((entry, i) => (i === at ? `${name}=${value}` : entry));
}

/** Later entries win, as in a process's environment. */
export function envMap(env: readonly string[]): Map<string, string> {
  return new Map(env.map((entry) => splitEnv(entry)));
}

export function splitEnv(entry: string): [string, string] {
  const at = entry.indexOf('=');
  return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)];
}

export function healthcheckSetting(check: Healthcheck): HealthcheckSetting {
  return {
    Test: check.test,
    ...(check.intervalNs ? { Interval: check.intervalNs } : {}),
    ...(check.timeoutNs ? { Timeout: check.timeoutNs } : {}),
    ...(check.startPeriodNs ? { StartPeriod: check.startPeriodNs } : {}),
    ...(check.startIntervalNs ? { StartInterval: check.startIntervalNs } : {}),
    ...(check.retries ? { Retries: check.retries } : {}),
  };
}

const PORT = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i;
const MAX_RANGE = 65_535;

/** `80`, `8000-8010/udp` → `80/tcp`, `8000/udp` … `8010/udp`; undefined when it is no port. */
export function exposedPorts(text: string): string[] | undefined {
  const match = PORT.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? first);
  if (!match || first < 1 || last > MAX_RANGE || last < first) return undefined;
  const protocol = (match[3] ?? 'tcp').toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`);
}
