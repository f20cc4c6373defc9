import { describe, expect, it } from 'vitest';
import { ID_RANGE_SIZE, idsOf, withOwnIds } from '#engine/core/id-ranges.ts';
import { plainSpec } from '#engine/core/plain-spec.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { composeIdMaps } from '#kernel/idmap.ts';

const FIRST = 0x7000_0000;

/** `first`: the range that is asked for. */
function wish(name: string, first?: number): { name: string; spec: ContainerSpec } {
  const mappings = first === undefined ? [] : [{ containerId: 0, hostId: first, size: ID_RANGE_SIZE }];
  const spec = plainSpec();
  return { name, spec: { ...spec, namespaces: { ...spec.namespaces, user: { kind: 'private', mappings } } } };
}

const firstOf = ({ spec }: { spec: ContainerSpec }): number | undefined => idsOf(spec)?.[0]?.hostID;

describe('ranges of ids', () => {
  it('each container has one of its own, the lowest that is free', () => {
    const made: { name: string; spec: ContainerSpec }[] = [];
    for (const name of ['a', 'b', 'c']) made.push(withOwnIds(wish(name), () => made));
    expect(made.map(firstOf)).toEqual([0, 1, 2].map((n) => FIRST + n * ID_RANGE_SIZE));
    made.splice(1, 1);
    expect(firstOf(withOwnIds(wish('d'), () => made))).toBe(FIRST + ID_RANGE_SIZE);
  });

  it('one that is named must be free, and is passed by when others are chosen', () => {
    const named = withOwnIds(wish('named', FIRST + 5), () => []);
    expect(firstOf(withOwnIds(wish('next'), () => [named]))).toBe(FIRST + 2 * ID_RANGE_SIZE);
    const overlapping = wish('late', FIRST + 65_540);
    expect(() => withOwnIds(overlapping, () => [named])).toThrow(/overlap with those of container named/);
  });

  it('the last range is given, and then there is none', () => {
    const last = 4094;
    const made = Array.from({ length: last - 1 }, (_, n) => wish(`c${n}`, FIRST + n * ID_RANGE_SIZE));
    const end = withOwnIds(wish('end'), () => made);
    expect(firstOf(end)).toBe(FIRST + (last - 1) * ID_RANGE_SIZE);
    expect(() => withOwnIds(wish('over'), () => [...made, end])).toThrow(/all ranges of ids/);
  });

  it('a container without a wish looks at nobody else', () => {
    const plain = { name: 'plain', spec: plainSpec() };
    expect(withOwnIds(plain, () => expect.unreachable())).toBe(plain);
  });
});

describe('maps over maps', () => {
  const own = [{ containerID: 0, hostID: 100_000, size: 65_536 }];

  it('what leads to an id inside leads to what that is outside, and beyond the last to nothing', () => {
    const swapped = [
      { containerID: 0, hostID: 1000, size: 1 },
      { containerID: 1000, hostID: 0, size: 1 },
      { containerID: 65_000, hostID: 65_000, size: 1000 },
    ];
    expect(composeIdMaps(swapped, own)).toEqual([
      { containerID: 0, hostID: 101_000, size: 1 },
      { containerID: 1000, hostID: 100_000, size: 1 },
      { containerID: 65_000, hostID: 165_000, size: 536 },
    ]);
  });
});
