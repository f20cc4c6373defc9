/**
 * Path patterns of Dockerfiles: `*` and `?` stay within one name, `[a-z]` and `[^a]` are one character of a set, `\` takes the
 * next character as it is (Go's filepath.Match, which the Dockerfile reference names), and `**` is any number of names.
 */
export function hasWildcard(pattern: string): boolean {
  return /[*?[\\]/.test(pattern);
}

/** Matches a whole relative path; undefined when the pattern is malformed (`[` without its end, a `\` that ends it). */
export function compileGlob(pattern: string): RegExp | undefined {
  let source = '';
  for (let at = 0; at < pattern.length; ) {
    const char = pattern[at] ?? '';
    if (char === '*') {
      const [text, length] = star(pattern, at);
      source += text;
      at += length;
    } else if (char === '?') {
      source += '[^/]';
      at++;
    } else if (char === '[') {
      const set = characterSet(pattern, at);
      if (!set) return undefined;
      source += set.source;
      at = set.end;
    } else {
      const taken = char === '\\' ? pattern[at + 1] : char;
      if (taken === undefined) return undefined;
      source += literal(taken);
      at += char === '\\' ? 2 : 1;
    }
  }
  try {
    return new RegExp(`^${source}$`, 's');
  } catch {
    return undefined; // a range that runs backwards: [z-a]
  }
}

/** `**` at the end takes everything, also nothing; before more it takes whole directories and their slashes. */
function star(pattern: string, at: number): [source: string, length: number] {
  if (pattern[at + 1] !== '*') return ['[^/]*', 1];
  const slash = pattern[at + 2] === '/' ? 1 : 0;
  const length = 2 + slash;
  return [at + length >= pattern.length ? '.*' : '(?:.*/)?', length];
}

function characterSet(pattern: string, start: number): { source: string; end: number } | undefined {
  let at = start + 1;
  const negated = pattern[at] === '^' || pattern[at] === '!';
  if (negated) at++;
  let inside = '';
  for (; ; at++) {
    let char = pattern[at];
    if (char === undefined) return undefined;
    if (char === ']' && inside !== '') break;
    if (char === '\\') {
      char = pattern[++at];
      if (char === undefined) return undefined;
      inside += `\\${char}`;
    } else inside += char === '[' || char === ']' || char === '^' ? `\\${char}` : char;
  }
  return { source: `[${negated ? '^/' : ''}${inside}]`, end: at + 1 };
}

function literal(char: string): string {
  return char.replace(/[.*+?^$(){}|[\]\\]/g, '\\$&');
}
