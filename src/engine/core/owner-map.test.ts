import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { swapIds } from '#engine/core/owner-map.ts';
import { checkIdMap, toContainerId, toHostId } from '#kernel/idmap.ts';

const id = fc.integer({ min: 0, max: 0xffff_fffd });

describe('the ids of a mount with an owner', () => {
  it('change places and leave all others as they are, in a map that the kernel takes', () => {
    fc.assert(
      fc.property(id, id, id, (outside, inside, other) => {
        const map = swapIds(outside, inside);
        checkIdMap(map, '$');
        expect(toHostId(map, outside)).toBe(inside);
        expect(toHostId(map, inside)).toBe(outside);
        if (other !== outside && other !== inside) expect(toHostId(map, other)).toBe(other);
        expect(toContainerId(map, toHostId(map, other) ?? -1)).toBe(other); // nobody is lost on the way back
      }),
    );
  });
});
