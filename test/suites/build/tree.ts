import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** What a root file system shows, a line a file: type and mode, owner, content or target, and which names are one file. */
export function describeTree(root: string, isNoise: (path: string) => boolean): string[] {
  const lines: string[] = [];
  const first = new Map<string, string>();
  const visit = (path: string): void => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const at = path === '' ? name : `${path}/${name}`;
      if (isNoise(at)) continue;
      const stat = lstatSync(join(root, at));
      const inode = `${stat.dev}:${stat.ino}`;
      const same = !stat.isDirectory() && stat.nlink > 1 ? first.get(inode) : undefined;
      if (same === undefined) first.set(inode, at);
      lines.push(
        `${at} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${same ? `= ${same}` : contentOf(join(root, at), stat)}`,
      );
      if (stat.isDirectory()) visit(at);
    }
  };
  visit('');
  return lines;
}

function contentOf(path: string, stat: ReturnType<typeof lstatSync>): string {
  if (!stat) return '';
  if (stat.isSymbolicLink()) return `-> ${readlinkSync(path)}`;
  if (stat.isFile()) return createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16);
  return stat.isCharacterDevice() || stat.isBlockDevice() ? `device ${stat.rdev}` : '';
}
