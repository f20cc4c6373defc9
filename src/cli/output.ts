import { compileTemplate } from '#cli/template/evaluate.ts';
import type { Flags, Io } from '#cli/verb.ts';

/** A column of a list: its name in templates, its head in the table. */
export interface Column<T> {
  name: string;
  head: string;
  value: (row: T) => unknown;
}

export interface ListLayout<T> {
  columns: readonly Column<T>[];
  /** Names of the columns shown when nobody asks for others. */
  shown: readonly string[];
  /** `-q`. */
  quiet: (row: T) => string;
}

/** `--format` as docker reads it: `table`, `table TEMPLATE`, `json`, TEMPLATE; `-q` prints names alone. */
export function printList<T>(io: Io, flags: Flags, rows: readonly T[], layout: ListLayout<T>): void {
  const format = flags.text('format') ?? (flags.has('json') && flags.on('json') ? 'json' : 'table');
  if (flags.on('quiet') && (format === 'table' || !flags.has('format'))) {
    for (const row of rows) io.stdout.write(`${layout.quiet(row)}\n`);
    return;
  }
  const fieldsOf = (row: T): Record<string, unknown> =>
    Object.fromEntries(layout.columns.map(({ name, value }) => [name, value(row)]));
  if (format === 'json') {
    const plain = (row: T): object =>
      Object.fromEntries(Object.entries(fieldsOf(row)).filter(([, v]) => typeof v !== 'function'));
    for (const row of rows) io.stdout.write(`${JSON.stringify(plain(row))}\n`);
    return;
  }
  const isTable = /^table(\s|$)/.test(format);
  const template = isTable ? format.replace(/^table\s*/, '') : format;
  if (!isTable) {
    const print = compileTemplate(unescape(template));
    for (const row of rows) io.stdout.write(`${print(fieldsOf(row))}\n`);
    return;
  }
  const wanted = template === '' ? layout.shown.map((n) => `{{.${n}}}`).join('\\t') : template;
  const print = compileTemplate(unescape(wanted));
  const heads = Object.fromEntries(
    layout.columns.map(({ name, head }) => [name, isMethod(name) ? (label: string) => label : head]),
  );
  io.stdout.write(alignColumns([print(heads), ...rows.map((row) => print(fieldsOf(row)))]));
}

/** `.Label "x"`: its head is the label's name. */
function isMethod(name: string): boolean {
  return name === 'Label';
}

/** Shells hand `\t` on as two letters. */
function unescape(template: string): string {
  return template.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
}

// As docker sets its tables: three blanks between columns, none narrower than ten.
const PADDING = 3;
const MIN_WIDTH = 10;

/** Cells between tabs, in columns of equal width; the last is as long as it is. */
export function alignColumns(lines: readonly string[], minWidth = MIN_WIDTH): string {
  const rows = lines.map((line) => line.split('\t'));
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? minWidth, cell.length + PADDING);
  const print = (row: string[]): string =>
    row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join('');
  return rows.map((row) => `${print(row)}\n`).join('');
}

/** `inspect`: a list in JSON, or one line of a template each. */
export function printInspected(io: Io, flags: Flags, objects: readonly unknown[]): void {
  const format = flags.text('format');
  if (format === undefined || format === '') {
    io.stdout.write(`${JSON.stringify(objects, null, 4)}\n`);
    return;
  }
  const print = format === 'json' ? (o: unknown) => JSON.stringify(o) : compileTemplate(unescape(format));
  for (const object of objects) io.stdout.write(`${print(object)}\n`);
}

/** `2 hours ago`, in docker's words. */
export function ago(ms: number): string {
  return `${span(ms)} ago`;
}

export function span(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 1) return 'Less than a second';
  if (s === 1) return '1 second';
  if (s < 60) return `${s} seconds`;
  const m = Math.floor(s / 60);
  if (m === 1) return 'About a minute';
  if (m < 60) return `${m} minutes`;
  const h = Math.round(s / 3600);
  if (h === 1) return 'About an hour';
  if (h < 48) return `${h} hours`;
  if (h < 24 * 14) return `${Math.floor(h / 24)} days`;
  if (h < 24 * 60) return `${Math.floor(h / 24 / 7)} weeks`;
  if (h < 24 * 365 * 2) return `${Math.floor(h / 24 / 30)} months`;
  return `${Math.floor(h / 24 / 365)} years`;
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `1.2MB`, powers of 1000, four digits at most. */
export function bytes(count: number, precision = 4): string {
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${Number(value.toPrecision(Math.max(precision, 1)))}${UNITS[unit]}`;
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1.195GiB`, powers of 1024. */
export function binaryBytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < BINARY.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${Number(value.toPrecision(4))}${BINARY[unit]}`;
}

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}
