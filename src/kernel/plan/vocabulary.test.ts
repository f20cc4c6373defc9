import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { OPS } from '#kernel/plan/ops.ts';
import type { OpName, Plan } from '#kernel/plan/plan.ts';
import { lacking, OWN_VOCABULARY, toldVocabulary } from '#kernel/plan/vocabulary.ts';

const NOTHING = Buffer.alloc(0);

/** As native/wire.c tells it. */
function bits(names: Iterable<OpName>): Buffer {
  const out = Buffer.alloc((Math.max(...Object.values(OPS).map(({ code }) => code)) >> 3) + 1);
  for (const name of names) {
    const { code } = OPS[name];
    out.writeUInt8(out.readUInt8(code >> 3) | (1 << (code & 7)), code >> 3);
  }
  return out;
}

/** As `native/ops.gen.h` has a row: code, name, a letter an argument. */
function rows(): string[] {
  const letters = { str: 's', strs: 'S', u32: 'u', u64: 'U', u32s: 'V', bytes: 'b', slot: 'f' };
  return Object.entries(OPS).map(([name, { code, args }]) =>
    `${code} ${name} ${Object.values(args)
      .map((kind) => letters[kind])
      .join('')}`.trim(),
  );
}

it('no row changes: a shim of an older build would be told something else by it; what is new is a row of its own', () => {
  const ever = readFileSync(new URL('./case/rows.txt', import.meta.url), 'utf8')
    .trim()
    .split('\n');
  expect(rows()).toEqual(expect.arrayContaining(ever));
});

describe('what an executor knows', () => {
  it('is this build’s own when it says so, and held once however many say so', () => {
    expect(toldVocabulary(bits(OWN_VOCABULARY))).toBe(OWN_VOCABULARY);
    const fewer = [...OWN_VOCABULARY].filter((name) => name !== 'enterProcess');
    expect([...toldVocabulary(bits(fewer))]).toEqual(fewer);
    expect(toldVocabulary(bits(fewer))).toBe(toldVocabulary(bits(fewer)));
  });

  it('of one that says nothing is what the first shims knew', () => {
    const knows = toldVocabulary(NOTHING);
    expect(knows.size).toBe(75);
    const later = ['chroot', 'dumpXattrs', 'enterProcess', 'mountLoop', 'openProcess', 'setTime', 'setXattr'] as const;
    expect(later.filter((name) => knows.has(name))).toEqual([]);
  });

  it('of a later build may be more than we have names for', () => {
    expect(toldVocabulary(Buffer.concat([bits(OWN_VOCABULARY), Buffer.from([0xff, 0xff])]))).toBe(OWN_VOCABULARY);
  });

  it('tells which steps of a plan it cannot do, undos among them, each operation once', () => {
    const step = { op: 'enterProcess', slot: 0, pid: 1, types: 0, where: 'host', because: 'test' } as const;
    const undo = [{ op: 'setTime', path: '/', seconds: 0n, nanoseconds: 0 } as const];
    const plan: Plan = { steps: [step, { ...step, undo }, { op: 'setsid', where: 'host', because: 'test' }] };
    expect(lacking(plan, toldVocabulary(NOTHING))).toEqual(['enterProcess', 'setTime']);
    expect(lacking(plan, OWN_VOCABULARY)).toEqual([]);
  });
});
