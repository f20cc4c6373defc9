import { createInterface } from 'node:readline/promises';
import type { Flags, Io } from '#cli/verb.ts';

/** `-f`, or a y at the terminal. Without either nothing is removed. */
export async function confirmed(flags: Flags, io: Io, warning: string): Promise<boolean> {
  if (flags.on('force')) return true;
  const lines = createInterface({ input: io.stdin, output: io.stderr });
  try {
    const answer = await lines.question(`${warning}\nAre you sure you want to continue? [y/N] `);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}
