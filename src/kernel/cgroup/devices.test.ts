import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEVICE_MKNOD,
  DEVICE_READ,
  DEVICE_WRITE,
  deviceLines,
  deviceProgram,
  plainRules,
} from '#kernel/cgroup/devices.ts';
import type { DeviceRule } from '#kernel/cgroup/resources.ts';

interface Request {
  type: 'c' | 'b';
  major: number;
  minor: number;
  access: number;
}

/** The rules' answer straight from their definition: the last rule that names a device and a kind of access decides it. */
function meaning(rules: readonly DeviceRule[], request: Request): boolean {
  const plain = plainRules(rules).reverse();
  return [DEVICE_MKNOD, DEVICE_READ, DEVICE_WRITE].every((bit) => {
    if (!(request.access & bit)) return true;
    const decides = plain.find(
      (rule) =>
        (rule.type === 'a' || rule.type === request.type) &&
        (rule.major === '*' || rule.major === request.major) &&
        (rule.minor === '*' || rule.minor === request.minor) &&
        rule.access & bit,
    );
    return decides?.allow ?? false;
  });
}

/** Runs the program as the kernel would; the few instructions it is made of. */
function run(program: Uint8Array, request: Request): boolean {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const context = [(request.access << 16) | (request.type === 'b' ? 1 : 2), request.major, request.minor];
  const registers = [0, 0, 0, 0, 0, 0, 0];
  for (let pc = 0; pc < program.length / 8; pc++) {
    const at = pc * 8;
    const [to, from] = [view.getUint8(at + 1) & 15, view.getUint8(at + 1) >> 4];
    const offset = view.getInt16(at + 2, true);
    const immediate = view.getInt32(at + 4, true);
    const value = registers[to] ?? 0;
    switch (view.getUint8(at)) {
      case 0x61:
        registers[to] = context[offset / 4] ?? 0;
        break;
      case 0x54:
        registers[to] = value & immediate;
        break;
      case 0x74:
        registers[to] = value >>> immediate;
        break;
      case 0xbc:
        registers[to] = registers[from] ?? 0;
        break;
      case 0xb7:
        registers[to] = immediate;
        break;
      case 0x55:
        if (value !== immediate) pc += offset;
        break;
      case 0x15:
        if (value === immediate) pc += offset;
        break;
      case 0x95:
        return registers[0] === 1;
    }
  }
  throw new Error('ran off the end');
}

const rule: fc.Arbitrary<DeviceRule> = fc.record(
  {
    allow: fc.boolean(),
    type: fc.constantFrom('a', 'b', 'c'),
    major: fc.constantFrom(-1, 1, 2),
    minor: fc.constantFrom(-1, 3, 4),
    access: fc.constantFrom('r', 'w', 'm', 'rw', 'rwm', 'wm'),
  },
  { requiredKeys: ['allow'] },
);
const request: fc.Arbitrary<Request> = fc.record({
  type: fc.constantFrom('c', 'b'),
  major: fc.constantFrom(1, 2, 9),
  minor: fc.constantFrom(3, 4, 9),
  access: fc.integer({ min: 1, max: 7 }),
});

describe('device rules', () => {
  it('mean the same as an eBPF program', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 12 }), fc.array(request, { minLength: 10 }), (rules, requests) => {
        const program = deviceProgram(rules);
        for (const wanted of requests) expect(run(program, wanted)).toBe(meaning(rules, wanted));
      }),
    );
  });

  it('join what separate rules allow, and take single kinds of access away', () => {
    const disk = { type: 'b', major: 8, minor: 0 } as const;
    const program = deviceProgram([
      { allow: true, ...disk, access: 'r' },
      { allow: true, ...disk, access: 'w' },
      { allow: true, type: 'c', access: 'rwm' },
      { allow: false, type: 'c', major: 5, access: 'm' },
    ]);
    expect(run(program, { ...disk, access: DEVICE_READ | DEVICE_WRITE })).toBe(true);
    expect(run(program, { ...disk, access: DEVICE_MKNOD })).toBe(false);
    expect(run(program, { type: 'c', major: 5, minor: 1, access: DEVICE_READ | DEVICE_WRITE })).toBe(true);
    expect(run(program, { type: 'c', major: 5, minor: 1, access: DEVICE_READ | DEVICE_MKNOD })).toBe(false);
  });

  it('begin with nothing allowed on v1, or with the last rule for everything', () => {
    const values = (rules: DeviceRule[]): string[] => deviceLines(rules).map((l) => `${l.file.slice(8)} ${l.value}`);
    expect(values([{ allow: true, type: 'c', major: 1, minor: 3, access: 'rw' }])).toEqual([
      'deny a',
      'allow c 1:3 rw',
    ]);
    expect(values([{ allow: false }, { allow: true, access: 'rwm' }, { allow: true, type: 'c', access: 'm' }])).toEqual(
      ['allow a'],
    );
    expect(values([{ allow: true, access: 'm' }])).toEqual(['deny a', 'allow c *:* m', 'allow b *:* m']);
    const nodes: DeviceRule = { allow: true, type: 'c', access: 'm' };
    expect(values([nodes, nodes, { allow: false, type: 'c', major: 4 }, nodes])).toEqual([
      'deny a',
      'allow c *:* m',
      'deny c 4:* rwm',
      'allow c *:* m',
    ]);
    expect(values([{ allow: true }, { allow: false, type: 'p' }, { allow: false, type: 'u', major: 4 }])).toEqual([
      'allow a',
      'deny c 4:* rwm',
    ]);
  });
});
