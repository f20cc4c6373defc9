/** A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export interface Mount {
  id: number;
  parentId: number;
  major: number;
  minor: number;
  /** The directory of the file system that forms the top of this mount. */
  root: string;
  mountPoint: string;
  /** Per mount: rw, nosuid … */
  options: string;
  /** `shared:N`, `master:N`, `propagate_from:N`, `unbindable`. */
  propagation: readonly string[];
  fsType: string;
  source: string;
  /** Per superblock. */
  superOptions: string;
}

/** Lines in the kernel's order: a later mount on the same point covers the earlier one. Malformed lines are left out. */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const dash = line.indexOf(' - ');
    if (dash < 0) continue;
    const [id, parentId, device = '', root = '', mountPoint = '', options = '', ...propagation] = line
      .slice(0, dash)
      .split(' ');
    const [fsType = '', source = '', superOptions = ''] = line.slice(dash + 3).split(' ');
    const [major, minor] = device.split(':').map(Number);
    mounts.push({
      id: Number(id),
      parentId: Number(parentId),
      major: major ?? 0,
      minor: minor ?? 0,
      root: unescapeOctal(root),
      mountPoint: unescapeOctal(mountPoint),
      options,
      propagation: propagation.filter((word) => word !== ''),
      fsType: unescapeOctal(fsType),
      source: unescapeOctal(source),
      superOptions: unescapeOctal(superOptions),
    });
  }
  return mounts;
}

/** The kernel writes space, tab, newline and backslash as \ooo, byte by byte. */
function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The mount that covers `path`, i.e. the last of those with the longest mount point above it. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let best: Mount | undefined;
  for (const mount of mounts) {
    const covers = mount.mountPoint === '/' || path === mount.mountPoint || path.startsWith(`${mount.mountPoint}/`);
    if (covers && (!best || mount.mountPoint.length >= best.mountPoint.length)) best = mount;
  }
  return best;
}
