import { parseSizeBytes } from '#base/units.ts';
import { type MountOptions, parseMountOptions } from '#kernel/linux/mount-options.ts';
import { BadVolumeOption } from '#volume/errors.ts';

/** What a volume's options ask for. */
export interface VolumeKind {
  backing: { kind: 'directory' } | { kind: 'disk'; bytes: number } | { kind: 'mount'; mount: MountWish };
  /** Of the volume's top, when it is made. */
  owner: { uid?: number; gid?: number; mode?: number };
}

export interface MountWish {
  type: string;
  device: string;
  options: MountOptions;
}

/** Docker's, and three of ours: whose the top directory is. */
const KEYS = ['type', 'o', 'device', 'size', 'uid', 'gid', 'mode'];
/** ext4 with a journal needs about this much to be worth its name. */
const DISK_MIN_BYTES = 4 * 1024 * 1024;

/**
 * Options of the local driver, as `docker volume create -o` takes them:
 *
 *     (none)                                   a directory
 *     size=64M                                 an ext4 image of that size: who writes more gets ENOSPC, the host does not notice
 *     type=tmpfs device=tmpfs o=size=64M       memory, from the first container's start to the last one's end
 *     type=none device=/srv/data o=bind        a directory of the host
 *     type=nfs device=:/export o=addr=10.0.0.1 whatever mount(2) takes
 *     uid=33 gid=33 mode=750                   owner and mode of the top directory
 */
export function parseVolumeOptions(name: string, options: Readonly<Record<string, string>>): VolumeKind {
  const bad = (option: string, rule: string): never => {
    throw new BadVolumeOption({ name, option, rule });
  };
  for (const key of Object.keys(options)) if (!KEYS.includes(key)) bad(key, 'invalid option');
  const { type, device, size } = options;
  if (type !== undefined && device === undefined) bad('device', 'missing required option');
  if (device !== undefined && type === undefined) bad('type', 'missing required option');
  if (options['o'] !== undefined && type === undefined) bad('type', 'missing required option');
  const bytes = size === undefined ? undefined : (parseSizeBytes(size) ?? bad(size, 'invalid size'));
  const owner = {
    ...(options['uid'] === undefined
      ? {}
      : { uid: number(options['uid'], /^\d{1,10}$/, 10) ?? bad('uid', 'not an id') }),
    ...(options['gid'] === undefined
      ? {}
      : { gid: number(options['gid'], /^\d{1,10}$/, 10) ?? bad('gid', 'not an id') }),
    ...(options['mode'] === undefined
      ? {}
      : { mode: number(options['mode'], /^[0-7]{3,4}$/, 8) ?? bad('mode', 'not an octal mode') }),
  };
  if (type === undefined || device === undefined) {
    if (bytes === undefined) return { backing: { kind: 'directory' }, owner };
    if (bytes < DISK_MIN_BYTES) bad(size ?? '', `a sized volume has at least ${DISK_MIN_BYTES} bytes`);
    return { backing: { kind: 'disk', bytes }, owner };
  }
  if (bytes !== undefined && type !== 'tmpfs') bad('size', `a mount of type ${type} has the size of its device`);
  const words = (options['o'] ?? '').split(',').filter(Boolean);
  const parsed = parseMountOptions(bytes === undefined ? words : [...words, `size=${bytes}`]);
  if (parsed.idmap !== 'no' || parsed.tmpcopyup)
    bad(options['o'] ?? '', 'idmap and tmpcopyup are options of a mount in a container');
  if ((type === 'none' || type === 'bind') && parsed.bind === 'no')
    bad(options['o'] ?? '', 'type none needs o=bind or o=rbind');
  return { backing: { kind: 'mount', mount: { type, device, options: parsed } }, owner };
}

function number(text: string, form: RegExp, radix: number): number | undefined {
  return form.test(text) ? Number.parseInt(text, radix) : undefined;
}
