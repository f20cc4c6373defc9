import { defineError } from '#base/errors.ts';
import type { Escape } from '#spec/dockerfile/words.ts';

/**
 * Variables and quotes in a Dockerfile word: `$X`, `${X}`, and the modifiers `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%`
 * `/` `//` (Dockerfile reference, "Environment replacement"). Patterns know `*` and `?`; a `\` makes the next character
 * plain.
 */
export interface Variables {
  get(name: string): string | undefined;
}

export const ExpansionFailed = defineError('DOCKERFILE_EXPANSION', (d: { word: string; problem: string }) => ({
  message: `${d.word}: ${d.problem}`,
}));

export interface ExpandOptions {
  escape?: Escape;
  /** Here-documents: quotes are plain characters, and only `\$` and `\\` are escapes, as in a shell. */
  quotes?: 'strip' | 'keep';
  /** Called with each name that was looked up and is not set, and has no default. */
  onUnset?: (name: string) => void;
}

/** One word in, one word out: blanks that variables bring stay inside it. */
export function expandWord(word: string, variables: Variables, options: ExpandOptions = {}): string {
  return new Expander(word, variables, options).all().join('');
}

/** One text in, words out: cut at unquoted blanks, also at those that unquoted variables bring (EXPOSE, FROM's image). */
export function expandWords(word: string, variables: Variables, options: ExpandOptions = {}): string[] {
  const words: string[] = [];
  let open = false;
  for (const piece of new Expander(word, variables, options).pieces()) {
    const parts = piece.quoted ? [piece.text] : piece.text.split(/\s/);
    for (const [index, part] of parts.entries()) {
      if (index > 0) open = false;
      if (part === '' && !piece.quoted) continue;
      if (open) words[words.length - 1] += part;
      else words.push(part);
      open = true;
    }
  }
  return words;
}

interface Piece {
  text: string;
  quoted: boolean;
}

const SPECIAL = /[@*#?\-$!0]/;
const MAX_DEPTH = 100; // ${A:-${B:-…}}: deeper is an attack, not a build

class Expander {
  readonly #text: string;
  readonly #variables: Variables;
  readonly #escape: Escape;
  readonly #keepQuotes: boolean;
  readonly #onUnset: (name: string) => void;
  #at = 0;
  #depth = 0;

  constructor(text: string, variables: Variables, options: ExpandOptions) {
    this.#text = text;
    this.#variables = variables;
    this.#escape = options.escape ?? '\\';
    this.#keepQuotes = options.quotes === 'keep';
    this.#onUnset = options.onUnset ?? (() => undefined);
  }

  all(): string[] {
    return this.pieces().map((p) => p.text);
  }

  pieces(): Piece[] {
    return this.#until('');
  }

  /** Reads up to an unquoted `stop`, which it takes, or to the end. `pattern` keeps escapes for the pattern to read. */
  #until(stop: string, pattern = false): Piece[] {
    if (++this.#depth > MAX_DEPTH) return this.#fail(`variables are nested deeper than ${MAX_DEPTH}`);
    const pieces: Piece[] = [];
    for (;;) {
      const c = this.#next();
      if (c === '' && stop === '') break;
      if (c === '') return this.#fail(`missing ${stop}`);
      if (c === stop) break;
      if (c === '$') pieces.push({ text: this.#dollar(), quoted: false });
      else if (c === "'" && !this.#keepQuotes) pieces.push({ text: this.#single(), quoted: true });
      else if (c === '"' && !this.#keepQuotes) pieces.push({ text: this.#double(), quoted: true });
      else if (c === this.#escape) pieces.push({ text: this.#escaped(pattern), quoted: true });
      else pieces.push({ text: c, quoted: false });
    }
    this.#depth--;
    return pieces;
  }

  #escaped(pattern: boolean): string {
    const c = this.#next();
    if (pattern) return `\\${c}`;
    if (this.#keepQuotes) return c === '$' || c === this.#escape ? c : this.#escape + c;
    return c; // an escape at the very end vanishes
  }

  #single(): string {
    const end = this.#text.indexOf("'", this.#at);
    if (end < 0) return this.#fail("a ' is not closed");
    const text = this.#text.slice(this.#at, end);
    this.#at = end + 1;
    return text;
  }

  #double(): string {
    let text = '';
    for (;;) {
      const c = this.#next();
      if (c === '') return this.#fail('a " is not closed');
      if (c === '"') return text;
      if (c === '$') text += this.#dollar();
      else if (c === this.#escape) {
        const next = this.#next();
        if (next === '') return this.#fail('a " is not closed');
        text += next === '"' || next === '$' || next === this.#escape ? next : c + next;
      } else text += c;
    }
  }

  #dollar(): string {
    if (this.#peek() !== '{') {
      const name = this.#name();
      return name === '' ? '$' : this.#value(name);
    }
    this.#next();
    if (/^[{}:]?$/.test(this.#peek())) return this.#fail('bad substitution');
    const name = this.#name();
    const operator = this.#next();
    switch (operator) {
      case '}':
        return this.#value(name);
      case ':':
        return this.#conditional(name, this.#next(), true);
      case '+':
      case '-':
      case '?':
        return this.#conditional(name, operator, false);
      case '#':
      case '%':
        return this.#trim(name, operator);
      case '/':
        return this.#replace(name);
      case '':
        return this.#fail('missing }');
      default:
        return this.#fail(`unsupported modifier (${operator}) in substitution`);
    }
  }

  #conditional(name: string, operator: string, emptyIsUnset: boolean): string {
    if (!'+-?'.includes(operator) || operator === '')
      return this.#fail(`unsupported modifier (:${operator}) in substitution`);
    const word = join(this.#until('}'));
    const value = this.#variables.get(name);
    const present = value !== undefined && !(emptyIsUnset && value === '');
    if (operator === '-') return present ? value : word;
    if (operator === '+') return present ? word : '';
    if (present) return value;
    return this.#fail(`${name}: ${word || `is not allowed to be ${value === undefined ? 'unset' : 'empty'}`}`);
  }

  #trim(name: string, side: '#' | '%'): string {
    const longest = this.#peek() === side;
    if (longest) this.#next();
    const pattern = join(this.#until('}', true));
    const value = this.#value(name);
    const lengths = Array.from({ length: value.length + 1 }, (_, i) => (longest ? value.length - i : i));
    const whole = new RegExp(`^${patternSource(pattern)}$`, 'su');
    for (const length of lengths) {
      const cut = side === '#' ? value.slice(0, length) : value.slice(value.length - length);
      if (whole.test(cut)) return side === '#' ? value.slice(length) : value.slice(0, value.length - length);
    }
    return value;
  }

  #replace(name: string): string {
    const everywhere = this.#peek() === '/';
    if (everywhere) this.#next();
    const pattern = join(this.#until('/', true));
    const replacement = join(this.#until('}', true)).replace(/\\([\s\S])/g, '$1');
    const value = this.#value(name);
    if (pattern === '') return value;
    return value.replace(new RegExp(patternSource(pattern), everywhere ? 'gsu' : 'su'), () => replacement);
  }

  #value(name: string): string {
    const value = this.#variables.get(name);
    if (value === undefined) this.#onUnset(name);
    return value ?? '';
  }

  /** Letters, digits and `_`; or digits alone; or one special parameter, which is never set in a Dockerfile. */
  #name(): string {
    const rest = this.#text.slice(this.#at);
    const name =
      /^\d+/.exec(rest)?.[0] ??
      (SPECIAL.test(rest.charAt(0)) ? rest.charAt(0) : (/^[\p{L}\p{N}_]+/u.exec(rest)?.[0] ?? ''));
    this.#at += name.length;
    return name;
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #next(): string {
    const c = this.#text.charAt(this.#at);
    this.#at += c.length;
    return c;
  }

  #fail(problem: string): never {
    throw new ExpansionFailed({ word: this.#text, problem });
  }
}

function join(pieces: readonly Piece[]): string {
  return pieces.map((p) => p.text).join('');
}

/** A shell pattern as the source of a regular expression: `*`, `?`, `\x`; all else is plain. */
function patternSource(pattern: string): string {
  let source = '';
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern.charAt(i);
    if (c === '\\') source += escapeRegExp(pattern.charAt(++i));
    else if (c === '*') source += '.*';
    else if (c === '?') source += '.';
    else source += escapeRegExp(c);
  }
  return source;
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&');
}
