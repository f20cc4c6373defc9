import { TemplateInvalid } from '#cli/errors.ts';

/** The part of Go's text/template that `--format` uses; anything else is refused by name. */
export type Node =
  | { is: 'text'; text: string }
  | { is: 'print'; pipe: Pipe }
  | { is: 'set'; name: string; pipe: Pipe }
  | {
      is: 'if' | 'with' | 'range';
      pipe: Pipe;
      names: readonly string[];
      body: readonly Node[];
      otherwise: readonly Node[];
    };

/** `a | b x`: the value of each call is the last argument of the next. */
export type Pipe = readonly Operand[][];

export type Operand =
  | { is: 'literal'; value: string | number | boolean | null }
  | { is: 'word'; word: string }
  /** `.a.b`, `$.a`, `$x.a`, `(pipe).a` */
  | { is: 'field'; of: '.' | { variable: string } | { pipe: Pipe }; path: readonly string[] };

type Token = { is: 'text' | 'action'; text: string };

export function parseTemplate(source: string): Node[] {
  const tokens = split(source);
  const nodes = parseNodes(tokens, []);
  if (tokens.length > 0) throw new TemplateInvalid({ problem: `unexpected {{${tokens[0]?.text ?? ''}}}` });
  return nodes;
}

/** Texts and actions in turn; `{{-` and `-}}` eat the blanks beside them, comments vanish. */
function split(source: string): Token[] {
  const tokens: Token[] = [];
  let trimNext = false;
  let rest = source;
  while (rest !== '') {
    const open = rest.indexOf('{{');
    const text = open < 0 ? rest : rest.slice(0, open);
    const trims = open >= 0 && /^\{\{-\s/.test(rest.slice(open));
    let shown = trimNext ? text.trimStart() : text;
    if (trims) shown = shown.trimEnd();
    if (shown !== '') tokens.push({ is: 'text', text: shown });
    if (open < 0) break;
    const close = endOfAction(rest, open + 2);
    const inside = rest.slice(open + 2, close);
    trimNext = /\s-$/.test(inside);
    const action = inside.replace(/^-\s/, '').replace(/\s-$/, '').trim();
    if (!action.startsWith('/*')) tokens.push({ is: 'action', text: action });
    rest = rest.slice(close + 2);
  }
  return tokens;
}

function endOfAction(text: string, from: number): number {
  let quote = '';
  for (let i = from; i < text.length; i++) {
    const c = text[i] ?? '';
    if (quote !== '') {
      if (c === '\\' && quote === '"') i++;
      else if (c === quote) quote = '';
    } else if (c === '"' || c === '`') quote = c;
    else if (text.startsWith('}}', i)) return i;
  }
  throw new TemplateInvalid({ problem: 'an action {{… is not closed' });
}

function parseNodes(tokens: Token[], until: readonly string[]): Node[] {
  const nodes: Node[] = [];
  for (;;) {
    const token = tokens[0];
    if (!token) {
      if (until.length > 0) throw new TemplateInvalid({ problem: `{{${until.at(-1)}}} is missing` });
      return nodes;
    }
    if (token.is === 'action' && until.includes(token.text.split(/\s/)[0] ?? '')) return nodes;
    tokens.shift();
    if (token.is === 'text') nodes.push({ is: 'text', text: token.text });
    else nodes.push(parseAction(token.text, tokens));
  }
}

function parseAction(text: string, tokens: Token[]): Node {
  const [, keyword = '', rest = ''] = /^(\w+)\s*(.*)$/s.exec(text) ?? [];
  switch (keyword) {
    case 'if':
    case 'with':
    case 'range':
      return parseBlock(keyword, rest, tokens);
    case 'end':
    case 'else':
    case 'define':
    case 'template':
    case 'block':
    case 'break':
    case 'continue':
      throw new TemplateInvalid({ problem: `{{${text}}} is not possible here` });
    default: {
      const [, name, value = ''] = /^\$(\w+)\s*:?=\s*(.+)$/s.exec(text) ?? [];
      return name === undefined ? { is: 'print', pipe: parsePipe(text) } : { is: 'set', name, pipe: parsePipe(value) };
    }
  }
}

function parseBlock(keyword: 'if' | 'with' | 'range', written: string, tokens: Token[]): Node {
  const [, names = '', value = written] = /^((?:\$\w+\s*,?\s*){1,2}):=\s*(.+)$/s.exec(written) ?? [];
  const pipe = parsePipe(value);
  const body = parseNodes(tokens, ['else', 'end']);
  const next = tokens.shift()?.text ?? '';
  let otherwise: Node[] = [];
  if (next.startsWith('else')) {
    const chained = next.slice('else'.length).trim();
    if (chained === '') {
      otherwise = parseNodes(tokens, ['end']);
      tokens.shift();
    } else otherwise = [parseAction(chained, tokens)]; // `else if …` shares the `end`
  }
  return { is: keyword, pipe, names: [...names.matchAll(/\$(\w+)/g)].map((m) => m[1] ?? ''), body, otherwise };
}

const WORDS =
  /\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|[()|]|-?\d+(?:\.\d+)?(?![\w.])|(?:\$\w*)?(?:\.[A-Za-z_]\w*)+|\$\w*|\.|[A-Za-z_]\w*|./gy;

export function parsePipe(text: string): Pipe {
  const words = [...text.matchAll(WORDS)].map((m) => m[0]);
  const pipe = readPipe(words, text);
  if (words.length > 0) throw new TemplateInvalid({ problem: `unexpected ${words[0]} in ${text}` });
  return pipe;
}

function readPipe(words: string[], text: string): Pipe {
  const calls: Operand[][] = [[]];
  while (words.length > 0 && words[0] !== ')') {
    const word = words.shift() ?? '';
    const call = calls.at(-1) ?? [];
    if (/^\s+$/.test(word)) continue;
    if (word === '|') calls.push([]);
    else call.push(readOperand(word, words, text));
  }
  if (calls.some((c) => c.length === 0)) throw new TemplateInvalid({ problem: `missing value in {{${text}}}` });
  return calls;
}

function readOperand(word: string, words: string[], text: string): Operand {
  if (word === '(') {
    const pipe = readPipe(words, text);
    if (words.shift() !== ')') throw new TemplateInvalid({ problem: `a parenthesis is not closed in {{${text}}}` });
    const path = words[0]?.startsWith('.') && words[0] !== '.' ? (words.shift() ?? '').slice(1).split('.') : [];
    return { is: 'field', of: { pipe }, path };
  }
  if (word.startsWith('"')) return { is: 'literal', value: unquote(word) };
  if (word.startsWith('`')) return { is: 'literal', value: word.slice(1, -1) };
  if (/^-?\d/.test(word)) return { is: 'literal', value: Number(word) };
  if (word === 'true' || word === 'false') return { is: 'literal', value: word === 'true' };
  if (word === 'nil') return { is: 'literal', value: null };
  if (word.startsWith('$')) {
    const [variable = '', ...path] = word.slice(1).split('.');
    return { is: 'field', of: { variable }, path };
  }
  if (word.startsWith('.')) return { is: 'field', of: '.', path: word === '.' ? [] : word.slice(1).split('.') };
  if (/^\w+$/.test(word)) return { is: 'word', word };
  throw new TemplateInvalid({ problem: `unexpected ${JSON.stringify(word)} in {{${text}}}` });
}

function unquote(word: string): string {
  const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' };
  return word.slice(1, -1).replace(/\\(.)/g, (_, c: string) => escapes[c] ?? c);
}
