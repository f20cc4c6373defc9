import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkIdMap,
  formatIdMap,
  parseIdMap,
  rootlessIdMap,
  subordinateIds,
  toContainerId,
  toHostId,
} from '#kernel/idmap.ts';
import { landlockAbi, landlockOp } from '#kernel/landlock.ts';
import { overlayData, overlayMount } from '#kernel/overlay.ts';

describe('id maps', () => {
  const map = [
    { containerID: 0, hostID: 1000, size: 1 },
    { containerID: 1, hostID: 100_000, size: 65_535 },
  ];

  it('translate both ways, and leave what is not mapped', () => {
    expect([0, 1, 65_535].map((id) => toHostId(map, id))).toEqual([1000, 100_000, 165_534]);
    expect([toHostId(map, 65_536), toContainerId(map, 0)]).toEqual([undefined, undefined]);
    fc.assert(
      fc.property(fc.nat(65_535), (id) => {
        expect(toContainerId(map, toHostId(map, id) ?? -1)).toBe(id);
      }),
    );
    expect(parseIdMap(new TextDecoder().decode(formatIdMap(map)))).toEqual(map);
    expect(parseIdMap('         0          0 4294967295\n')).toEqual([{ containerID: 0, hostID: 0, size: 4294967295 }]);
  });

  it('are refused by path where the kernel would say EINVAL', () => {
    const check =
      (...lines: [number, number, number][]) =>
      () =>
        checkIdMap(
          lines.map(([containerID, hostID, size]) => ({ containerID, hostID, size })),
          '$.linux.uidMappings',
        );
    expect(check([0, 0, 0])).toThrow('$.linux.uidMappings[0].size: 0 maps nothing');
    expect(check([0, 1000, 10], [5, 2000, 10])).toThrow('[1].containerID: overlaps with $.linux.uidMappings[0]');
    expect(check([0, 1000, 10], [50, 1005, 10])).toThrow('[1].hostID: overlaps');
    expect(check([0, 4294967290, 10])).toThrow('beyond the last id');
    expect(check([0, 0, 4294967295])).not.toThrow();
  });

  it('of a rootless user come from subuid(5)', () => {
    const ranges = subordinateIds('root:1:2\nme:100000:65536\n1000:200000:10\nother:3:4\n', { name: 'me', id: 1000 });
    expect(rootlessIdMap(1000, ranges)).toEqual([
      { containerID: 0, hostID: 1000, size: 1 },
      { containerID: 1, hostID: 100_000, size: 65_536 },
      { containerID: 65_537, hostID: 200_000, size: 10 },
    ]);
  });
});

describe('Landlock annotations', () => {
  it('become a ruleset that handles what the kernel knows', () => {
    const op = landlockOp({ 'estiba.landlock.rx': '/usr:/lib', 'estiba.landlock.rw': '/tmp', other: 'x' }, 7);
    expect(op?.paths).toEqual(['/usr', '/lib', '/tmp']);
    expect(op?.access).toEqual([0b1101, 0b1101, 0xfffe]);
    expect(op?.attr.length).toBe(24);
    expect(landlockOp({ 'estiba.landlock.ro': '/' }, 1)?.attr).toEqual(new Uint8Array([0xff, 0x1f, 0, 0, 0, 0, 0, 0]));
    expect(landlockOp({ 'estiba.landlock.scope': 'signal' }, 6)?.attr[16]).toBe(2);
    expect(landlockOp({ 'estiba.landlock.scope': 'signal' }, 6)?.attr[0]).toBe(0);
    expect(landlockOp({ other: 'x' }, 0)).toBeUndefined();
  });

  it('are refused where they cannot hold', () => {
    const refuse = (key: string, value: string, abi: number) => () =>
      landlockOp({ [`estiba.landlock.${key}`]: value }, abi);
    expect(refuse('ro', '/', 0)).toThrow(
      '$.annotations["estiba.landlock.ro"]: "/" asks for Landlock, which this kernel has not',
    );
    expect(refuse('scope', 'signal', 5)).toThrow('asks for a scope');
    expect(refuse('scope', 'all', 6)).toThrow('names no scope with all');
    expect(refuse('wx', '/', 6)).toThrow('is for no kind of access');
    expect(refuse('ro', 'etc', 6)).toThrow('relative path, etc');
  });

  it('know the ABI of a kernel', () => {
    expect(['5.10.0', '5.13.1', '6.1.0-18', '6.18.44'].map((release) => landlockAbi(release))).toEqual([0, 1, 2, 7]);
    expect(landlockAbi('6.18', 'capability,yama\n')).toBe(0);
    expect(landlockAbi('6.18', 'capability,landlock\n')).toBe(7);
  });
});

describe('overlay options', () => {
  const overlay = { target: '/m', lower: ['/l/a', '/l/b:c,d\\e'], upper: '/u,v', work: '/w' };

  it('escape what would end a path', () => {
    expect(overlayData(overlay)).toBe('lowerdir=/l/a:/l/b\\:c\\,d\\\\e,upperdir=/u\\,v,workdir=/w');
  });

  it('go one by one where the kernel takes them so', () => {
    expect(overlayMount(overlay, '6.8.0')).toEqual({
      op: 'fsMount',
      target: '/m',
      type: 'overlay',
      options: ['lowerdir+=/l/a', 'lowerdir+=/l/b:c,d\\e', 'upperdir=/u,v', 'workdir=/w'],
      attr: 0n,
    });
    expect(overlayMount(overlay, '6.1.0').op).toBe('mount');
  });

  it('are refused when they cannot be mounted', () => {
    const many = Array.from({ length: 100 }, (_x, i) => `/var/lib/estiba/layers/sha256/${i}/tree/of/files`);
    expect(() => overlayMount({ ...overlay, lower: many }, '5.15.0')).toThrow('mount(2) takes one page');
    expect(overlayMount({ ...overlay, lower: many }, '6.18.0').op).toBe('fsMount');
    expect(() => overlayMount({ target: '/m', lower: [] }, '6.8')).toThrow('at least one layer');
    expect(() => overlayMount({ target: '/m', lower: ['/a'] }, '6.8')).toThrow('bind mount');
    expect(() => overlayMount({ target: '/m', lower: ['/a', 'b'] }, '6.8')).toThrow('"b" is not absolute');
    expect(() => overlayMount({ target: '/m', lower: ['/a'], upper: '/u' }, '6.8')).toThrow('belong together');
  });
});
