import type { Command, Outcome } from '#runtime/cli/context.ts';
import { CommandFailed } from '#runtime/cli/plans.ts';
import { loadContainer } from '#runtime/store.ts';

/** Both commands want a CRIU that works on this kernel; its own check says so. */
async function refuse(c: Command, command: string): Promise<never> {
  const check = await c.run(c.criu, ['check']);
  const why =
    check.code === 0 ? 'this build carries out no CRIU images' : lastLine(check.output) || `${c.criu} check fails`;
  throw new CommandFailed({ message: `${command}: criu cannot be used here: ${why}` });
}

export async function checkpoint(c: Command): Promise<Outcome> {
  loadContainer(c.root, c.args[0] ?? '', c.files);
  return await refuse(c, 'checkpoint');
}

export async function restore(c: Command): Promise<Outcome> {
  return await refuse(c, 'restore');
}

function lastLine(output: string): string {
  return output.trim().split('\n').at(-1) ?? '';
}
