import { describe, expect, it } from 'vitest';
import { MS_NOEXEC, MS_RDONLY } from '#kernel/linux/mount-options.ts';
import { type MountWish, parseVolumeOptions } from '#volume/options.ts';
import { planMount, withAddress } from '#volume/plan.ts';

const mountOf = (options: Record<string, string>): MountWish => {
  const { backing } = parseVolumeOptions('v', options);
  if (backing.kind !== 'mount') throw new Error('no mount');
  return backing.mount;
};
const steps = (options: Record<string, string>) =>
  planMount('v', mountOf(options), '/t').map(({ where: _, because: __, undo: ___, ...step }) => step);

describe('options of the local driver', () => {
  it.each([
    [{}, { backing: { kind: 'directory' }, owner: {} }],
    [{ size: '64M' }, { backing: { kind: 'disk', bytes: 64 << 20 }, owner: {} }],
    [
      { uid: '33', gid: '34', mode: '0750' },
      { backing: { kind: 'directory' }, owner: { uid: 33, gid: 34, mode: 0o750 } },
    ],
  ])('%j', (options, kind) => {
    expect(parseVolumeOptions('v', options)).toEqual(kind);
  });

  it('of a mount become steps, each as the kernel takes it', () => {
    expect(steps({ type: 'tmpfs', device: 'tmpfs', o: 'noexec,uid=7', size: '1m' })).toEqual([
      { op: 'mount', source: 'tmpfs', target: '/t', type: 'tmpfs', flags: MS_NOEXEC, data: 'uid=7,size=1048576' },
    ]);
    expect(steps({ type: 'ext4', device: '/dev/x', o: 'ro' })[0]).toMatchObject({ flags: MS_RDONLY, data: '' });
    const bind = steps({ type: 'none', device: '/srv', o: 'bind,ro,rslave' });
    expect(bind.map((step) => step.op)).toEqual(['mount', 'mountAttr', 'mount']);
    expect(bind[1]).toMatchObject({ set: 1n, recursive: 0 }); // mount(2) would ignore it beside MS_BIND
  });

  it.each([
    [{ colour: 'red' }, 'create v: invalid option: "colour"'],
    [{ type: 'nfs' }, 'create v: missing required option: "device"'],
    [{ device: '/srv' }, 'create v: missing required option: "type"'],
    [{ size: 'big' }, 'create v: invalid size: "big"'],
    [{ size: '1k' }, 'a sized volume has at least'],
    [{ size: '64M', type: 'none', device: '/srv', o: 'bind' }, 'a mount of type none has the size of its device'],
    [{ type: 'none', device: '/srv' }, 'type none needs o=bind or o=rbind'],
    [{ uid: 'root' }, 'create v: not an id: "uid"'],
    [{ mode: '999' }, 'create v: not an octal mode: "mode"'],
  ])('%j is refused', (options, message) => {
    expect(() => parseVolumeOptions('v', options)).toThrow(message);
  });

  it('of network file systems carry addresses, since the kernel knows no names', async () => {
    const lookup = async (host: string): Promise<string> => (host === 'nas.lan' ? '10.0.0.9' : 'unasked');
    const data = async (options: Record<string, string>): Promise<string> =>
      (await withAddress(mountOf(options), lookup)).options.data;
    expect(await data({ type: 'nfs', device: ':/x', o: 'addr=nas.lan,rw' })).toBe('addr=10.0.0.9');
    expect(await data({ type: 'nfs4', device: ':/x', o: 'addr=10.0.0.1,nfsvers=4' })).toBe('addr=10.0.0.1,nfsvers=4');
    expect(await data({ type: 'cifs', device: '//nas/x', o: 'ip=nas.lan,username=u' })).toBe('ip=10.0.0.9,username=u');
  });
});
