import { parseArgs } from 'node:util';
import type { World } from '#cli/build.ts';
import { addressOf, DaemonConnection } from '#engine/client/connection.ts';
import { BUILD_API, type FailedStepLine } from '#spec/estiba/build.ts';

export const DEBUG_BUILD_HELP = `estiba debug-build [--list] [STEP]

Makes an image of the file system that the last build step to fail left (or STEP, of those that --list shows), with the step's
variables, user and directory, and prints the command that opens a shell in it. Roots of the last two are kept for a day.

  -H, --host ADDRESS   --run-root R
`;

/** Answers the exit code. */
export async function debugBuildCommand(args: string[], world: World): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      list: { type: 'boolean' },
      host: { type: 'string', short: 'H' },
      'run-root': { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    world.stdout.write(DEBUG_BUILD_HELP);
    return 0;
  }
  const daemon = new DaemonConnection(addressOf({ host: values.host, runRoot: values['run-root'], env: world.env }));
  if (values.list) {
    const failed = (await daemon.json(`${BUILD_API}/failed`)) as FailedStepLine[];
    for (const { id, code, title } of failed) world.stdout.write(`${id}  ended with ${code}  ${title}\n`);
    return 0;
  }
  const path = `${BUILD_API}/failed/${positionals[0] ?? 'last'}/image`;
  const { Id } = (await daemon.json(path, { method: 'POST' })) as { Id: string };
  world.stdout.write(`docker run --rm -it ${Id.slice(7, 19)} /bin/sh\n`);
  return 0;
}
