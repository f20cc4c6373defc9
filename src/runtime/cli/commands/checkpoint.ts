import { posix } from 'node:path';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { text } from '#runtime/cli/flags.ts';
import { CommandFailed, wrongState } from '#runtime/cli/plans.ts';
import { loadContainer } from '#runtime/store.ts';

/** Both commands want a CRIU that works on this kernel; its own check says so. */
async function refuse(c: Command, command: string): Promise<never> {
  const check = await c.run(c.criu, ['check']);
  const why =
    check.code === 0 ? 'this build carries out no CRIU images' : lastLine(check.output) || `${c.criu} check fails`;
  throw new CommandFailed({ message: `${command}: criu cannot be used here: ${why}` });
}

export async function checkpoint(c: Command): Promise<Outcome> {
  const { status, record } = loadContainer(c.root, c.args[0] ?? '', c.files);
  if (status !== 'running' && status !== 'paused')
    throw wrongState(record.id, `container cannot be checkpointed in ${status} state`);
  checkParentPath(c);
  return await refuse(c, 'checkpoint');
}

export async function restore(c: Command): Promise<Outcome> {
  return await refuse(c, 'restore');
}

/** criu takes the images of the dump before by a path from the new ones, so that both can be moved together. */
function checkParentPath(c: Command): void {
  const parent = text(c.flags, 'parent-path');
  if (parent === undefined) return;
  const images = posix.resolve(c.cwd, text(c.flags, 'image-path') ?? 'checkpoint');
  if (posix.isAbsolute(parent)) throw new CommandFailed({ message: '--parent-path must be relative' });
  if (!c.files.exists(posix.join(images, parent)))
    throw new CommandFailed({
      message: `invalid --parent-path: ${posix.join(images, parent)}: no such file or directory`,
    });
}

function lastLine(output: string): string {
  return output.trim().split('\n').at(-1) ?? '';
}
