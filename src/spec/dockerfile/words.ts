/**
 * Cutting an instruction's rest into words. Quotes and escapes stay in the words: they are taken away when variables are
 * expanded (`expand.ts`), because `\$` and `'$X'` must still be told from `$X` there.
 */
export type Escape = '\\' | '`';

/** Words with quotes kept: what ENV, LABEL and ARG consist of. An escape at the very end is dropped. */
export function quotedWords(text: string, escape: Escape): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const c = text.charAt(i);
    if (quote === '' && isSpace(c)) {
      if (word !== undefined) words.push(word);
      word = undefined;
      continue;
    }
    word ??= '';
    if (c === escape && quote !== "'") {
      if (i + 1 < text.length) word += c + text.charAt(++i);
      continue;
    }
    if (quote === '' && (c === '"' || c === "'")) quote = c;
    else if (c === quote) quote = '';
    word += c;
  }
  if (word !== undefined && word !== '') words.push(word);
  return words;
}

/** Words cut at blanks alone. */
export function plainWords(text: string): string[] {
  return text.split(/[\t\v\f\r ]+/).filter((word) => word !== '');
}

/** `--flag=value` words at the start; `--` alone ends them. Quotes around a flag's parts are taken away. */
export function leadingFlags(text: string, escape: Escape): { flags: string[]; rest: string } {
  const flags: string[] = [];
  let i = 0;
  for (;;) {
    while (i < text.length && isSpace(text.charAt(i))) i++;
    if (!text.startsWith('--', i)) return { flags, rest: text.slice(i) };
    let flag = '';
    let quote = '';
    for (; i < text.length; i++) {
      const c = text.charAt(i);
      if (quote === '' && isSpace(c)) break;
      if (c === escape) flag += text.charAt(++i);
      else if (quote === '' && (c === '"' || c === "'")) quote = c;
      else if (c === quote) quote = '';
      else flag += c;
    }
    if (flag === '--') return { flags, rest: text.slice(i).trimStart() };
    flags.push(flag);
  }
}

/**
 * The exec form: a JSON list of strings. Undefined when the text is no JSON list: then it is a shell line, as Docker takes
 * it, single quotes and all. A list with anything but strings in it is a mistake the caller reports.
 */
export function jsonWords(text: string): string[] | 'not strings' | undefined {
  if (!text.startsWith('[')) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(parsed)) return undefined;
  return parsed.every((item) => typeof item === 'string') ? parsed : 'not strings';
}

export function isSpace(c: string): boolean {
  return /\s/.test(c);
}
