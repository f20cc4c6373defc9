import { describe, expect, it } from 'vitest';
import { plainSpec } from '#engine/core/plain-spec.ts';
import { OUR_RUNTIME, Runtimes } from '#engine/core/runtimes.ts';

const gvisor = { name: 'gvisor', path: '/opt/runsc', args: ['--platform=kvm'] };
const there = (...paths: string[]): ((path: string) => boolean) => paths.includes.bind(paths);
const node = (fallback = OUR_RUNTIME): Runtimes =>
  new Runtimes({ named: [gvisor], fallback, searchPath: '.:/bin:/usr/sbin' }, there('/usr/sbin/runc', './crun'));

describe('runtimes of a node', () => {
  it('are ours, those that the daemon was told, and those of known names on PATH', () => {
    expect(node().find(OUR_RUNTIME)).toBeUndefined();
    expect(node().find('gvisor')).toEqual(gvisor);
    expect(node().find('runc')).toEqual({ name: 'runc', path: '/usr/sbin/runc', args: [] });
    expect(
      node()
        .list()
        .map((r) => r.name),
    ).toEqual(['runc', 'gvisor']);
  });

  it('no other program of PATH is one, nor one of a directory that is not absolute', () => {
    const told = {
      code: 'INVALID_ARGUMENT',
      message: 'unknown or invalid runtime name: crun',
      hint: expect.stringContaining('there is estiba, runc, gvisor'),
    };
    expect(() => node().find('crun')).toThrow(expect.objectContaining(told));
    expect(() => new Runtimes({ named: [], fallback: 'x', searchPath: '/bin' }, () => true).find('sh')).toThrow(
      'unknown or invalid runtime name: sh',
    );
  });

  it('one that the daemon was told stands before one of its name on PATH', () => {
    const own = { name: 'runc', path: '/opt/runc', args: [] };
    const both = new Runtimes({ named: [own], fallback: OUR_RUNTIME, searchPath: '/usr/sbin' }, () => true);
    expect(both.find('runc')).toEqual(own);
    expect(both.list().filter((r) => r.name === 'runc')).toEqual([own]);
  });

  it('a container that names none gets the one that the daemon was told, and may name ours', () => {
    expect(node().settle(plainSpec()).runtime).toBeUndefined();
    expect(node('runc').settle(plainSpec()).runtime).toBe('runc');
    expect('runtime' in node('runc').settle(plainSpec({ runtime: OUR_RUNTIME }))).toBe(false);
  });

  it('what only ours does is refused with another', () => {
    const landlocked = plainSpec({ runtime: 'runc', annotations: { 'estiba.landlock.ro': '/usr' } });
    expect(() => node().settle(landlocked)).toThrow('annotation estiba.landlock.ro is not for runtime runc');
    const bind = {
      type: 'bind',
      source: '/s',
      target: '/data',
      readonly: false,
      recursive: true,
      createSource: false,
    } as const;
    const owned = plainSpec({ runtime: 'runc', mounts: [{ ...bind, owner: { uid: 7 } }] });
    expect(() => node().settle(owned)).toThrow('another owner of the files at /data is not for runtime runc');
    expect(() => node().settle({ ...owned, runtime: OUR_RUNTIME })).not.toThrow();
  });
});
