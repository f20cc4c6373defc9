import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { LayerReader, Listed } from '#image/survey.ts';
import { type Survey, survey } from '#image/survey.ts';

/** Mounted layers to survey, lowest first, with what `opaqueDirectories` found in each. */
export interface SurveyJob {
  layers: { root: string; opaque: ReadonlySet<string> }[];
  top: number;
}

/** Reads every directory, and files whose size another has; synchronously, so in a thread of its own. */
export function surveyMounted({ layers, top }: SurveyJob): Survey {
  return survey(
    layers.map(({ root, opaque }) => mountedLayer(root, opaque)),
    top,
  );
}

const READ_BYTES = 256 * 1024;

function mountedLayer(root: string, opaque: ReadonlySet<string>): LayerReader {
  const chunk = Buffer.allocUnsafe(READ_BYTES);
  return {
    isOpaque: (directory) => opaque.has(directory),
    list: (directory) =>
      readdirSync(join(root, directory))
        .sort()
        .map((name) => look(join(root, directory, name), name)),
    digest(path, firstBytes = Number.POSITIVE_INFINITY) {
      const hash = createHash('sha256');
      const fd = openSync(join(root, path), 'r');
      try {
        for (let left = firstBytes; left > 0; ) {
          const length = readSync(fd, chunk, 0, Math.min(READ_BYTES, left), null);
          if (length === 0) break;
          hash.update(chunk.subarray(0, length));
          left -= length;
        }
      } finally {
        closeSync(fd);
      }
      return hash.digest('base64');
    },
  };
}

function look(path: string, name: string): Listed {
  const stat = lstatSync(path);
  if (stat.isDirectory()) return { name, kind: 'dir', bytes: 0 };
  if (stat.isCharacterDevice() && stat.rdev === 0) return { name, kind: 'whiteout', bytes: 0 };
  const inode = stat.nlink > 1 ? { inode: `${stat.dev}:${stat.ino}` } : {};
  return stat.isFile() ? { name, kind: 'file', bytes: stat.size, ...inode } : { name, kind: 'other', bytes: 0 };
}
