import { defineError } from '#base/errors.ts';
import { COMMANDS, type CommandRow, type FlagRow, GLOBAL_FLAGS } from '#runtime/cli/table.ts';

/** What stands on a command line is wrong; the help of `command` may be shown beside it. */
export const BadUsage = defineError('BAD_USAGE', (d: { message: string; command?: string }) => ({
  message: d.message,
}));

export type FlagValues = Readonly<Record<string, string | true | readonly string[]>>;

export interface CommandLine {
  global: FlagValues;
  /** Absent for `--help` and `--version` alone. */
  command?: CommandRow;
  flags: FlagValues;
  args: readonly string[];
}

/** `argv` without the program. Names and forms as runc takes them: `-x`, `--x`, `--x=value`, `--x value`. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  const first = readFlags(argv, GLOBAL_FLAGS, { stopAtArgument: true });
  const [name, ...rest] = first.args;
  if (name === undefined) return { global: first.flags, flags: {}, args: [] };
  if (name === 'help' || name === 'h') return helpLine(first.flags, rest[0]);
  const command = COMMANDS.find((row) => row.name === name);
  if (!command) throw new BadUsage({ message: `No help topic for '${name}'` });
  const help: FlagRow = { name: 'help', short: 'h', usage: 'show help' };
  const { flags, args } = readFlags(rest, [...command.flags, help], { ...command, command: name });
  return { global: first.flags, command, flags, args };
}

function helpLine(global: FlagValues, name: string | undefined): CommandLine {
  const command = COMMANDS.find((row) => row.name === name);
  if (name !== undefined && !command) throw new BadUsage({ message: `No help topic for '${name}'` });
  return { global: { ...global, help: true }, ...(command ? { command } : {}), flags: { help: true }, args: [] };
}

/** Commands check this before they run; `--help` wins over it. */
export function checkCount(command: CommandRow, args: readonly string[]): void {
  const { count, name } = command;
  const bad = (rule: string): never => {
    throw new BadUsage({ message: `runc: "${name}" requires ${rule}`, command: name });
  };
  if ('exactly' in count && args.length !== count.exactly) bad(`exactly ${count.exactly} argument(s)`);
  if ('atLeast' in count && args.length < count.atLeast) bad(`a minimum of ${count.atLeast} argument(s)`);
  if ('between' in count) {
    const [least, most] = count.between;
    if (args.length < least) bad(`a minimum of ${least} argument(s)`);
    if (args.length > most) bad(`a maximum of ${most} argument(s)`);
  }
}

function readFlags(
  argv: readonly string[],
  rows: readonly FlagRow[],
  options: { stopAtArgument?: boolean; command?: string },
): { flags: FlagValues; args: string[] } {
  const flags: Record<string, string | true | string[]> = {};
  const args: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    const match = /^--?([^=-][^=]*)(?:=([\s\S]*))?$/.exec(word);
    if (word === '--') return { flags, args: [...args, ...argv.slice(i + 1)] };
    if (!match) {
      args.push(word);
      if (options.stopAtArgument) return { flags, args: [...args, ...argv.slice(i + 1)] };
      continue;
    }
    const [, given = '', attached] = match;
    const row = rows.find((r) => r.name === given || r.short === given);
    if (!row) throw usage(`flag provided but not defined: -${given}`, options.command);
    if (!row.value) {
      if (attached !== undefined && !['true', 'false', '1', '0'].includes(attached))
        throw usage(`invalid boolean value ${JSON.stringify(attached)} for -${given}`, options.command);
      if (attached === 'false' || attached === '0') delete flags[row.name];
      else flags[row.name] = true;
      continue;
    }
    const text = attached ?? argv[++i];
    if (text === undefined) throw usage(`flag needs an argument: -${given}`, options.command);
    const before = flags[row.name];
    flags[row.name] = row.many ? [...(Array.isArray(before) ? before : []), text] : text;
  }
  return { flags, args };
}

function usage(message: string, command: string | undefined): Error {
  return new BadUsage({ message, ...(command === undefined ? {} : { command }) });
}

// -- typed access: the table says what a flag is, so these cannot meet another type

export function text(flags: FlagValues, name: string): string | undefined {
  const value = flags[name];
  return typeof value === 'string' ? value : undefined;
}

export function texts(flags: FlagValues, name: string): readonly string[] {
  const value = flags[name];
  return Array.isArray(value) ? value : [];
}

export function isOn(flags: FlagValues, name: string): boolean {
  return flags[name] === true;
}

export function count(flags: FlagValues, name: string): number {
  const value = text(flags, name) ?? '0';
  if (!/^\d{1,4}$/.test(value))
    throw new BadUsage({ message: `invalid value ${JSON.stringify(value)} for flag -${name}: not a number` });
  return Number(value);
}
