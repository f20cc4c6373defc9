import { DockerfileError, type LineRange } from '#spec/dockerfile/errors.ts';
import { type Directives, type Heredoc, type LogicalLine, readLines } from '#spec/dockerfile/lines.ts';
import { type Escape, jsonWords, leadingFlags, plainWords, quotedWords } from '#spec/dockerfile/words.ts';

/**
 * The second reading: each logical line → name, flags and arguments by the instruction's own grammar, before any variable
 * is expanded. One table row an instruction.
 */
export interface SyntaxNode {
  /** As written; `keyword` is the lower-case form. */
  name: string;
  keyword: string;
  flags: string[];
  args: Args;
  heredocs: Heredoc[];
  text: string;
  lines: LineRange;
  comments: string[];
  emptyContinuation: boolean;
}

export type Args =
  | { form: 'words'; words: string[]; json: boolean }
  | { form: 'line'; line: string } // shell form, or one string
  | { form: 'pairs'; pairs: { key: string; value: string; separator: '=' | '' }[] }
  | { form: 'typed'; type: string; command: Args } // HEALTHCHECK CMD …
  | { form: 'nested'; node: SyntaxNode }; // ONBUILD …

export interface DockerfileSyntax {
  directives: Directives;
  nodes: SyntaxNode[];
}

type Grammar = (rest: string, context: Context) => Args;
interface Context {
  name: string;
  escape: Escape;
  fail: (problem: string, rule: string) => never;
  nest: (text: string) => SyntaxNode;
}

const NONE: Args = { form: 'words', words: [], json: false };

const GRAMMAR: Record<string, Grammar> = {
  add: listOr(plainWords),
  arg: (rest, { escape }) => words(quotedWords(rest, escape)),
  cmd: listOrLine,
  copy: listOr(plainWords),
  entrypoint: listOrLine,
  env: pairs,
  expose: (rest) => words(plainWords(rest)),
  from: (rest) => words(plainWords(rest)),
  healthcheck: typed,
  label: pairs,
  maintainer: line,
  onbuild: (rest, { nest }) => (rest === '' ? NONE : { form: 'nested', node: nest(rest) }),
  run: listOrLine,
  shell: listOrLine,
  stopsignal: line,
  user: line,
  volume: listOr(plainWords),
  workdir: line,
};

export const INSTRUCTIONS: readonly string[] = Object.keys(GRAMMAR);

/** `file` is the name that errors show. Unknown instructions are errors here already, with the nearest known name. */
export function parseSyntax(source: string, file = 'Dockerfile'): DockerfileSyntax {
  const { directives, lines } = readLines(source, file);
  return { directives, nodes: lines.map((l) => parseLine(l, directives.escape, file)) };
}

function parseLine(source: LogicalLine, escape: Escape, file: string): SyntaxNode {
  const fail = (problem: string, rule: string): never => {
    throw new DockerfileError({ file, lines: source.lines, problem, rule });
  };
  const [, name = '', after = ''] = /^\s*(\S+)\s*([\s\S]*)$/.exec(source.text) ?? [];
  const keyword = name.toLowerCase();
  const grammar = Object.hasOwn(GRAMMAR, keyword) ? GRAMMAR[keyword] : undefined;
  if (!grammar) {
    const near = nearest(keyword, INSTRUCTIONS);
    const rule = near
      ? `did you mean ${near.toUpperCase()}?`
      : `the instructions are ${INSTRUCTIONS.map((i) => i.toUpperCase()).join(', ')}`;
    return fail(`unknown instruction ${name}`, rule);
  }
  const { flags, rest } = leadingFlags(after.trimEnd(), escape);
  const nest = (text: string): SyntaxNode => parseLine({ ...source, text, comments: [] }, escape, file);
  return {
    name,
    keyword,
    flags,
    args: grammar(rest, { name: name.toUpperCase(), escape, fail, nest }),
    heredocs: source.heredocs,
    text: source.text,
    lines: source.lines,
    comments: source.comments,
    emptyContinuation: source.emptyContinuation,
  };
}

function words(list: string[]): Args {
  return { form: 'words', words: list, json: false };
}

function line(rest: string): Args {
  return rest === '' ? NONE : { form: 'line', line: rest };
}

function jsonList(rest: string, { name, fail }: Context): Args | undefined {
  const list = jsonWords(rest);
  if (list === 'not strings')
    return fail(`${name}: the list holds something that is no string`, 'the exec form is a JSON list of strings');
  return list && { form: 'words', words: list, json: true };
}

function listOrLine(rest: string, context: Context): Args {
  return jsonList(rest, context) ?? line(rest);
}

function listOr(otherwise: (rest: string) => string[]): Grammar {
  return (rest, context) => jsonList(rest, context) ?? words(otherwise(rest));
}

/** `KEY=value …`, or the old form `KEY the rest of the line` (told by the first word having no `=`). */
function pairs(rest: string, { name, escape, fail }: Context): Args {
  const list = quotedWords(rest, escape);
  if (list.length === 0) return { form: 'pairs', pairs: [] };
  if (!list[0]?.includes('=')) {
    const [, key = '', value = ''] = /^(\S+)[\t\v\f\r ]+([\s\S]*)$/.exec(rest) ?? [];
    if (key === '') return fail(`${name} ${rest} has no value`, `${name} takes key=value`);
    return { form: 'pairs', pairs: [{ key, value, separator: '' }] };
  }
  return {
    form: 'pairs',
    pairs: list.map((word) => {
      const at = word.indexOf('=');
      if (at < 0)
        return fail(
          `${name}: there is no = in ${word}`,
          `${name} takes key=value, with quotes around a value that has blanks`,
        );
      return { key: word.slice(0, at), value: word.slice(at + 1), separator: '=' };
    }),
  };
}

function typed(rest: string, context: Context): Args {
  const [, type = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(rest) ?? [];
  return type === '' ? NONE : { form: 'typed', type, command: listOrLine(command, context) };
}

/** The known name at most two edits away, if any. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const scored = known.map((candidate) => ({ candidate, distance: editDistance(word, candidate) }));
  const best = scored.sort((a, b) => a.distance - b.distance)[0];
  return best && best.distance <= Math.min(2, Math.floor(word.length / 2)) ? best.candidate : undefined;
}

function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
