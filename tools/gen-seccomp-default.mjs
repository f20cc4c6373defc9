// Writes src/kernel/seccomp/docker-default.gen.ts: the rules of Docker's default profile as compact data.
//
//   node tools/gen-seccomp-default.mjs SPECS_DIR      SPECS_DIR holds seccomp/docker-default.json
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const specs = process.argv[2];
if (!specs) throw new Error('usage: node tools/gen-seccomp-default.mjs SPECS_DIR');
const profile = JSON.parse(readFileSync(join(specs, 'seccomp/docker-default.json'), 'utf8'));

const FIELDS = new Set(['names', 'action', 'errnoRet', 'args', 'includes', 'excludes', 'comment']);
const wrap = (words, width) => {
  const lines = [''];
  for (const word of words) {
    if (lines.at(-1).length + word.length >= width) lines.push('');
    lines[lines.length - 1] += (lines.at(-1) === '' ? '' : ' ') + word;
  }
  return lines.join('\n    ');
};
const row = ({ names, comment: _, ...rule }) => {
  for (const field of Object.keys(rule)) if (!FIELDS.has(field)) throw new Error(`unknown field ${field}`);
  return `  [\n    \`${wrap(names, 114)}\`,\n    ${JSON.stringify(rule)},\n  ],\n`;
};

writeFileSync(
  new URL('../src/kernel/seccomp/docker-default.gen.ts', import.meta.url),
  `// Written by tools/gen-seccomp-default.mjs from the facts of moby/profiles seccomp/v0.2.3. Do not edit.
import type { ConditionalRule } from '#kernel/seccomp/docker.ts';

export const DEFAULT_ACTION = ${JSON.stringify({ defaultAction: profile.defaultAction, defaultErrnoRet: profile.defaultErrnoRet })};

export const ARCH_MAP = ${JSON.stringify(profile.archMap.map((a) => ({ architecture: a.architecture, subArchitectures: a.subArchitectures ?? [] })))};

/** Names, and what goes for them. */
export const DEFAULT_RULES: readonly (readonly [names: string, rule: Omit<ConditionalRule, 'names'>])[] = [
${profile.syscalls.map(row).join('')}];
`,
);
