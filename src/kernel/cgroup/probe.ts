import { posix } from 'node:path';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { dirOf } from '#kernel/cgroup/place.ts';
import type { Files } from '#kernel/files.ts';

/** Files of v2 that only some kernels have, so that they are used only where seen. */
const UNLESS_SEEN = new Set(['io.bfq.weight']);

/**
 * Whether a cgroup at `place` has a file, before it is made: asked of the cgroup itself, its nearest parents, or any other
 * cgroup of the hierarchy. The top tells little: most files are missing there.
 */
export function fileProbe(place: CgroupPlace, files: Files): (file: string) => boolean {
  let sample: ReadonlySet<string> | undefined;
  return (file) => {
    sample ??= sampleOf(place, files);
    if (sample.has(file)) return true;
    // BFQ's weights are missing at the top only.
    if (file.startsWith('blkio.bfq.')) return [...sample].some((name) => name.startsWith('blkio.bfq.'));
    if (place.version === 1) return false;
    // v2: a cgroup shows a controller's files once its parent has enabled it, which is ours to do. If nobody has, the
    // file is taken to be there; where it is not, the step that writes it fails and says so.
    const [controller = ''] = file.split('.');
    const core = CORE_FILES[controller] ?? `${controller}.max`;
    return !sample.has(core) && !UNLESS_SEEN.has(file);
  };
}

/** What shows that a controller is enabled; `cpu.stat` and the like are there without. */
const CORE_FILES: Readonly<Record<string, string>> = {
  cpu: 'cpu.weight',
  cpuset: 'cpuset.cpus',
  hugetlb: 'hugetlb.2MB.max',
};

function sampleOf(place: CgroupPlace, files: Files): Set<string> {
  for (let dir = dirOf(place); dir.startsWith(`${place.mount}/`); dir = posix.dirname(dir)) {
    const names = files.list(dir);
    if (names) return new Set(names);
  }
  const top = files.list(place.mount) ?? [];
  for (const name of top) {
    const names = name.includes('.') ? undefined : files.list(posix.join(place.mount, name));
    // A directory: the top's own files cannot be listed.
    if (names?.includes('cgroup.procs')) return new Set(names);
  }
  return new Set(top);
}
