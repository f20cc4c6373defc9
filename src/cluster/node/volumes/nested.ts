import { posix } from 'node:path';
import type { PodSpec } from '#spec/kubernetes/types.gen.ts';

/**
 * Where other volumes are mounted inside this one, as paths below it, outermost only. A volume from the cluster is mounted read-only: a
 * mount point inside it has to be there before. Pure.
 */
export function nestedMountPoints(volume: string, spec: PodSpec): string[] {
  const found = new Set<string>();
  for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
    const mounts = (container.volumeMounts ?? []).map((m) => ({ ...m, at: posix.resolve('/', m.mountPath) }));
    const places = mounts.map((m) => m.at).sort();
    for (const { name, at, subPath, subPathExpr } of mounts) {
      if (name !== volume || subPath || subPathExpr) continue;
      let outer: string | undefined;
      for (const place of places) {
        if (!place.startsWith(`${at}/`) || (outer !== undefined && place.startsWith(`${outer}/`))) continue;
        outer = place;
        found.add(place.slice(at.length + 1));
      }
    }
  }
  return [...found];
}
