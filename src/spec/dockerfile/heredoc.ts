/** `<<NAME`, `<<-NAME`, `3<<"NAME"`: the word that opens a here-document (POSIX shell, "Here-Document"). */
export interface HeredocHead {
  name: string;
  /** File descriptor before `<<`, 0 when there is none. */
  fd: number;
  /** `<<-`: leading tabs are dropped. */
  chomp: boolean;
  /** False when any part of the name is quoted: then nothing in the text is expanded. */
  expand: boolean;
}

const HEAD = /^(\d*)<<(-?)([^<]*)$/;

export function heredocHeads(line: string): HeredocHead[] {
  return shellWords(line).flatMap((word, index, words) => {
    // `<< NAME`: the name may stand apart.
    const bare = /^\d*<<-?$/.test(word);
    const head = parseHeredocHead(bare ? `${word}${words[index + 1] ?? ''}` : word);
    return head ? [head] : [];
  });
}

export function parseHeredocHead(word: string): HeredocHead | undefined {
  const match = HEAD.exec(word);
  const rest = match?.[3] ?? '';
  if (!match || rest === '') return undefined;
  const name = rest.replace(/\\(.)/g, '$1').replace(/["']/g, '');
  if (name === '' || /\s/.test(name)) return undefined;
  return { name, fd: Number(match[1] || 0), chomp: match[2] === '-', expand: !/["']/.test(rest) };
}

/** Words of a shell line with quotes and escapes left in place; enough to find redirections, not to run anything. */
function shellWords(line: string): string[] {
  const words: string[] = [];
  let word = '';
  let quote = '';
  for (let i = 0; i < line.length; i++) {
    const c = line.charAt(i);
    if (c === '\\' && quote !== "'") {
      word += c + line.charAt(++i);
    } else if (quote !== '') {
      word += c;
      if (c === quote) quote = '';
    } else if (c === '"' || c === "'") {
      word += c;
      quote = c;
    } else if (/\s/.test(c)) {
      if (word !== '') words.push(word);
      word = '';
    } else word += c;
  }
  if (word !== '') words.push(word);
  return words;
}
