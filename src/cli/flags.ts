import type { ArgumentKind, Flag, FlagType } from '#cli/verb.ts';

/** `d detach` or `detach`: the name, with its letter before it. */
function flag(type: FlagType, names: string, summary: string, more: Partial<Flag> = {}): Flag {
  const [first = '', second] = names.split(' ');
  return { name: second ?? first, ...(second === undefined ? {} : { short: first }), type, summary, ...more };
}

export const bool = (names: string, summary: string): Flag => flag('bool', names, summary);
export const text = (names: string, summary: string, more: Partial<Flag> = {}): Flag =>
  flag('text', names, summary, more);
export const int = (names: string, summary: string, more: Partial<Flag> = {}): Flag =>
  flag('int', names, summary, more);
export const list = (names: string, summary: string, more: Partial<Flag> = {}): Flag =>
  flag('list', names, summary, more);
export const duration = (names: string, summary: string, more: Partial<Flag> = {}): Flag =>
  flag('duration', names, summary, more);

export const FORMAT = text('format', 'Go template, "table TEMPLATE" or json');
export const JSON_FLAG = bool('json', 'One JSON object a line');
export const QUIET = bool('q quiet', 'Names or ids alone');
export const NO_TRUNC = bool('no-trunc', 'Do not shorten');
export const FILTER = list('f filter', 'Only those that match', { value: 'KEY=VALUE' });

export function args(min: number, max: number, kind: ArgumentKind): { min: number; max: number; kind: ArgumentKind } {
  return { min, max, kind };
}
export const MANY = Number.POSITIVE_INFINITY;
/** Where `-f` means force. */
export const FILTER_ALONE = list('filter', 'Only those that match', { value: 'KEY=VALUE' });
export const FORCE = bool('f force', 'Do not ask');

/** What would be done, with nothing done. */
export const PLAN_FLAGS = [
  bool('plan', 'Print what would be done, and do nothing'),
  bool('explain', 'The same, and why: which wish made each step'),
];

export const NO_ARGUMENTS = args(0, 0, 'none');
/** What prints one thing in full takes a template or `json`, and no table. */
export const INSPECT_FORMAT = text('f format', 'Go template, or json');
