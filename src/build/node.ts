import type { Clock } from '#base/clock.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { Background } from '#build/background.ts';
import type { StepCache } from '#build/cache.ts';
import type { CacheMounts } from '#build/cache-mounts.ts';
import type { FileStore } from '#build/context/files.ts';
import type { StepLayers } from '#build/layers.ts';
import type { SandboxParts } from '#build/sandbox.ts';
import type { ContentStore } from '#image/content.ts';
import type { Image, ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import type { Overlays } from '#image/overlays.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import type { Platform } from '#spec/image/platform.ts';

/** What builds need of this node. Chosen in `app`. */
export interface BuildNode {
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  overlays: Overlays;
  images: ImageStore;
  files: FileStore;
  cache: StepCache;
  stepLayers: StepLayers;
  cacheMounts: CacheMounts;
  background: Background;
  sandbox: SandboxParts;
  /** An image by name: the node's own, or pulled when it is not here or `always`. */
  image(reference: string, wish: ImageWish): Promise<Image>;
  readXattrs(directory: string): Promise<Map<string, Map<string, Uint8Array>>>;
  /** Secrets and sockets of running builds: on a file system that a reboot forgets. */
  runDirectory: string;
  platform: Platform;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Commands that run at once. */
  parallel: number;
}

export interface ImageWish {
  platform: string;
  always: boolean;
  /** Credentials by registry, as the client sent them. */
  auth: Readonly<Record<string, object>>;
  note(text: string): void;
  signal: AbortSignal;
}
