import type { Clock } from '#base/clock.ts';
import type { Logger } from '#base/log.ts';
import type { ContentStore } from '#image/content.ts';
import type { LiveAccess } from '#registry/server/access-file.ts';
import type { Repositories } from '#registry/server/repositories.ts';
import type { Tokens } from '#registry/server/tokens.ts';
import type { Uploads } from '#registry/server/uploads.ts';
import type { Digest } from '#spec/image/digest.ts';

/** All that handlers work with. */
export interface Services {
  repositories: Repositories;
  content: ContentStore;
  uploads: Uploads;
  access: LiveAccess;
  tokens: Tokens;
  names: ImageNames;
  clock: Clock;
  log: Logger;
  limits: Limits;
  /** Takes manifests whose blobs or children are not here, as mirrors of a few platforms need. Otherwise what is here is whole. */
  sparse: boolean;
}

/**
 * The node's image names, which follow the registry's tags: what was pushed runs at once, from the same bytes. `host` is the
 * registry's name as the client wrote it.
 */
export interface ImageNames {
  tagged(
    repository: string,
    tag: string,
    manifest: { digest: Digest; mediaType: string },
    host: string | undefined,
  ): Promise<void>;
  untagged(repository: string, tag: string): Promise<void>;
  /** The image the node itself has under the registry's name: one that was built or tagged here, and never pushed. */
  find(repository: string, tag: string, host?: string): Promise<Digest | undefined>;
  /** Every name under which `find` has one; a name may come twice. */
  list(): Iterable<{ repository: string; tag: string }>;
}

/** For a registry that serves no node. */
export const noImageNames: ImageNames = {
  tagged: async () => undefined,
  untagged: async () => undefined,
  find: async () => undefined,
  list: () => [],
};

export interface Limits {
  /** The specification wants at least 4 MB. */
  manifestMaxBytes: number;
  blobMaxBytes: number;
  /** A body or a client that stands still for so long is cut. */
  idleMs: number;
  /** Entries of one page of tags, repositories or referrers, when the client asks for more or does not say. */
  pageMax: number;
}

export const DEFAULT_LIMITS: Limits = {
  manifestMaxBytes: 8 << 20,
  blobMaxBytes: 2 ** 40,
  idleMs: 60_000,
  pageMax: 1000,
};

/** A collector that looked for links just before one was made must not remove the bytes just after. */
const LEASE_LINGERS_MS = 60_000;

/** Runs `work` while garbage collection leaves the blob alone: from before its bytes are there until its link is known. */
export async function holding<T>(s: Services, digest: Digest, because: string, work: () => Promise<T>): Promise<T> {
  const lease = s.content.lease(because);
  lease.add(digest);
  try {
    return await work();
  } finally {
    s.clock.after(LEASE_LINGERS_MS, () => lease.release());
  }
}
