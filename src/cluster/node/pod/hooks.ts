import { sleep } from '#base/clock.ts';
import { type Live, PODS } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { runAction } from '#cluster/node/probe/run.ts';
import type { ProbeOutcome } from '#cluster/node/probe/watch.ts';
import { execToEnd } from '#engine/core/exec-output.ts';
import type { Container, LifecycleHandler, Pod, Probe } from '#spec/kubernetes/types.gen.ts';

const OUTPUT_BYTES = 10 * 1024;

/** Whatever the API lets one ask a running container: by a program in it, by HTTP, TCP or gRPC from the node. */
export function askContainer(
  deps: AgentDeps,
  target: { id: string; container: Container; ip: string; name: string },
  action: Pick<Probe, 'exec' | 'httpGet' | 'tcpSocket' | 'grpc'>,
  timeoutMs: number,
): Promise<ProbeOutcome> {
  const { engine, clock } = deps;
  const exec = async (argv: readonly string[], limitMs: number) =>
    execToEnd(
      await engine.containers.execs.launch(target.id, target.name, {
        argv: [...argv],
        env: [],
        tty: false,
        privileged: false,
        attach: { stdin: false, stdout: true, stderr: true },
      }),
      { clock, timeoutMs: limitMs, outputBytes: OUTPUT_BYTES },
    );
  return runAction(action, { container: target.container, ip: target.ip, exec }, timeoutMs);
}

/** postStart or preStop; a failure is told as an event and answered. */
export async function runHook(
  deps: AgentDeps,
  pod: Live<Pod>,
  target: { id: string; container: Container; ip: string },
  kind: 'postStart' | 'preStop',
  timeoutMs: number,
): Promise<ProbeOutcome> {
  const handler: LifecycleHandler | undefined = target.container.lifecycle?.[kind];
  if (!handler) return { ok: true, output: '' };
  if (handler.sleep) {
    await sleep(deps.clock, Math.min(handler.sleep.seconds * 1000, timeoutMs));
    return { ok: true, output: '' };
  }
  const outcome = await askContainer(deps, { ...target, name: kind }, handler, timeoutMs);
  if (outcome.ok) return outcome;
  const reason = kind === 'postStart' ? 'FailedPostStartHook' : 'FailedPreStopHook';
  deps.events.record(PODS, pod, {
    type: 'Warning',
    reason,
    message: `${kind === 'postStart' ? 'PostStartHook' : 'PreStopHook'} failed: ${outcome.output}`,
  });
  return outcome;
}
