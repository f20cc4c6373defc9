import { appendFileSync } from 'node:fs';
import { posix } from 'node:path';
import { describeChain, EstibaError, isCode, messageOf } from '#base/errors.ts';
import type { CliContext, Command, Outcome } from '#runtime/cli/context.ts';
import { type CommandLine, checkCount, type FlagValues, isOn, parseCommandLine, text } from '#runtime/cli/flags.ts';
import { commandHelp, globalHelp, versionText } from '#runtime/cli/help.ts';
import { type CliLog, cliLog } from '#runtime/cli/log.ts';
import { COMMANDS } from '#runtime/cli/table.ts';
import { Unsupported } from '#runtime/errors.ts';
import { readHost } from '#runtime/host-linux.ts';

type Run = (c: Command) => Promise<Outcome>;

// Loaded when called: `state` should not pay for what `create` needs.
const RUNS: Readonly<Record<string, () => Promise<Run>>> = {
  checkpoint: async () => (await import('#runtime/cli/commands/checkpoint.ts')).checkpoint,
  create: async () => (await import('#runtime/cli/commands/create.ts')).create,
  delete: async () => (await import('#runtime/cli/commands/delete.ts')).remove,
  events: async () => (await import('#runtime/cli/commands/events.ts')).events,
  exec: async () => (await import('#runtime/cli/commands/exec.ts')).exec,
  features: async () => (await import('#runtime/cli/commands/show.ts')).features,
  kill: async () => (await import('#runtime/cli/commands/kill.ts')).kill,
  list: async () => (await import('#runtime/cli/commands/show.ts')).list,
  pause: async () => (await import('#runtime/cli/commands/pause.ts')).pause,
  ps: async () => (await import('#runtime/cli/commands/show.ts')).ps,
  restore: async () => (await import('#runtime/cli/commands/checkpoint.ts')).restore,
  resume: async () => (await import('#runtime/cli/commands/pause.ts')).resume,
  run: async () => (await import('#runtime/cli/commands/create.ts')).run,
  spec: async () => (await import('#runtime/cli/commands/spec.ts')).spec,
  start: async () => (await import('#runtime/cli/commands/start.ts')).start,
  state: async () => (await import('#runtime/cli/commands/show.ts')).state,
  update: async () => (await import('#runtime/cli/commands/update.ts')).update,
};

const FAILED = 1;
const EXEC_FAILED = 255;

/** `estiba-oci ARGV…`: runc's command line. Everything it touches comes in by `context`; the exit code goes out. */
export async function runCommand(argv: readonly string[], context: CliContext): Promise<Outcome> {
  let line: CommandLine;
  try {
    line = parseCommandLine(argv);
  } catch (error) {
    return fail(error, context, logFor({}, context), {});
  }
  const { global, command, flags, args } = line;
  if (isOn(global, 'version')) return printed(context, versionText(context.version));
  if (command && isOn(flags, 'help')) return printed(context, commandHelp(command));
  if (!command || isOn(global, 'help')) return printed(context, globalHelp());
  let log = logFor({}, context);
  try {
    log = logFor(global, context);
    checkCount(command, args);
    const run = await RUNS[command.name]?.();
    return (await run?.(commandOf(line, context, log))) ?? FAILED;
  } catch (error) {
    return fail(error, context, log, global, command.name);
  }
}

function commandOf({ global, flags, args }: CommandLine, context: CliContext, log: CliLog): Command {
  if (isOn(global, 'systemd-cgroup'))
    throw new Unsupported({
      path: '--systemd-cgroup',
      what: 'systemd is not running here or not supported: cgroups are made by Estiba itself',
      hint: 'leave the flag out; with Podman: --cgroup-manager cgroupfs, with dockerd: native.cgroupdriver=cgroupfs',
    });
  const printing = isOn(global, 'plan') || isOn(global, 'explain');
  return {
    ...context,
    root: posix.resolve(context.cwd, text(global, 'root') ?? defaultRoot(context)),
    rootless: isRootless(global, context),
    plan: printing ? (isOn(global, 'json') ? 'json' : 'text') : 'run',
    criu: text(global, 'criu') ?? 'criu',
    debug: isOn(global, 'debug'),
    log,
    flags,
    args,
    host: () => readHost({ uid: context.uid, gid: context.gid }, context.files),
  };
}

/** Root of a user namespace may not write to /run either; by `USER=root` a caller says that it is the host's, as runc reads it. */
function defaultRoot({ uid, gid, env, files }: CliContext): string {
  const runtimeDir = env['XDG_RUNTIME_DIR'];
  if (!runtimeDir) return '/run/estiba-oci';
  const isOrdinary = uid !== 0 || (env['USER'] !== 'root' && readHost({ uid, gid }, files).rootless);
  return isOrdinary ? posix.join(runtimeDir, 'estiba-oci') : '/run/estiba-oci';
}

function isRootless(global: FlagValues, context: CliContext): boolean {
  const wish = text(global, 'rootless') ?? 'auto';
  if (wish === 'true' || wish === 'false') return wish === 'true';
  if (wish !== 'auto') throw new Unsupported({ path: '--rootless', what: `${wish} is none of true, false, auto` });
  return readHost({ uid: context.uid, gid: context.gid }, context.files).rootless;
}

function logFor(global: FlagValues, context: CliContext): CliLog {
  const file = text(global, 'log');
  const format = text(global, 'log-format') ?? 'text';
  if (format !== 'text' && format !== 'json')
    throw new Unsupported({ path: '--log-format', what: `invalid log-format: ${format}` });
  const path = file === undefined || file === '' ? undefined : posix.resolve(context.cwd, file);
  return cliLog({
    debug: isOn(global, 'debug'),
    format,
    now: () => context.clock.now(),
    write: (line) => (path === undefined ? context.stderr(line) : appendFileSync(path, line, { mode: 0o644 })),
  });
}

function printed(context: CliContext, text: string): Outcome {
  context.stdout(text);
  return 0;
}

/** The log gets the error; with a log file stderr gets it too, in plain words, as containerd expects. */
function fail(error: unknown, context: CliContext, log: CliLog, global: FlagValues, command?: string): Outcome {
  if (isCode(error, 'BAD_USAGE') && command !== undefined) {
    const row = COMMANDS.find((r) => r.name === command);
    if (row) context.stdout(`Incorrect Usage.\n\n${commandHelp(row)}`);
  }
  const message = sentence(error);
  log.error(message);
  if (text(global, 'log')) context.stderr(`${message}\n`);
  return command === 'exec' ? EXEC_FAILED : FAILED;
}

function sentence(error: unknown): string {
  if (!(error instanceof EstibaError)) return describeChain(error);
  const invalid = isCode(error, 'INVALID_VALUE', 'BAD_MOUNT_OPTION', 'CGROUP_WISH_UNMET', 'BAD_SECCOMP_PROFILE');
  const hint = error.hint === undefined ? '' : ` (${error.hint})`;
  return `${invalid ? 'invalid configuration: ' : ''}${messageOf(error)}${hint}`;
}
