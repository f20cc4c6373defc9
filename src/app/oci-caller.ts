import { userInfo } from 'node:os';
import type { CliContext } from '#runtime/cli/context.ts';

// What `estiba-oci` asks the host on behalf of its caller, alone (`oci.ts`) and behind its planner (`planner-call.ts`).

/** Another program, as the caller would run it, to its end; 127 when it cannot be run, with the reason as its output. */
export function runProgram(
  command: string,
  args: readonly string[],
  caller: Pick<CliContext, 'cwd' | 'env'>,
): Promise<{ code: number; output: string }> {
  // For two commands, and no module that Node.js vouches for in a snapshot: loaded when it is needed.
  const { spawn } = process.getBuiltinModule('node:child_process');
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: caller.cwd, env: caller.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', (error) => resolve({ code: 127, output: error.message }));
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

export function nameOfUser(): string {
  try {
    return userInfo().username;
  } catch {
    return `#${process.geteuid?.() ?? 0}`; // an id without an entry in /etc/passwd
  }
}
