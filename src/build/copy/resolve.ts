import { posix } from 'node:path';
import type { FileInfo, SourceTree } from '#build/context/tree.ts';
import { TooManyLinks } from '#build/errors.ts';

/** Linux's own bound (path_resolution(7)). */
const LINKS_MAX = 40;

export interface Resolved {
  /** Inside the tree, without a link in it as far as it exists. */
  path: string;
  /** Undefined: there is no such file. */
  info: FileInfo | undefined;
}

/**
 * What a path means inside a tree: links are followed as if the tree were the whole file system, so that none leads out, and
 * `..` at the top stays there. `last: 'keep'` does not follow the last name.
 */
export async function resolveIn(tree: SourceTree, path: string, last: 'follow' | 'keep' = 'follow'): Promise<Resolved> {
  const pending = partsOf(path).reverse();
  const done: string[] = [];
  let links = 0;
  let info = await tree.lstat('');
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    if (part === '..') {
      done.pop();
      info = await tree.lstat(done.join('/'));
      continue;
    }
    if (info?.type !== 'dir') return { path: join([...done, part, ...pending.reverse()]), info: undefined };
    const at = join([...done, part]);
    const next = await tree.lstat(at);
    if (next?.type === 'symlink' && (pending.length > 0 || last === 'follow')) {
      if (++links > LINKS_MAX) throw new TooManyLinks({ path, where: tree.what });
      if (next.linkTarget.startsWith('/')) done.length = 0;
      pending.push(...partsOf(next.linkTarget).reverse());
      info = await tree.lstat(join(done));
      continue;
    }
    done.push(part);
    info = next;
    if (!info) return { path: join([...done, ...pending.reverse()]), info: undefined };
  }
  return { path: join(done), info };
}

/** A text file of the tree; `''` when there is none. */
export async function readText(tree: SourceTree, path: string, maxBytes: number): Promise<string> {
  const found = await resolveIn(tree, path);
  if (found.info?.type !== 'file') return '';
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of tree.open(found.path)) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxBytes) break;
  }
  return Buffer.concat(chunks).subarray(0, maxBytes).toString();
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

function join(parts: string[]): string {
  return posix.normalize(`/${parts.join('/')}`).slice(1);
}
