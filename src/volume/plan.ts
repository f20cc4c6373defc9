import { isIP } from 'node:net';
import { MS_BIND, MS_REC } from '#kernel/linux/mount-options.ts';
import type { Step } from '#kernel/plan/plan.ts';
import type { MountWish } from '#volume/options.ts';

const MNT_DETACH = 2;

/** How a volume that names something to mount is mounted. Pure; `because` is the volume's name. */
export function planMount(name: string, wish: MountWish, target: string): Step[] {
  const common = { where: 'host' as const, because: `volume ${name}` };
  const undo = [{ op: 'umount' as const, target, flags: MNT_DETACH }];
  const { type, device: source, options: words } = wish;
  const steps: Step[] = [];
  if (words.bind === 'no') {
    steps.push({ ...common, op: 'mount', source, target, type, flags: words.flags, data: words.data, undo });
  } else {
    const flags = MS_BIND | (words.bind === 'rbind' ? MS_REC : 0n);
    steps.push({ ...common, op: 'mount', source, target, type: 'none', flags, data: '', undo });
    // mount(2) ignores all other flags of a bind: they come by mount_setattr(2).
    const { attrSet: set, attrClear: clear, recursiveSet, recursiveClear } = words;
    if (set !== 0n || clear !== 0n)
      steps.push({ ...common, op: 'mountAttr', path: target, recursive: 0, set, clear, propagation: 0n });
    if (recursiveSet !== 0n || recursiveClear !== 0n) {
      const recursive = { set: recursiveSet, clear: recursiveClear, propagation: 0n };
      steps.push({ ...common, op: 'mountAttr', path: target, recursive: 1, ...recursive });
    }
  }
  for (const flags of words.propagation)
    steps.push({ ...common, op: 'mount', source: '', target, type: '', flags, data: '' });
  return steps;
}

/** ext4 in a file. A loop device is taken and given back by the kernel with the mount. */
export function planDisk(name: string, file: string, target: string): Step[] {
  return [
    {
      op: 'mountLoop',
      where: 'host',
      because: `volume ${name}`,
      file,
      target,
      type: 'ext4',
      flags: 0n,
      data: '',
      undo: [{ op: 'umount', target, flags: MNT_DETACH }],
    },
  ];
}

/** `source` names an open directory or file, so that what is bound is what was found. */
export function planSubpath(name: string, source: string, target: string): Step[] {
  const undo = [{ op: 'umount' as const, target, flags: MNT_DETACH }];
  const because = `sub-path of volume ${name}`;
  return [
    { op: 'mount', where: 'host', because, source, target, type: 'none', flags: MS_BIND | MS_REC, data: '', undo },
  ];
}

export function planUnmount(name: string, target: string): Step[] {
  return [{ op: 'umount', where: 'host', because: `volume ${name} is not used any more`, target, flags: MNT_DETACH }];
}

/** The kernel takes addresses alone: `addr=storage.lan` of nfs and `ip=` of cifs are looked up here, as Docker does. */
export async function withAddress(wish: MountWish, lookup: (host: string) => Promise<string>): Promise<MountWish> {
  if (!wish.type.startsWith('nfs') && wish.type !== 'cifs') return wish;
  const words = await Promise.all(
    wish.options.data.split(',').map(async (word) => {
      const host = /^(addr|ip)=(.+)$/.exec(word);
      return host?.[1] && host[2] && isIP(host[2]) === 0 ? `${host[1]}=${await lookup(host[2])}` : word;
    }),
  );
  return { ...wish, options: { ...wish.options, data: words.join(',') } };
}
