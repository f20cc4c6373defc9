import { parseDurationNs } from '#base/units.ts';
import { CliUsage } from '#cli/errors.ts';
import { type Flag, Flags, type Verb } from '#cli/verb.ts';

export interface Parsed {
  flags: Flags;
  args: string[];
  help: boolean;
}

export const HELP: Flag = { name: 'help', type: 'bool', summary: 'Print this' };

/** Reads words by a verb's row, as Docker's CLI does: `-it`, `-p80:80`, `--name=x`, `--rm=false`, `--`. */
export function parseArgs(
  verb: Pick<Verb, 'name' | 'flags' | 'stopAtArgument' | 'args' | 'usage'>,
  words: readonly string[],
): Parsed {
  const values = new Map<string, string[]>();
  const args: string[] = [];
  const set = (flag: Flag, value: string, written: string): void => {
    checkValue(verb.name, flag, value, written);
    const normal = flag.type === 'bool' ? String(isTrue(value)) : value;
    values.set(flag.name, flag.type === 'list' ? [...(values.get(flag.name) ?? []), normal] : [normal]);
  };
  const queue = [...words];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    const next = (written: string): string => queue.shift() ?? usage(verb.name, `flag needs an argument: ${written}`);
    if (word === '--') {
      args.push(...queue.splice(0));
    } else if (word.startsWith('--')) {
      const [name = '', value] = word.slice(2).split(/=(.*)/s);
      const flag = longFlag(verb, name);
      if (flag.type === 'bool') set(flag, value ?? 'true', `--${name}`);
      else set(flag, value ?? next(`--${name}`), `--${name}`);
    } else if (word.startsWith('-') && word !== '-') {
      readShort(verb, word.slice(1), set, next);
    } else {
      args.push(word);
      if (verb.stopAtArgument) args.push(...queue.splice(0));
    }
  }
  const help = values.has('help');
  if (!help) checkCount(verb, args);
  return { flags: new Flags(values), args, help };
}

/** `-it`, `-p80:80`, `-p 80:80`, `-n=5`. */
function readShort(
  verb: Pick<Verb, 'name' | 'flags'>,
  letters: string,
  set: (flag: Flag, value: string, written: string) => void,
  next: (written: string) => string,
): void {
  for (let rest = letters; rest !== ''; ) {
    const letter = rest[0] ?? '';
    rest = rest.slice(1);
    const flag =
      letter === 'h' && !verb.flags.some((f) => f.short === 'h') ? HELP : verb.flags.find((f) => f.short === letter);
    if (!flag) usage(verb.name, `unknown shorthand flag: '${letter}' in -${letters}`);
    if (flag.type !== 'bool') {
      set(flag, rest === '' ? next(`-${letter}`) : rest.replace(/^=/, ''), `-${letter}`);
      return;
    }
    if (rest.startsWith('=')) {
      set(flag, rest.slice(1), `-${letter}`);
      return;
    }
    set(flag, 'true', `-${letter}`);
  }
}

function longFlag(verb: Pick<Verb, 'name' | 'flags'>, name: string): Flag {
  if (name === 'help') return HELP;
  const flag = verb.flags.find((f) => f.name === name);
  if (flag) return flag;
  const near = nearest(
    name,
    verb.flags.map((f) => f.name),
  );
  return usage(verb.name, `unknown flag: --${name}${near === undefined ? '' : `; did you mean --${near}?`}`);
}

function checkValue(verb: string, flag: Flag, value: string, written: string): void {
  const no = (rule: string): never => usage(verb, `invalid argument ${JSON.stringify(value)} for ${written}: ${rule}`);
  if (flag.type === 'bool' && !/^(1|t|true|0|f|false)$/i.test(value)) no('must be true or false');
  if (flag.type === 'int' && !/^-?\d{1,15}$/.test(value)) no('must be an integer');
  if (flag.type === 'duration' && parseDurationNs(value) === undefined) no('must be a duration such as 1m30s');
  if (flag.values && !flag.values.includes(value)) no(`must be one of ${flag.values.join(', ')}`);
}

function isTrue(text: string): boolean {
  return /^(1|t|true)$/i.test(text);
}

function checkCount({ name, args: { min, max } }: Pick<Verb, 'name' | 'args'>, given: readonly string[]): void {
  if (given.length >= min && given.length <= max) return;
  const wanted = min === max ? `exactly ${min}` : given.length < min ? `at least ${min}` : `at most ${max}`;
  usage(
    name,
    max === 0
      ? `'estiba ${name}' accepts no arguments`
      : `'estiba ${name}' requires ${wanted} argument${(given.length < min ? min : max) === 1 ? '' : 's'}`,
  );
}

function usage(verb: string, why: string): never {
  throw new CliUsage({ why, see: verb === '' ? 'estiba' : `estiba ${verb}` });
}

/** The known name that takes the fewest letters to become `word`; undefined when none is near. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const ranked = known.map((name) => ({ name, away: distance(word, name) })).sort((a, b) => a.away - b.away);
  const [best] = ranked;
  return best && best.away <= Math.max(1, Math.floor(word.length / 3)) ? best.name : undefined;
}

/** Letters added, removed, changed, or two neighbours swapped (optimal string alignment). */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, i) => i)];
  const at = (i: number, j: number): number => rows[i]?.[j] ?? 0;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const changed = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : changed;
      row.push(Math.min((row[j - 1] ?? 0) + 1, at(i - 1, j) + 1, changed, swapped));
    }
  }
  return at(a.length, b.length);
}
