import { readFile, rm } from 'node:fs/promises';
import { assert } from '#base/errors.ts';
import { USER_OPAQUE_XATTR } from '#image/layer/directory-sink.ts';
import { OPAQUE_XATTR } from '#image/layer/tree.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { temporaryName } from '#storage/files.ts';

/**
 * Attributes of every file below `directory` that has any, by path relative to it (`''` is itself). Node.js has no call
 * for them; the executor writes them to a file (native/ops_xattr.c):
 *
 *     u32+path, u32 count, count × (u32+name, u32+value), little endian
 *
 * The file lies beside the directory, or beside another path when that place is not ours to write to.
 */
export async function readXattrs(
  directory: string,
  runPlan: (plan: Plan) => Promise<unknown>,
  beside = directory,
): Promise<Map<string, Map<string, Uint8Array>>> {
  const to = temporaryName(beside);
  try {
    await runPlan({
      steps: [{ op: 'dumpXattrs', where: 'host', because: `what changed in ${directory}`, path: directory, to }],
    });
    return parseXattrs(await readFile(to));
  } finally {
    await rm(to, { force: true });
  }
}

/** Directories of an unpacked layer that hide what lies below them. The list is written beside `beside` meanwhile. */
export async function opaqueDirectories(
  root: string,
  runPlan: (plan: Plan) => Promise<unknown>,
  beside: string,
): Promise<Set<string>> {
  const attributes = await readXattrs(root, runPlan, beside);
  const isOpaque = (names: ReadonlyMap<string, Uint8Array>): boolean =>
    names.has(OPAQUE_XATTR) || names.has(USER_OPAQUE_XATTR);
  return new Set([...attributes].filter(([, names]) => isOpaque(names)).map(([path]) => path));
}

export function parseXattrs(bytes: Buffer): Map<string, Map<string, Uint8Array>> {
  const result = new Map<string, Map<string, Uint8Array>>();
  let at = 0;
  const u32 = (): number => {
    at += 4;
    return bytes.readUInt32LE(at - 4);
  };
  const take = (): Buffer => {
    const length = u32();
    assert(at + length <= bytes.length, 'the executor writes whole records');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const path = take().toString();
    const attributes = new Map<string, Uint8Array>();
    for (let count = u32(); count > 0; count--) {
      const name = take().toString();
      attributes.set(name, take());
    }
    result.set(path, attributes);
  }
  return result;
}
