import type { Pod, Volume } from './types.gen.ts';

/** The claim a volume of a pod stands on: named by the pod, or made for it alone. Undefined: none. */
export function claimNameOf(pod: Pod, volume: Volume): string | undefined {
  return (
    volume.persistentVolumeClaim?.claimName ?? (volume.ephemeral ? `${pod.metadata.name}-${volume.name}` : undefined)
  );
}
