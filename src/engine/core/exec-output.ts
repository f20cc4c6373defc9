import type { Clock } from '#base/clock.ts';
import type { ExecProcess } from '#engine/core/parts.ts';

export interface ExecOutcome {
  code: number;
  /** Both streams, as much as was asked for. */
  output: string;
  /** It was killed because its time was over. */
  late: boolean;
}

const SIGKILL = 9;

/** Runs a launched program to its end and collects what it says: health checks, probes, hooks. */
export async function execToEnd(
  exec: ExecProcess,
  bounds: { clock: Clock; timeoutMs: number; outputBytes: number },
): Promise<ExecOutcome> {
  let output = '';
  const collect = (chunk: Buffer): void => {
    if (output.length < bounds.outputBytes) output += chunk.toString('utf8');
  };
  exec.streams.stdout.on('data', collect);
  exec.streams.stderr.on('data', collect);
  await exec.start();
  let late = false;
  const cancel = bounds.clock.after(bounds.timeoutMs, () => {
    late = true;
    void exec.signal(SIGKILL).catch(() => undefined); // it has ended meanwhile
  });
  const { code } = await exec.wait();
  cancel();
  // By now all of it lies in the streams. Of a program that had ended before they began to flow nothing has been told yet.
  for (const stream of [exec.streams.stdout, exec.streams.stderr]) while (stream.read() !== null);
  return { code, output, late };
}
