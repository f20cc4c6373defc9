import { OPS } from '#kernel/plan/ops.ts';
import type { OpName, Plan } from '#kernel/plan/plan.ts';

/** The operations that one executor has. A shim outlives the build it is of: whoever sends it a plan decides by what it knows. */
export type Vocabulary = ReadonlySet<OpName>;

/** That of this build. */
export const OWN_VOCABULARY: Vocabulary = new Set(Object.keys(OPS) as OpName[]);

/**
 * That of every executor which does not say what it knows: the table of the first shims, and `program`, which is asked only of a shim
 * that has made its container by it. Some know more; what they lack is done in the older way, which does the same. As they would say it.
 */
const FIRST = 'fe7ff0fffffffff0ef3f010c30c001';

/** Few builds, many shims: each vocabulary is held once. */
const SEEN = new Map<string, Vocabulary>();

/** What an executor has told of itself: a bit each operation by its code, bit CODE % 8 of byte CODE / 8. Nothing: `FIRST`. */
export function toldVocabulary(told: Buffer): Vocabulary {
  const bits = told.length === 0 ? FIRST : told.toString('hex');
  const seen = SEEN.get(bits) ?? decode(Buffer.from(bits, 'hex'));
  SEEN.set(bits, seen);
  return seen;
}

function decode(bits: Buffer): Vocabulary {
  const names = [...OWN_VOCABULARY].filter((name) => {
    const { code } = OPS[name];
    return ((bits[code >> 3] ?? 0) >> (code & 7)) & 1;
  });
  return names.length === OWN_VOCABULARY.size ? OWN_VOCABULARY : new Set(names);
}

/** Operations of a plan that an executor does not have. */
export function lacking(plan: Plan, vocabulary: Vocabulary): OpName[] {
  if (vocabulary === OWN_VOCABULARY) return [];
  const names = plan.steps.flatMap(({ op, undo = [] }) => [op, ...undo.map((u) => u.op)]);
  return [...new Set(names)].filter((name) => !vocabulary.has(name));
}
