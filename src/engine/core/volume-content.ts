import { isCode } from '#base/errors.ts';
import { TreeWriter } from '#engine/core/tree-writer.ts';
import { insideId, members } from '#image/diff.ts';
import { readXattrs } from '#image/xattrs.ts';
import { openBeneath, openFile, walkTree, withPlace } from '#kernel/beneath.ts';
import type { IdMapping } from '#kernel/idmap.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { Content } from '#volume/fill.ts';

export interface TreeTools {
  runPlan: (plan: Plan) => Promise<unknown>;
  /** A directory of ours, for what the executor writes for us to read. */
  scratch: string;
}

/** What an image has where a volume goes; undefined when there is no directory. `ids`: the root shows its owners as they are outside. */
export async function imageContent(
  rootfs: string,
  target: string,
  tools: TreeTools,
  ids: readonly IdMapping[] = [],
): Promise<Content | undefined> {
  const root = { directory: rootfs };
  try {
    const { directory } = await openBeneath(root, target);
    try {
      const { uid, gid, mode } = await directory.stat();
      const isEmpty = (await directory.names()).length === 0;
      const top = { uid: insideId(ids, uid), gid: insideId(ids, gid), mode };
      return { top, ...(isEmpty ? {} : { copy: (to) => copyTree(rootfs, target, to, tools, ids) }) };
    } finally {
      await directory.close();
    }
  } catch (error) {
    if (isCode(error, 'PATH_NOT_BENEATH')) return undefined;
    throw error;
  }
}

/** A directory of a root with modes, owners, times, attributes, links and devices. */
async function copyTree(
  rootfs: string,
  path: string,
  to: string,
  { runPlan, scratch }: TreeTools,
  ids: readonly IdMapping[],
): Promise<void> {
  const root = { directory: rootfs };
  const xattrs = await xattrsOf(root, path, { runPlan, scratch });
  const writer = new TreeWriter({ root: { directory: to }, base: '/', runPlan });
  try {
    await withPlace(root, path, { follow: true }, async (top) => {
      for await (const { seen, entry } of members(walkTree(root, top), xattrs, ids)) {
        const source = entry.type === 'file' ? await openFile(seen.access) : undefined;
        try {
          if (entry.type === 'file' && !source) continue;
          await writer.begin(entry);
          if (source) await writer.copyFrom(source);
          await writer.endFile();
        } finally {
          await source?.close();
        }
      }
    });
    await writer.finish();
  } finally {
    await writer.close();
  }
}

/** Attributes of everything below a directory of a root, by path relative to it. */
export async function xattrsOf(
  root: { directory: string },
  path: string,
  { runPlan, scratch }: TreeTools,
): ReturnType<typeof readXattrs> {
  const { directory } = await openBeneath(root, path);
  try {
    return await readXattrs(directory.outside(), runPlan, `${scratch}/xattrs`);
  } finally {
    await directory.close();
  }
}
