import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Args, parseSyntax, type SyntaxNode } from '#spec/dockerfile/syntax.ts';

// BuildKit's parser cases: a Dockerfile and the dump its own parser prints. `make suites` brings the folder; the path comes in
// BUILDKIT_PARSER (…/frontend/dockerfile/parser).
const cases = process.env['BUILDKIT_PARSER'] ?? '';

describe("BuildKit's parser cases", () => {
  for (const name of folders('testfiles')) {
    it(name, () => {
      const source = readFileSync(join(cases, 'testfiles', name, 'Dockerfile'), 'utf8');
      const expected = readFileSync(join(cases, 'testfiles', name, 'result'), 'utf8');
      expect(`${parseSyntax(source).nodes.map(dumpNode).join('\n')}\n`).toBe(expected);
    });
  }

  for (const name of folders('testfiles-negative')) {
    it(`${name} is refused`, () => {
      const source = readFileSync(join(cases, 'testfiles-negative', name, 'Dockerfile'), 'utf8');
      expect(() => parseSyntax(source)).toThrow();
    });
  }
});

function folders(below: string): string[] {
  if (!existsSync(join(cases, below)))
    throw new Error(`BUILDKIT_PARSER must name BuildKit's frontend/dockerfile/parser, not ${cases}`);
  return readdirSync(join(cases, below));
}

function dumpNode(node: SyntaxNode): string {
  return `(${dumpInner(node)})`;
}

function dumpInner(node: SyntaxNode): string {
  const flags = node.flags.length === 0 ? [] : [`[${node.flags.map(quote).join(' ')}]`];
  return [node.keyword, ...flags, ...dumpArgs(node.args)].join(' ');
}

function dumpArgs(args: Args): string[] {
  switch (args.form) {
    case 'words':
      return args.words.map(quote);
    case 'line':
      return [quote(args.line)];
    case 'pairs':
      return args.pairs.flatMap((p) => [quote(p.key), quote(p.value), quote(p.separator)]);
    case 'typed':
      return [quote(args.type), ...dumpArgs(args.command)];
    case 'nested':
      return [dumpNode(args.node)];
  }
}

/** As Go's strconv.Quote writes a string. */
function quote(text: string): string {
  const named: Record<string, string> = {
    '"': '\\"',
    '\\': '\\\\',
    '\b': '\\b',
    '\f': '\\f',
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
  };
  const body = [...text].map((c) => named[c] ?? (c < ' ' ? `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}` : c));
  return `"${body.join('')}"`;
}
