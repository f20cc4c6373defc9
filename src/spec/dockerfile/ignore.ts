import { posix } from 'node:path';
import { DockerfileError } from '#spec/dockerfile/errors.ts';
import { compileGlob } from '#spec/dockerfile/glob.ts';

/**
 * `.dockerignore` (Dockerfile reference, "dockerignore file"): one pattern a line, `#` comments, `!` takes back. The last
 * pattern that says something about a path or one of its directories decides.
 */
export interface Ignore {
  /** `path` is relative to the context, without a slash at either end. */
  isIgnored(path: string): boolean;
  /** An ignored directory may still hold something that a `!` pattern takes back: it has to be looked into. */
  mayHoldKept(directory: string): boolean;
}

export const IGNORE_NOTHING: Ignore = { isIgnored: () => false, mayHoldKept: () => true };

interface Rule {
  keep: boolean;
  match: RegExp;
  /** The names before the first wildcard: what lies elsewhere cannot match. */
  fixed: string;
}

const PATTERNS_MAX = 10_000;

/** `file` is the name that errors show. DOCKERFILE_INVALID for a malformed pattern. */
export function parseIgnore(source: string, file = '.dockerignore'): Ignore {
  const rules: Rule[] = [];
  for (const [index, line] of source
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .entries()) {
    const rule = parseRule(line, index + 1, file);
    if (rule) rules.push(rule);
    if (rules.length > PATTERNS_MAX)
      throw new DockerfileError({
        file,
        lines: { start: index + 1, end: index + 1 },
        problem: `more than ${PATTERNS_MAX} patterns`,
        rule: 'ignore directories instead of their files',
      });
  }
  if (rules.length === 0) return IGNORE_NOTHING;
  return ignoreOf(rules);
}

function ignoreOf(rules: readonly Rule[]): Ignore {
  const keeps = rules.filter((rule) => rule.keep);
  // Files of one directory ask about the same parents: what was said of a directory is remembered.
  const said = new Map<string, boolean>();
  const withParents = (path: string): boolean => {
    const known = said.get(path);
    if (known !== undefined) return known;
    const parent = posix.dirname(path);
    const ignored = (parent !== '.' && withParents(parent)) || rules.some((rule) => rule.match.test(path));
    if (said.size < PATTERNS_MAX) said.set(path, ignored);
    return ignored;
  };
  return {
    isIgnored: keeps.length === 0 ? withParents : (path) => lastWord(rules, path),
    mayHoldKept: (directory) => keeps.some((rule) => rule.fixed === '' || overlaps(rule.fixed, directory)),
  };
}

/** Rules in order, each about the path itself or any directory above it. */
function lastWord(rules: readonly Rule[], path: string): boolean {
  const prefixes = prefixesOf(path);
  let ignored = false;
  for (const rule of rules) {
    if (rule.keep === ignored && prefixes.some((prefix) => rule.match.test(prefix))) ignored = !rule.keep;
  }
  return ignored;
}

function prefixesOf(path: string): string[] {
  const parts = path.split('/');
  return parts.map((_, i) => parts.slice(0, i + 1).join('/'));
}

function overlaps(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}

function parseRule(line: string, number: number, file: string): Rule | undefined {
  if (line.startsWith('#')) return undefined;
  const text = line.trim();
  if (text === '') return undefined;
  const keep = text.startsWith('!');
  const written = keep ? text.slice(1).trim() : text;
  const pattern = posix
    .normalize(written)
    .replace(/^\/+(?=.)/, '')
    .replace(/\/+$/, '');
  const match = compileGlob(pattern);
  if (!match || written === '')
    throw new DockerfileError({
      file,
      lines: { start: number, end: number },
      problem: `${line.trim()} is no pattern`,
      rule: 'a [ needs its ], a \\ something after it, a ! a pattern',
    });
  return { keep, match, fixed: fixedPart(pattern) };
}

function fixedPart(pattern: string): string {
  const parts = pattern.split('/');
  const wild = parts.findIndex((part) => /[*?[\\]/.test(part));
  return (wild < 0 ? parts : parts.slice(0, wild)).join('/');
}
