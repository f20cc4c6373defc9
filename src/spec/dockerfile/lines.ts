import { DockerfileError, type LineRange } from '#spec/dockerfile/errors.ts';
import { type HeredocHead, heredocHeads } from '#spec/dockerfile/heredoc.ts';

/**
 * The first reading of a Dockerfile: physical lines → logical lines. Parser directives, comments, continuation lines and
 * here-documents end here; what an instruction means is decided in `instructions.ts`. (Dockerfile reference, "Format",
 * "Parser directives", "Here-Documents".)
 */
export interface LogicalLine {
  /** The instruction with its continuations joined, without the final newline. */
  text: string;
  lines: LineRange;
  heredocs: Heredoc[];
  /** Comment lines directly above; `# name description` describes a stage or argument. */
  comments: string[];
  /** Blank lines stood between continued ones. */
  emptyContinuation: boolean;
}

export interface Heredoc extends HeredocHead {
  /** As written, leading tabs kept; see `heredocText`. */
  content: string;
}

export interface Directives {
  escape: '\\' | '`';
  syntax?: string;
  check?: string;
}

const MAX_LINE_BYTES = 65_535; // what Docker's own reader takes
const DIRECTIVE = /^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$/;
const TAKES_HEREDOC = /^\s*(onbuild\s+)?(run|copy|add)\b/i;

export function readLines(source: string, file: string): { directives: Directives; lines: LogicalLine[] } {
  const physical = splitLines(source.replace(/^\uFEFF/, ''));
  const fail = (problem: string, rule: string, start: number, end = start): never => {
    throw new DockerfileError({ file, lines: { start, end }, problem, rule });
  };
  const tooLong = physical.findIndex((line) => line.length > MAX_LINE_BYTES);
  if (tooLong >= 0) fail('the line is too long', `a line holds at most ${MAX_LINE_BYTES} bytes`, tooLong + 1);

  const { directives, count } = readDirectives(physical, fail);
  const continued = directives.escape === '\\' ? /(^|[^\\])\\[ \t]*$/ : /(^|[^`])`[ \t]*$/;
  const lines: LogicalLine[] = [];
  let comments: string[] = [];
  let at = count; // directive lines are no comments

  while (at < physical.length) {
    const first = trimNewline(physical[at] ?? '').trimStart();
    const start = ++at;
    if (first === '') continue;
    if (first.startsWith('#')) {
      const comment = first.slice(1).trim();
      comments = comment === '' ? [] : [...comments, comment];
      continue;
    }

    let text = first.replace(continued, '$1');
    let open = text !== first;
    let emptyContinuation = false;
    while (open && at < physical.length) {
      const next = trimNewline(physical[at++] ?? '');
      if (next.trimStart().startsWith('#')) continue;
      if (next.trim() === '') {
        emptyContinuation = true;
        continue;
      }
      const joined = next.replace(continued, '$1');
      open = joined !== next;
      text += joined;
    }
    if (text === '') continue;

    const heredocs: Heredoc[] = [];
    if (TAKES_HEREDOC.test(text) && text.includes('<<')) {
      for (const head of heredocHeads(text)) {
        const begin = at;
        let closed = false;
        while (at < physical.length && !closed) {
          const line = trimNewline(physical[at++] ?? '');
          closed = (head.chomp ? line.replace(/^\t+/, '') : line) === head.name;
        }
        if (!closed)
          fail(`the here-document ${head.name} does not end`, `a line with ${head.name} alone closes it`, start, at);
        heredocs.push({ ...head, content: physical.slice(begin, at - 1).join('') });
      }
    }
    lines.push({ text, lines: { start, end: at }, heredocs, comments, emptyContinuation });
    comments = [];
  }
  if (lines.length === 0)
    fail(
      'the file has no instructions',
      'a Dockerfile starts with FROM, or ARG before it',
      Math.max(1, physical.length),
    );
  return { directives, lines };
}

/** What the here-document says once written to a file: with `<<-`, tabs at the start of its lines are dropped. */
export function heredocText(heredoc: Heredoc): string {
  return heredoc.chomp ? heredoc.content.replace(/^\t+/gm, '') : heredoc.content;
}

type Fail = (problem: string, rule: string, start: number, end?: number) => never;

/** Directives stand on top, before any other comment, each at most once; the first line that is none ends them. */
function readDirectives(physical: readonly string[], fail: Fail): { directives: Directives; count: number } {
  const directives: Directives = { escape: '\\' };
  const seen = new Set<string>();
  for (const [index, raw] of physical.entries()) {
    const match = DIRECTIVE.exec(trimNewline(raw).trimStart());
    const name = match?.[1]?.toLowerCase();
    const value = match?.[2] ?? '';
    if (name !== 'escape' && name !== 'syntax' && name !== 'check') break;
    if (seen.has(name)) fail(`a second ${name} directive`, 'each parser directive may stand once', index + 1);
    seen.add(name);
    if (name === 'escape') {
      if (value !== '\\' && value !== '`')
        fail(`${value} cannot be the escape character`, 'escape is \\ or `', index + 1);
      directives.escape = value === '`' ? '`' : '\\';
    } else directives[name] = value;
  }
  return { directives, count: seen.size };
}

/** Newlines stay at the ends of lines: a here-document keeps them as they are. */
function splitLines(source: string): string[] {
  const lines = source.split(/(?<=\n)/);
  return lines.at(-1) === '' ? lines.slice(0, -1) : lines;
}

function trimNewline(line: string): string {
  return line.replace(/[\r\n]+$/, '');
}
