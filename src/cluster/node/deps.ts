import type { Clock } from '#base/clock.ts';
import type { Logger } from '#base/log.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import type { PodImages } from '#cluster/node/images.ts';
import type { PodObjects } from '#cluster/node/objects.ts';
import type { NodeEngine, NodeHost, NodeSettings, PodDrain } from '#cluster/node/seams.ts';
import type { PodVolumes } from '#cluster/node/volumes/volumes.ts';
import type { ConditionalProfile } from '#engine/core/spec.ts';
import type { Service } from '#spec/kubernetes/types.gen.ts';

/** What the workers of all pods of this node share. */
export interface AgentDeps {
  client: KubeClient;
  clock: Clock;
  log: Logger;
  events: EventRecorder;
  engine: NodeEngine;
  images: PodImages;
  host: NodeHost;
  settings: NodeSettings;
  objects: PodObjects;
  volumes: PodVolumes;
  drain: PodDrain;
  services: () => readonly Service[];
  /** A seccomp profile of the node, by its path below the profile directory. */
  seccompProfile: (name: string) => ConditionalProfile;
  /** Has a pod looked at again, soon. */
  wake: (uid: string) => void;
}
