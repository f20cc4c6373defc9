import { parseArgs } from 'node:util';
import { messageOf } from '#base/errors.ts';
import type { World } from '#cli/build.ts';
import { addressOf, DaemonConnection } from '#engine/client/connection.ts';
import { BUILD_API, type FailedStepImage, type FailedStepLine } from '#spec/estiba/build.ts';

export const DEBUG_BUILD_HELP = `estiba debug-build [--list | --print] [STEP] [-- COMMAND...]

Opens a shell (or runs COMMAND) in the file system that the last build step to fail left (or STEP, of those that --list shows), with the
step's variables, user and directory, in a sandbox as the step had. Its mounts and secrets are not there. What is changed in it is thrown
away. Roots of the last two that failed are kept for a day.

  --list                 show the steps that are kept
  --print                make an image of it and print its id; it stays
  -H, --host ADDRESS   --run-root R
`;

/** Runs a verb of the same command line at the same daemon; answers its exit code. */
export type RunVerb = (words: string[]) => Promise<number>;

/** Answers the exit code. */
export async function debugBuildCommand(args: string[], world: World, runVerb: RunVerb): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      list: { type: 'boolean' },
      print: { type: 'boolean' },
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
  const split = args.indexOf('--');
  const command = split < 0 ? ['/bin/sh'] : args.slice(split + 1);
  const [step = 'last'] = positionals.slice(0, positionals.length - (split < 0 ? 0 : command.length));
  const path = `${BUILD_API}/failed/${step}/image`;
  const { Id, Network } = (await daemon.json(path, { method: 'POST' })) as FailedStepImage;
  if (values.print) {
    world.stdout.write(`${Id}\n`);
    return 0;
  }
  const at = [...given('--host', values.host), ...given('--run-root', values['run-root'])];
  const terminal = world.stdin.isTTY === true ? ['--tty'] : [];
  try {
    return await runVerb([...at, 'run', '--rm', '--interactive', ...terminal, '--network', Network, Id, ...command]);
  } finally {
    await daemon.json(`/images/${Id}?noprune=1`, { method: 'DELETE' }).catch((error: unknown) => {
      world.stderr.write(`the image ${Id.slice(7, 19)} of the step could not be removed: ${messageOf(error)}\n`);
    });
  }
}

function given(flag: string, value: string | undefined): string[] {
  return value === undefined ? [] : [flag, value];
}
