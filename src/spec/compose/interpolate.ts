import { type Position, refuse, type Tree } from './tree.ts';

export type Variables = Readonly<Record<string, string>>;

/** Replaces variables in every string value; keys stay as they are. */
export function interpolateTree(tree: Tree, variables: Variables, path = ''): Tree {
  switch (tree.is) {
    case 'list':
      return { ...tree, items: tree.items.map((item, i) => interpolateTree(item, variables, `${path}[${i}]`)) };
    case 'map': {
      const child = (name: string): string => (path === '' ? name : `${path}.${name}`);
      const entries = [...tree.entries].map(([k, v]): [string, Tree] => [k, interpolateTree(v, variables, child(k))]);
      return { ...tree, entries: new Map(entries) };
    }
    case 'scalar': {
      if (typeof tree.value !== 'string' || !tree.value.includes('$')) return tree;
      const text = interpolate(tree.value, variables, tree.at, path);
      return { ...tree, value: text, text };
    }
  }
}

/**
 *     $NAME  ${NAME}  ${NAME:-default}  ${NAME-default}  ${NAME:?error}  ${NAME?error}  ${NAME:+other}  ${NAME+other}  $$
 *
 * With the colon, empty counts as unset. The word after the operator is interpolated itself; a dollar sign in it that begins no name
 * stands for itself (`${HASH:-$2a$14$…}`, as real files have it), elsewhere it is a mistake.
 */
export function interpolate(text: string, variables: Variables, at: Position, path = '', within = false): string {
  let out = '';
  for (let i = 0; i < text.length; ) {
    const dollar = text.indexOf('$', i);
    if (dollar < 0) return out + text.slice(i);
    out += text.slice(i, dollar);
    const next = text[dollar + 1];
    if (next === '$') {
      out += '$';
      i = dollar + 2;
    } else if (next === '{') {
      const end = closingBrace(text, dollar + 2);
      if (end < 0) refuse(at, path, `invalid interpolation ${JSON.stringify(text)}: "}" is missing`);
      out += substitute(text.slice(dollar + 2, end), variables, at, path);
      i = end + 1;
    } else {
      const name = /^[A-Za-z_]\w*/.exec(text.slice(dollar + 1))?.[0];
      if (name === undefined && !within)
        refuse(at, path, `invalid interpolation ${JSON.stringify(text)}: write "$$" for a dollar sign`);
      out += name === undefined ? '$' : (lookUp(variables, name) ?? '');
      i = dollar + 1 + (name?.length ?? 0);
    }
  }
  return out;
}

function closingBrace(text: string, from: number): number {
  let depth = 1;
  for (let i = from; i < text.length; i++) {
    if (text[i] === '$' && text[i + 1] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return i;
  }
  return -1;
}

function substitute(expression: string, variables: Variables, at: Position, path: string): string {
  const match = /^([A-Za-z_]\w*)(?:(:?)([-?+])([\s\S]*))?$/.exec(expression);
  if (!match) return refuse(at, path, `invalid interpolation "\${${expression}}"`);
  const [, name = '', colon, operator, word = ''] = match;
  const value = lookUp(variables, name);
  const present = value !== undefined && !(colon === ':' && value === '');
  if (operator === '-') return present ? value : interpolate(word, variables, at, path, true);
  if (operator === '+') return present ? interpolate(word, variables, at, path, true) : '';
  if (operator === '?' && !present) {
    const says = interpolate(word, variables, at, path, true);
    refuse(at, path, `required variable ${name} is missing a value${says === '' ? '' : `: ${says}`}`);
  }
  return value ?? '';
}

function lookUp(variables: Variables, name: string): string | undefined {
  return Object.hasOwn(variables, name) ? variables[name] : undefined;
}

/**
 * An env file: `NAME=value`, `export NAME=value`, `# comment`; single quotes take all as it is, double quotes know `\n` and
 * interpolate; a name alone takes its value from the outside.
 */
export function parseEnvFile(text: string, file: string, outside: Variables): Record<string, string> {
  const out: Record<string, string> = {};
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  for (let i = 0; i < lines.length; i++) {
    const at = { file, line: i + 1 };
    const line = (lines[i] ?? '').trim();
    if (line === '' || line.startsWith('#')) continue;
    const match = /^(?:export\s+)?([A-Za-z_][\w.-]*)\s*(?:[=:]\s*([\s\S]*))?$/.exec(line);
    if (!match) refuse(at, '', `not NAME=VALUE: ${JSON.stringify(line)}`);
    const [, name = '', raw] = match;
    if (raw === undefined) {
      const inherited = lookUp(outside, name);
      if (inherited !== undefined) out[name] = inherited;
      continue;
    }
    let value = raw;
    const quote = value[0];
    if (quote === '"' || quote === "'") {
      // A quoted value may go on over lines.
      while (closingQuote(value, quote) < 0 && i + 1 < lines.length) value += `\n${lines[++i]}`;
      const end = closingQuote(value, quote);
      if (end < 0) refuse(at, name, 'the quote is not closed');
      const inner = value.slice(1, end);
      out[name] = quote === "'" ? inner : interpolate(unescape(inner), { ...outside, ...out }, at, name);
    } else {
      const bare = value.replace(/\s+#.*$/, '').trim();
      out[name] = interpolate(bare, { ...outside, ...out }, at, name);
    }
  }
  return out;
}

function closingQuote(value: string, quote: string): number {
  for (let i = 1; i < value.length; i++) {
    if (value[i] === '\\' && quote === '"') i++;
    else if (value[i] === quote) return i;
  }
  return -1;
}

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t', '"': '"', '\\': '\\', $: '$$' };

function unescape(text: string): string {
  return text.replace(/\\([nrt"\\$])/g, (_, c: string) => ESCAPES[c] ?? c);
}
