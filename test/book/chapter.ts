/** One command of a chapter and what the chapter says it prints. */
export interface Example {
  /** Line of the chapter, from 1. */
  line: number;
  command: string;
  output: string[];
}

/**
 * The commands of a chapter: fenced blocks that begin with ```console. A line that begins with `$ ` is a command, lines that
 * begin with `> ` continue it, all others are its output. Blocks in other languages are read by people only.
 */
export function examplesOf(markdown: string): Example[] {
  const examples: Example[] = [];
  let inside = false;
  for (const [index, line] of markdown.split('\n').entries()) {
    if (line.startsWith('```')) {
      inside = !inside && line === '```console';
      continue;
    }
    if (!inside) continue;
    const last = examples.at(-1);
    if (line.startsWith('$ ')) examples.push({ line: index + 1, command: line.slice(2), output: [] });
    else if (!last) throw new Error(`line ${index + 1}: a console block begins with '$ '`);
    else if (line.startsWith('> ') && last.output.length === 0) last.command += `\n${line.slice(2)}`;
    else last.output.push(line);
  }
  return examples;
}

/**
 * Whether a chapter's output describes the real one. `…` stands for anything within a line; a line that is `…` alone stands for
 * any number of lines, none included. Spaces at the end of a line do not count, since editors remove them.
 */
export function agrees(expected: readonly string[], actual: readonly string[]): boolean {
  const [first, ...rest] = expected;
  if (first === undefined) return actual.length === 0;
  if (first === '…') return actual.some((_, at) => agrees(rest, actual.slice(at))) || agrees(rest, []);
  const [line, ...others] = actual;
  return line !== undefined && lineAgrees(first, line.trimEnd()) && agrees(rest, others);
}

function lineAgrees(expected: string, actual: string): boolean {
  const pattern = expected
    .trimEnd()
    .split('…')
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*');
  return new RegExp(`^${pattern}$`).test(actual);
}
