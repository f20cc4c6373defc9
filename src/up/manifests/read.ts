import { LineCounter, parseAllDocuments } from 'yaml';
import { UpInvalid } from '#up/errors.ts';
import type { UpObject } from '#up/objects.ts';

// Aliases may make a small file huge ("billion laughs").
const MAX_ALIASES = 100;

/** The objects of a file of manifests, YAML or JSON, lists unpacked. Each refusal names file and line. */
export function readManifests(text: string, file: string): UpObject[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  if ('empty' in documents) return [];
  return documents.flatMap((document): UpObject[] => {
    const lineAt = (offset: number): string => `${file}:${lines.linePos(offset).line}`;
    const [problem] = document.errors;
    if (problem) throw new UpInvalid({ where: lineAt(problem.pos[0]), problem: problem.message });
    const where = lineAt(document.contents?.range?.[0] ?? 0);
    return objectsOf(toPlain(document, where), where);
  });
}

function toPlain(document: { toJS(options: { maxAliasCount: number }): unknown }, where: string): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    throw new UpInvalid({ where, problem: 'aliases that unfold without end, or to nothing' }, { cause: error });
  }
}

function objectsOf(value: unknown, where: string): UpObject[] {
  if (value === null || value === undefined) return []; // nothing between two `---`
  if (typeof value !== 'object' || Array.isArray(value)) throw new UpInvalid({ where, problem: 'is not an object' });
  const { apiVersion, kind, metadata, items } = value as Record<string, unknown>;
  if (typeof apiVersion !== 'string' || typeof kind !== 'string')
    throw new UpInvalid({ where, problem: 'has no apiVersion and kind, so it is no Kubernetes object' });
  if (kind.endsWith('List') && Array.isArray(items)) return items.flatMap((item) => objectsOf(item, where));
  const name = (metadata as { name?: unknown } | null | undefined)?.name;
  if (typeof name !== 'string' || name === '') {
    const generated = typeof (metadata as { generateName?: unknown } | undefined)?.generateName === 'string';
    const problem = `${kind} has no name`;
    if (!generated) throw new UpInvalid({ where, problem });
    throw new UpInvalid({ where, problem, hint: 'generateName makes another object at every apply: give it a name' });
  }
  return [value as UpObject];
}
