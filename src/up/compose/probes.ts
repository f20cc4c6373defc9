import type { ComposeService } from '#spec/compose/model.ts';
import type { Probe } from '#spec/kubernetes/types.gen.ts';
import { literal, refuseAttribute, seconds } from '#up/compose/context.ts';
import { compact } from '#up/objects.ts';

// Compose file specification, "healthcheck"; Docker's defaults.
const INTERVAL_MS = 30_000;
const TIMEOUT_MS = 30_000;
const START_INTERVAL_MS = 5_000;
const RETRIES = 3;

export interface Probes {
  startupProbe: Probe;
  readinessProbe: Probe;
  livenessProbe: Probe;
}

/**
 * One test, three probes. While it starts, failures within the start period count for nothing, and the first success ends that
 * time: the startup probe. Then the readiness probe decides whether others are sent here, and the liveness probe restarts what
 * stays unhealthy, which Docker leaves to nobody.
 */
export function probesOf(service: ComposeService): Probes | undefined {
  const check = service.healthcheck;
  if (!check || check.disabled) return undefined;
  const [how, ...words] = check.test ?? [];
  if (how === undefined)
    return refuseAttribute(
      service,
      'healthcheck',
      "has no test: Kubernetes does not know the image's own; write it here",
    );
  if (words.length === 0) return refuseAttribute(service, 'healthcheck', 'test has no command');
  const command = how === 'CMD-SHELL' ? ['/bin/sh', '-c', words.join(' ')] : words;
  const { intervalMs = INTERVAL_MS, timeoutMs = TIMEOUT_MS, startPeriodMs = 0, retries = RETRIES } = check;
  // Without a start period Docker knows no start interval either.
  const startEveryMs =
    startPeriodMs > 0 ? Math.min(check.startIntervalMs ?? START_INTERVAL_MS, intervalMs) : intervalMs;
  const probe = (everyMs: number, failures: number): Probe =>
    compact<Probe>({
      exec: { command: command.map(literal) },
      periodSeconds: seconds(everyMs),
      timeoutSeconds: seconds(timeoutMs),
      failureThreshold: Math.max(1, failures),
    });
  return {
    startupProbe: probe(startEveryMs, Math.ceil(startPeriodMs / startEveryMs) + retries),
    readinessProbe: probe(intervalMs, retries),
    livenessProbe: probe(intervalMs, retries),
  };
}
