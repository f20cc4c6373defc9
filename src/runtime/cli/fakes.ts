import { systemClock } from '#base/clock.ts';
import { hostFiles } from '#kernel/files.ts';
import type { CliContext } from '#runtime/cli/context.ts';

/** Root calls from this process, with nothing on stdin: for tests of commands, which say in what their context differs. */
export function rootContext(
  different: Partial<CliContext> & Pick<CliContext, 'cwd' | 'stderr' | 'execute'>,
): CliContext {
  return {
    env: {},
    uid: 0,
    gid: 0,
    userName: 'root',
    pid: process.pid,
    clock: systemClock,
    files: hostFiles,
    stdout: () => undefined,
    readStdin: async () => '',
    readFile: async () => '',
    run: async () => ({ code: 0, output: '' }),
    version: { version: 'test', commit: 'test' },
    ...different,
  };
}
