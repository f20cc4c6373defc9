import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  type Node as YamlNode,
} from 'yaml';
import { defineError } from '#base/errors.ts';

/** Where something was written. Lines count from 1. */
export interface Position {
  file: string;
  line: number;
}

export const ComposeInvalid = defineError(
  'COMPOSE_INVALID',
  (d: { file: string; line: number; path: string; rule: string }) => ({
    message: `${d.file}:${d.line}: ${d.path === '' ? '' : `${d.path}: `}${d.rule}`,
  }),
);

export function refuse(at: Position, path: string, rule: string): never {
  throw new ComposeInvalid({ ...at, path, rule });
}

/** `!reset` takes away what earlier files set, `!override` replaces it whole (merge rules, "Reset value", "Replace value"). */
export type MergeTag = 'reset' | 'override';

/** A value that knows where it stands: errors name file and line even after merging, extending and including. */
export type Tree = ScalarTree | ListTree | MapTree;
interface Located {
  at: Position;
  tag?: MergeTag;
}
export interface ScalarTree extends Located {
  is: 'scalar';
  value: string | number | boolean | null;
  /** As written: `1.10` stays `1.10` where a string is wanted. */
  text: string;
}
export interface ListTree extends Located {
  is: 'list';
  items: readonly Tree[];
}
export interface MapTree extends Located {
  is: 'map';
  entries: ReadonlyMap<string, Tree>;
}

// Aliases may make a small file huge ("billion laughs").
const MAX_NODES = 200_000;
const MAX_DEPTH = 100;

/** Parses one YAML document, anchors and `<<` resolved. */
export function parseTree(text: string, file: string): Tree {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false, customTags: TAGS });
  const [problem] = document.errors;
  if (problem) refuse({ file, line: lines.linePos(problem.pos[0]).line }, '', problem.message);
  const nowhere = { file, line: 1 };
  if (!document.contents) return { is: 'map', at: nowhere, entries: new Map() };
  const walk: Walk = { document, file, lines, nodes: 0 };
  return convert(walk, document.contents as YamlNode, 0);
}

const TAGS = ['reset', 'override'].flatMap((name) => [
  { tag: `!${name}`, resolve: (value: string) => value },
  { tag: `!${name}`, collection: 'seq' as const },
  { tag: `!${name}`, collection: 'map' as const },
]);

interface Walk {
  document: Document;
  file: string;
  lines: LineCounter;
  nodes: number;
}

function convert(walk: Walk, node: YamlNode | null, depth: number): Tree {
  const at: Position = { file: walk.file, line: node?.range ? walk.lines.linePos(node.range[0]).line : 1 };
  if (++walk.nodes > MAX_NODES) refuse(at, '', `more than ${MAX_NODES} values`);
  if (depth > MAX_DEPTH) refuse(at, '', `nested deeper than ${MAX_DEPTH} levels`);
  if (node === null) return { is: 'scalar', at, value: null, text: '' };
  if (isAlias(node)) {
    const target = node.resolve(walk.document);
    if (!target) refuse(at, '', `unknown anchor ${node.source}`);
    return convert(walk, target as YamlNode, depth + 1);
  }
  const tag = node.tag === '!reset' ? 'reset' : node.tag === '!override' ? 'override' : undefined;
  const located = { at, ...(tag ? { tag: tag as MergeTag } : {}) };
  if (isSeq(node)) {
    const items = node.items.map((item) => convert(walk, item as YamlNode | null, depth + 1));
    return { is: 'list', ...located, items };
  }
  if (isMap(node)) {
    const entries = new Map<string, Tree>();
    const merged: Tree[] = [];
    for (const { key, value } of node.items) {
      const name = isScalar(key) ? (key.source ?? String(key.value)) : '';
      const tree = convert(walk, value as YamlNode | null, depth + 1);
      if (name === '<<') merged.push(...(tree.is === 'list' ? tree.items : [tree]));
      else entries.set(name, tree);
    }
    // Keys of the map win over merged ones, earlier merges over later ones.
    for (const tree of merged) {
      if (tree.is !== 'map') refuse(tree.at, '<<', 'only mappings can be merged');
      for (const [name, child] of tree.entries) if (!entries.has(name)) entries.set(name, child);
    }
    return { is: 'map', ...located, entries };
  }
  if (!isScalar(node)) return refuse(at, '', 'unsupported YAML');
  const value = node.value;
  const plain = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
  const text = typeof value === 'string' ? value : value === null ? '' : (node.source ?? String(value));
  return { is: 'scalar', ...located, value: plain, text };
}
