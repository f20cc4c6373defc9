import { readFileSync, writeSync } from 'node:fs';
import { nameOfUser, runProgram } from '#app/oci-caller.ts';
import { seccompStore } from '#app/seccomp.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import { hostFiles } from '#kernel/files.ts';
import { type PlanResult, runPlan } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { CliContext, ExecuteOptions } from '#runtime/cli/context.ts';
import { runCommand } from '#runtime/cli/main.ts';

// `bin/estiba-oci` on its own: real clock, real files, this process's streams. Nothing stays resident.

/** What a foreground run hands on to the container; the rest ends us, and the container is taken away. */
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGTSTP'] as const;

const seccomp = seccompStore(process.geteuid?.() ?? 0, process.env);

const context: CliContext = {
  cwd: process.cwd(),
  env: process.env,
  uid: process.geteuid?.() ?? 0,
  gid: process.getegid?.() ?? 0,
  get userName() {
    return nameOfUser();
  },
  pid: process.pid,
  clock: systemClock,
  files: hostFiles,
  stdout: (text) => writeAll(1, text),
  stderr: (text) => writeAll(2, text),
  readStdin: async () => readFileSync(0, 'utf8'),
  readFile: async (path) => readFileSync(path, 'utf8'),
  execute,
  run: (command, args) => runProgram(command, args, context),
  ...(seccomp ? { seccomp } : {}),
  version: VERSION,
};

runCommand(process.argv.slice(2), context).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    writeAll(2, `estiba-oci: ${describeChain(error)}\n`);
    process.exitCode = 1;
  },
);

async function execute(plan: Plan, options: ExecuteOptions = {}): Promise<PlanResult> {
  let stop = (): void => undefined;
  try {
    return await runPlan(plan, {
      preserveFds: options.preserveFds ?? 0,
      onReady: (pid) => {
        if (options.foreground) stop = forwardSignals(pid);
        options.onReady?.(pid);
      },
    });
  } finally {
    stop();
  }
}

function forwardSignals(pid: number): () => void {
  const listeners = FORWARDED.map((signal) => {
    const forward = (): void => {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if (errnoOf(error) !== 'ESRCH') throw error; // it has just ended
      }
    };
    process.on(signal, forward);
    return () => process.off(signal, forward);
  });
  return () => {
    for (const off of listeners) off();
  };
}

/** Synchronous: the answer is out before the exit, also into a pipe that is read slowly. */
function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') return; // EPIPE: nobody listens any more, which is theirs to decide
    }
  }
}
