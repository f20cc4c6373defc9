import { BadMountOption } from '#kernel/errors.ts';

// MS_* of mount(2).
export const MS_RDONLY = 0x1n;
export const MS_NOSUID = 0x2n;
export const MS_NODEV = 0x4n;
export const MS_NOEXEC = 0x8n;
export const MS_SYNCHRONOUS = 0x10n;
export const MS_REMOUNT = 0x20n;
export const MS_MANDLOCK = 0x40n;
export const MS_DIRSYNC = 0x80n;
export const MS_NOSYMFOLLOW = 0x100n;
export const MS_NOATIME = 0x400n;
export const MS_NODIRATIME = 0x800n;
export const MS_BIND = 0x1000n;
export const MS_MOVE = 0x2000n;
export const MS_REC = 0x4000n;
export const MS_SILENT = 0x8000n;
export const MS_UNBINDABLE = 0x2_0000n;
export const MS_PRIVATE = 0x4_0000n;
export const MS_SLAVE = 0x8_0000n;
export const MS_SHARED = 0x10_0000n;
export const MS_RELATIME = 0x20_0000n;
export const MS_I_VERSION = 0x80_0000n;
export const MS_STRICTATIME = 0x100_0000n;
export const MS_LAZYTIME = 0x200_0000n;

// MOUNT_ATTR_* of mount_setattr(2). The access time modes are a field (mask _ATIME), not bits: relatime is 0.
export const MOUNT_ATTR_RDONLY = 0x1n;
export const MOUNT_ATTR_NOSUID = 0x2n;
export const MOUNT_ATTR_NODEV = 0x4n;
export const MOUNT_ATTR_NOEXEC = 0x8n;
export const MOUNT_ATTR__ATIME = 0x70n;
export const MOUNT_ATTR_RELATIME = 0x0n;
export const MOUNT_ATTR_NOATIME = 0x10n;
export const MOUNT_ATTR_STRICTATIME = 0x20n;
export const MOUNT_ATTR_NODIRATIME = 0x80n;
export const MOUNT_ATTR_IDMAP = 0x10_0000n;
export const MOUNT_ATTR_NOSYMFOLLOW = 0x20_0000n;

/** What a list of OCI mount options asks for (config.md, "Linux mount options"). */
export interface MountOptions {
  /** MS_* for mount(2); without propagation, MS_BIND and MS_REC, which stand beside. */
  flags: bigint;
  /** MS_* the list switches off by name (`rw`, `suid`): a remount of a bind must not keep them from the source. */
  cleared: bigint;
  bind: 'no' | 'bind' | 'rbind';
  /** MOUNT_ATTR_* that a bind mount gets by mount_setattr(2), from the same words. */
  attrSet: bigint;
  attrClear: bigint;
  /** MOUNT_ATTR_* for the mount and all below it, from `rro`, `rnoexec` … (kernel 5.12). */
  recursiveSet: bigint;
  recursiveClear: bigint;
  /** MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE, each perhaps with MS_REC; in the order written. */
  propagation: readonly bigint[];
  idmap: 'no' | 'idmap' | 'ridmap';
  tmpcopyup: boolean;
  /** What is left for the file system itself, joined by commas. */
  data: string;
}

type Word = { set?: bigint; clear?: bigint; attrSet?: bigint; attrClear?: bigint };

const ATIMES = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

/** Words of mount(8) that mean the same on every file system. `r` + word is the recursive form of those with an attr. */
const WORDS: Readonly<Record<string, Word>> = {
  defaults: {},
  ro: { set: MS_RDONLY, attrSet: MOUNT_ATTR_RDONLY },
  rw: { clear: MS_RDONLY, attrClear: MOUNT_ATTR_RDONLY },
  suid: { clear: MS_NOSUID, attrClear: MOUNT_ATTR_NOSUID },
  nosuid: { set: MS_NOSUID, attrSet: MOUNT_ATTR_NOSUID },
  dev: { clear: MS_NODEV, attrClear: MOUNT_ATTR_NODEV },
  nodev: { set: MS_NODEV, attrSet: MOUNT_ATTR_NODEV },
  exec: { clear: MS_NOEXEC, attrClear: MOUNT_ATTR_NOEXEC },
  noexec: { set: MS_NOEXEC, attrSet: MOUNT_ATTR_NOEXEC },
  symfollow: { clear: MS_NOSYMFOLLOW, attrClear: MOUNT_ATTR_NOSYMFOLLOW },
  nosymfollow: { set: MS_NOSYMFOLLOW, attrSet: MOUNT_ATTR_NOSYMFOLLOW },
  diratime: { clear: MS_NODIRATIME, attrClear: MOUNT_ATTR_NODIRATIME },
  nodiratime: { set: MS_NODIRATIME, attrSet: MOUNT_ATTR_NODIRATIME },
  // The kernel keeps one of three modes. mount_setattr(2) wants the whole field cleared when one is set.
  atime: { clear: MS_NOATIME, attrClear: MOUNT_ATTR__ATIME },
  noatime: { set: MS_NOATIME, clear: ATIMES, attrSet: MOUNT_ATTR_NOATIME, attrClear: MOUNT_ATTR__ATIME },
  relatime: { set: MS_RELATIME, clear: ATIMES, attrSet: MOUNT_ATTR_RELATIME, attrClear: MOUNT_ATTR__ATIME },
  norelatime: { clear: MS_RELATIME, attrClear: MOUNT_ATTR__ATIME },
  strictatime: { set: MS_STRICTATIME, clear: ATIMES, attrSet: MOUNT_ATTR_STRICTATIME, attrClear: MOUNT_ATTR__ATIME },
  nostrictatime: { clear: MS_STRICTATIME, attrClear: MOUNT_ATTR__ATIME },
  // Properties of the file system, which mount_setattr(2) does not know.
  sync: { set: MS_SYNCHRONOUS },
  async: { clear: MS_SYNCHRONOUS },
  dirsync: { set: MS_DIRSYNC },
  mand: { set: MS_MANDLOCK },
  nomand: { clear: MS_MANDLOCK },
  iversion: { set: MS_I_VERSION },
  noiversion: { clear: MS_I_VERSION },
  lazytime: { set: MS_LAZYTIME },
  nolazytime: { clear: MS_LAZYTIME },
  silent: { set: MS_SILENT },
  loud: { clear: MS_SILENT },
  remount: { set: MS_REMOUNT },
};

const PROPAGATION: Readonly<Record<string, bigint>> = {
  shared: MS_SHARED,
  rshared: MS_SHARED | MS_REC,
  private: MS_PRIVATE,
  rprivate: MS_PRIVATE | MS_REC,
  slave: MS_SLAVE,
  rslave: MS_SLAVE | MS_REC,
  unbindable: MS_UNBINDABLE,
  runbindable: MS_UNBINDABLE | MS_REC,
};

/** Later words win over earlier ones. Unknown words go to the file system, as the specification wants. */
export function parseMountOptions(options: readonly string[]): MountOptions {
  const result = {
    flags: 0n,
    cleared: 0n,
    bind: 'no' as MountOptions['bind'],
    attrSet: 0n,
    attrClear: 0n,
    recursiveSet: 0n,
    recursiveClear: 0n,
    propagation: [] as bigint[],
    idmap: 'no' as MountOptions['idmap'],
    tmpcopyup: false,
  };
  const data: string[] = [];
  for (const option of options) {
    const word = own(WORDS, option);
    const recursive = option.startsWith('r') ? own(WORDS, option.slice(1)) : undefined;
    const propagation = own(PROPAGATION, option);
    if (word) apply(result, word);
    else if (propagation !== undefined) result.propagation.push(propagation);
    else if (option === 'bind' || option === 'rbind') result.bind = option;
    else if (option === 'idmap' || option === 'ridmap') result.idmap = option;
    else if (option === 'tmpcopyup') result.tmpcopyup = true;
    else if (recursive && hasAttr(recursive)) applyRecursive(result, recursive);
    else data.push(checked(option));
  }
  return { ...result, data: data.join(',') };
}

function apply(to: { flags: bigint; cleared: bigint; attrSet: bigint; attrClear: bigint }, word: Word): void {
  const { set = 0n, clear = 0n, attrSet = 0n, attrClear = 0n } = word;
  to.flags = (to.flags & ~clear) | set;
  to.cleared = (to.cleared | clear) & ~set;
  to.attrSet = (to.attrSet & ~attrClear) | attrSet;
  // A field is cleared and set in one call; a bit that is set again is not cleared.
  to.attrClear = (to.attrClear & (~attrSet | MOUNT_ATTR__ATIME)) | attrClear;
}

function applyRecursive(to: { recursiveSet: bigint; recursiveClear: bigint }, word: Word): void {
  const { attrSet = 0n, attrClear = 0n } = word;
  to.recursiveSet = (to.recursiveSet & ~attrClear) | attrSet;
  to.recursiveClear = (to.recursiveClear & (~attrSet | MOUNT_ATTR__ATIME)) | attrClear;
}

function hasAttr(word: Word): boolean {
  return word.attrSet !== undefined || word.attrClear !== undefined;
}

function checked(option: string): string {
  if (option.includes('\0')) throw new BadMountOption({ option, rule: 'holds a NUL' });
  return option;
}

/** Object.hasOwn, so that an option called "constructor" is data and nothing else. */
function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

/** Every option word with a meaning of its own, for `features` (features.md, "mountOptions"), sorted. */
export function knownMountOptions(): string[] {
  const recursive = Object.entries(WORDS).filter(([, word]) => hasAttr(word));
  return [
    ...Object.keys(WORDS),
    ...recursive.map(([name]) => `r${name}`),
    ...Object.keys(PROPAGATION),
    'bind',
    'rbind',
    'idmap',
    'ridmap',
    'tmpcopyup',
  ].sort();
}
