import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { byBytes, type FileInfo, type SourceTree } from '#build/context/tree.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { CopyPatternInvalid, CopySourceMissing } from '#build/errors.ts';
import { compileGlob, hasWildcard } from '#spec/dockerfile/glob.ts';
import { parseIgnore } from '#spec/dockerfile/ignore.ts';
import { nearest } from '#spec/dockerfile/syntax.ts';

/** One source of a COPY: a file, or a directory whose contents are taken. */
export interface Selection {
  tree: SourceTree;
  /** In the tree, without links. */
  path: string;
  info: FileInfo;
  /** What it is called where it goes: the last name as written, or with `--parents` the directories before it as well. */
  name: string;
  /** Files that it brings, below `path`: `''` is itself. */
  files: { path: string; info: FileInfo }[];
  /** ADD takes archives apart. */
  unpack: boolean;
  /** It describes the directory that its files go into, if that is made for them: an archive's own `./`, as tar has it. */
  describes?: boolean;
}

export interface SelectOptions {
  parents: boolean;
  excludes: readonly string[];
  unpack: boolean;
}

const SUGGESTIONS_MAX = 2_000;
const FILES_A_TURN = 500;

/**
 * What a source of COPY or ADD names in a tree: wildcards matched, links of the path followed inside the tree, what is excluded left
 * out. COPY_SOURCE_MISSING names the near ones.
 */
export async function select(tree: SourceTree, written: string, options: SelectOptions): Promise<Selection[]> {
  const excluded = excluder(options.excludes);
  // `..` at the top stays at the top: nothing outside of a context has a name.
  const clean = posix.resolve('/', written).slice(1);
  const paths = hasWildcard(clean) ? await matches(tree, clean, options.parents) : [clean];
  const selections: Selection[] = [];
  for (const path of paths) {
    const found = await resolveIn(tree, path);
    if (!found.info) {
      if (hasWildcard(clean)) continue; // a link that leads nowhere
      throw await missing(tree, written, path);
    }
    const { info } = found;
    if (info.type !== 'dir' && excluded(posix.basename(path), path)) continue;
    const files = info.type === 'dir' ? await filesBelow(tree, found.path, excluded) : [{ path: '', info }];
    const name = options.parents ? afterPivot(written, path) : posix.basename(path);
    selections.push({ tree, path: found.path, info, name, files, unpack: options.unpack });
  }
  if (selections.length === 0 && paths.length === 0) throw await missing(tree, written, clean);
  return selections;
}

/** The cache key's part: what is taken, under which names, with which bytes, modes and owners; not when it changed. */
export async function selectionKey(selections: readonly Selection[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { tree, path, name, files } of selections) {
    hash.update(`source ${name}\n`);
    for (const file of files) {
      const { info } = file;
      const bytes = info.type === 'file' ? await tree.contentKey(below(path, file.path)) : info.linkTarget;
      hash.update(`${file.path}\0${info.type}\0${info.mode}\0${info.uid}:${info.gid}\0${bytes}\0`);
      if (info.type === 'char' || info.type === 'block') hash.update(`${info.deviceMajor}:${info.deviceMinor}\0`);
      for (const [key, value] of info.xattrs ?? []) hash.update(`${key}=`).update(value).update('\0');
      hash.update('\n');
    }
  }
  return hash.digest('hex');
}

export function below(directory: string, path: string): string {
  return path === '' ? directory : directory === '' ? path : `${directory}/${path}`;
}

type Excluded = (relative: string, whole: string) => boolean;

function excluder(patterns: readonly string[]): Excluded {
  if (patterns.length === 0) return () => false;
  const ignore = parseIgnore(patterns.join('\n'), '--exclude');
  return (relative, whole) => ignore.isIgnored(relative) || ignore.isIgnored(whole);
}

async function filesBelow(tree: SourceTree, root: string, excluded: Excluded): Promise<Selection['files']> {
  const files: Selection['files'] = [];
  const pending = [''];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const info = await tree.lstat(below(root, at));
    if (!info || (at !== '' && excluded(at, below(root, at)))) continue;
    files.push({ path: at, info });
    // Trees answer at once: others want a turn in between.
    if (files.length % FILES_A_TURN === 0) await new Promise((go) => setImmediate(go));
    if (info.type !== 'dir') continue;
    const names = await tree.list(below(root, at));
    for (const name of [...names].reverse()) pending.push(at === '' ? name : `${at}/${name}`);
  }
  return files;
}

/** Paths that match, name by name; `**` goes through directories only with `--parents`, else it is a plain `*`. */
async function matches(tree: SourceTree, pattern: string, deep: boolean): Promise<string[]> {
  const parts = pattern.split('/');
  const found = new Set<string>();
  const follow = async (at: string, index: number): Promise<void> => {
    const part = parts[index];
    if (part === undefined) {
      found.add(at);
      return;
    }
    if (deep && part === '**') {
      await follow(at, index + 1);
      for (const name of await directoryNames(tree, at)) {
        const next = below(at, name);
        if ((await tree.lstat(next))?.type === 'dir') await follow(next, index);
        else if (index === parts.length - 1) found.add(next);
      }
      return;
    }
    if (!hasWildcard(part))
      return (await exists(tree, below(at, part))) ? follow(below(at, part), index + 1) : undefined;
    const match = compileGlob(part);
    if (!match) throw new CopyPatternInvalid({ pattern });
    for (const name of await directoryNames(tree, at)) if (match.test(name)) await follow(below(at, name), index + 1);
  };
  await follow('', 0);
  return [...found].filter((path) => path !== '').sort(byBytes);
}

async function directoryNames(tree: SourceTree, path: string): Promise<string[]> {
  const { path: real, info } = await resolveIn(tree, path);
  return info?.type === 'dir' ? tree.list(real) : [];
}

async function exists(tree: SourceTree, path: string): Promise<boolean> {
  return (await resolveIn(tree, path, 'keep')).info !== undefined;
}

/** With `--parents`, directories before `/./` are left away; without it all of them are kept. */
function afterPivot(written: string, path: string): string {
  const pivot = written.replace(/^\.?\/+/, '').indexOf('/./');
  if (pivot < 0) return path;
  const before = posix
    .resolve('/', written.replace(/^\.?\/+/, '').slice(0, pivot))
    .slice(1)
    .split('/').length;
  return path.split('/').slice(before).join('/');
}

async function missing(tree: SourceTree, written: string, path: string): Promise<Error> {
  const names = (await directoryNames(tree, posix.dirname(path).replace(/^\.$/, ''))).slice(0, SUGGESTIONS_MAX);
  const wanted = posix.basename(path);
  const near = names.find((name) => name.toLowerCase() === wanted.toLowerCase()) ?? nearest(wanted, names);
  return new CopySourceMissing({ source: written, where: tree.what, ...(near === undefined ? {} : { near }) });
}
