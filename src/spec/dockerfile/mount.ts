import { parseSizeBytes } from '#base/units.ts';
import type { FlagProblem } from '#spec/dockerfile/flags.ts';
import { nearest } from '#spec/dockerfile/syntax.ts';

/** `RUN --mount=…` (Dockerfile reference). Paths are as written; `target` is made absolute when the step is planned. */
export type RunMount =
  | { type: 'bind'; from?: string; source: string; target: string; readonly: boolean }
  | {
      type: 'cache';
      id?: string;
      from?: string;
      source: string;
      target: string;
      readonly: boolean;
      sharing: Sharing;
      owner: Owner;
    }
  | { type: 'tmpfs'; target: string; sizeBytes?: number }
  | { type: 'secret'; id: string; target?: string; env?: string; required: boolean; owner: Owner }
  | { type: 'ssh'; id: string; target?: string; required: boolean; owner: Owner };

export type Sharing = 'shared' | 'private' | 'locked';

export interface Owner {
  uid?: number;
  gid?: number;
  mode?: number;
}

type Type = RunMount['type'];
const ALIASES: Record<string, string> = {
  src: 'source',
  dst: 'target',
  destination: 'target',
  ro: 'readonly',
  rw: 'readwrite',
};
const KEYS: Record<Type, readonly string[]> = {
  bind: ['from', 'source', 'target', 'readonly', 'readwrite'],
  cache: ['id', 'from', 'source', 'target', 'readonly', 'readwrite', 'sharing', 'mode', 'uid', 'gid'],
  tmpfs: ['target', 'size', 'readwrite'],
  secret: ['id', 'source', 'target', 'env', 'required', 'mode', 'uid', 'gid'],
  ssh: ['id', 'target', 'required', 'mode', 'uid', 'gid'],
};
const MAY_STAND_ALONE = new Set(['readonly', 'readwrite', 'required']);

/** `text` after variable expansion, without `--mount=`. */
export function parseMount(text: string, fail: FlagProblem): RunMount {
  const fields = readFields(text, fail);
  const type = mountType(fields.get('type') ?? 'bind', fail);
  for (const key of fields.keys()) {
    if (key !== 'type' && !KEYS[type].includes(key))
      fail(`a ${type} mount has no ${key}`, `it takes ${KEYS[type].join(', ')}`);
  }
  const get = (key: string): string | undefined => fields.get(key);
  const need = (key: string): string =>
    get(key) || fail(`the ${type} mount has no ${key}`, `write --mount=type=${type},${key}=…`);
  const flag = (key: string, absent: boolean): boolean => boolean(key, get(key), absent, fail);
  const number = (key: string, base: 8 | 10): number | undefined => whole(key, get(key), base, fail);
  const owner = (): Owner => ({
    ...some('uid', number('uid', 10)),
    ...some('gid', number('gid', 10)),
    ...some('mode', number('mode', 8)),
  });
  const readonly = (absent: boolean): boolean =>
    fields.has('readwrite') ? !flag('readwrite', true) : flag('readonly', absent);

  switch (type) {
    case 'bind':
      return {
        type,
        ...some('from', get('from')),
        source: get('source') ?? '',
        target: need('target'),
        readonly: readonly(true),
      };
    case 'cache':
      return {
        type,
        ...some('id', get('id')),
        ...some('from', get('from')),
        source: get('source') ?? '',
        target: need('target'),
        readonly: readonly(false),
        sharing: sharing(get('sharing') ?? 'shared', fail),
        owner: owner(),
      };
    case 'tmpfs': {
      const size = get('size');
      const sizeBytes =
        size === undefined ? undefined : (parseSizeBytes(size) ?? fail(`size=${size} is no size`, 'write 64m or 1g'));
      return { type, target: need('target'), ...some('sizeBytes', sizeBytes) };
    }
    case 'secret': {
      if (fields.has('source') && fields.has('id')) fail('a secret has either id or source', 'they mean the same');
      const id = get('id') ?? get('source') ?? baseName(get('target') ?? '');
      if (id === '') fail('the secret has neither id nor target', 'write --mount=type=secret,id=NAME');
      return {
        type,
        id,
        ...some('target', get('target')),
        ...some('env', get('env')),
        required: flag('required', false),
        owner: owner(),
      };
    }
    case 'ssh':
      return {
        type,
        id: get('id') ?? 'default',
        ...some('target', get('target')),
        required: flag('required', false),
        owner: owner(),
      };
  }
}

/** Comma-separated `key=value`; a field may be quoted whole, as in CSV: `"source=a,b"`. */
function readFields(text: string, fail: FlagProblem): Map<string, string> {
  const fields = new Map<string, string>();
  for (const [, quoted, bare = ''] of text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) {
    const field = quoted === undefined ? bare : quoted.replaceAll('""', '"');
    if (field === '') continue;
    const at = field.indexOf('=');
    const written = (at < 0 ? field : field.slice(0, at)).trim().toLowerCase();
    const key = ALIASES[written] ?? written;
    if (at < 0 && !MAY_STAND_ALONE.has(key))
      fail(`${field} has no value`, 'mount options are key=value, separated by commas');
    const known = [...new Set(['type', ...Object.values(KEYS).flat()])];
    if (!known.includes(key)) fail(`a mount has no option ${written}`, suggestion(key, known));
    fields.set(key, at < 0 ? 'true' : field.slice(at + 1));
  }
  return fields;
}

function suggestion(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near ? `did you mean ${near}?` : `known are ${known.join(', ')}`;
}

function mountType(value: string, fail: FlagProblem): Type {
  const types = Object.keys(KEYS);
  return (
    types.includes(value.toLowerCase())
      ? value.toLowerCase()
      : fail(`there is no mount type ${value}`, suggestion(value, types))
  ) as Type;
}

function sharing(value: string, fail: FlagProblem): Sharing {
  const v = value.toLowerCase();
  return v === 'shared' || v === 'private' || v === 'locked'
    ? v
    : fail(`sharing=${value} is unknown`, 'sharing is shared, private or locked');
}

function boolean(key: string, value: string | undefined, absent: boolean, fail: FlagProblem): boolean {
  if (value === undefined) return absent;
  if (/^(1|t|true)$/i.test(value)) return true;
  if (/^(0|f|false)$/i.test(value)) return false;
  return fail(`${key}=${value} is neither true nor false`, `write ${key} or ${key}=false`);
}

function whole(key: string, value: string | undefined, base: 8 | 10, fail: FlagProblem): number | undefined {
  if (value === undefined) return undefined;
  const digits = base === 8 ? /^0?o?([0-7]{1,6})$/ : /^(\d{1,10})$/;
  const match = digits.exec(value);
  return match?.[1] === undefined
    ? fail(`${key}=${value} is no ${base === 8 ? 'octal mode' : 'number'}`, '')
    : Number.parseInt(match[1], base);
}

function some<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: V });
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
