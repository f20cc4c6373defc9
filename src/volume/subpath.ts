import { type FileHandle, mkdir, writeFile } from 'node:fs/promises';
import { errnoOf, isCode } from '#base/errors.ts';
import { OpenDir, openBeneath, openFile, withPlace } from '#kernel/beneath.ts';
import { BadSubpath } from '#volume/errors.ts';

export interface Subpath {
  /** For a plan; names what was found, wherever it has been moved since, while it is held. */
  path: string;
  /** A mount point of its kind. */
  makeTarget(path: string): Promise<void>;
  close(): Promise<void>;
}

/**
 * Finds a sub-path of a volume. Links inside are followed inside: another container of the same volume may have put them there. `make`: a
 * missing one becomes a directory, with that mode.
 */
export async function openSubpath(
  volume: string,
  data: string,
  subpath: string,
  how: { make?: number } = {},
): Promise<Subpath> {
  const bad = (rule: string, cause?: unknown): BadSubpathError =>
    new BadSubpath({ volume, subpath, rule }, cause === undefined ? {} : { cause });
  if (subpath.startsWith('/')) throw bad('must be relative to the volume');
  if (subpath.split('/').includes('..')) throw bad('must not hold ..');
  try {
    return await withPlace({ directory: data }, subpath, { follow: true }, async ({ stat, access, parent }) => {
      if (!stat && how.make !== undefined) return made(data, subpath, how.make);
      if (!stat) throw bad('is not in the volume');
      if (stat.isDirectory()) {
        const directory = parent ? await parent.directory.child(parent.name) : await OpenDir.open(access);
        return { path: directory.outside(), makeTarget: (path) => mkdirOnce(path), close: () => directory.close() };
      }
      const file = await openFile(access);
      if (!file) throw bad('is neither a directory nor a file');
      return fileSubpath(file);
    });
  } catch (error) {
    if (isCode(error, 'PATH_NOT_BENEATH')) {
      if (how.make !== undefined && error.data['why'] === 'not found') return made(data, subpath, how.make);
      throw bad('cannot be reached', error);
    }
    throw error;
  }
}

async function made(data: string, subpath: string, make: number): Promise<Subpath> {
  const { directory } = await openBeneath({ directory: data }, subpath, { make });
  return { path: directory.outside(), makeTarget: (path) => mkdirOnce(path), close: () => directory.close() };
}

type BadSubpathError = InstanceType<typeof BadSubpath>;

function fileSubpath(file: FileHandle): Subpath {
  return {
    path: `/proc/${process.pid}/fd/${file.fd}`,
    makeTarget: (path) => writeFile(path, '', { flag: 'wx', mode: 0o600 }),
    close: () => file.close(),
  };
}

async function mkdirOnce(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}
