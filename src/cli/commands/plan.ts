import type { Flags, Io } from '#cli/verb.ts';
import type { Call, EngineClient } from '#engine/client/client.ts';

/** Answer of `/estiba/v1/plan/…`. */
interface Foreseen {
  name: string;
  steps: { step: number; part: string; where: string; says: string; because: string }[];
}

export function wantsPlan(flags: Flags): boolean {
  return flags.on('plan') || flags.on('explain');
}

/**
 * `--plan` prints what the daemon would do, a line a step; `--explain` says below each which wish made it:
 *
 *     12 network host    plug est-b2a1 into bridge estiba0
 *                        network bridge
 */
export async function printForeseen(engine: EngineClient, call: Call, flags: Flags, io: Io): Promise<void> {
  const { steps } = await engine.json<Foreseen>({ method: 'POST', ...call });
  const digits = String(steps.length).length;
  for (const { step, part, where, says, because } of steps) {
    const head = `${String(step).padStart(digits)} ${part.padEnd(9)} ${where.padEnd(6)} `;
    io.stdout.write(`${head}${says}\n`);
    if (flags.on('explain')) io.stdout.write(`${' '.repeat(head.length)}because: ${because}\n`);
  }
}
