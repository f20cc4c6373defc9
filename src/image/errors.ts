import { defineError } from '#base/errors.ts';
import type { Digest } from '#spec/image/digest.ts';

export const BlobNotFound = defineError('BLOB_NOT_FOUND', (d: { digest: Digest }) => ({
  message: `blob ${d.digest} is not in the store`,
}));

/** What was received is not what was announced; nothing of it is kept. */
export const DigestMismatch = defineError(
  'DIGEST_MISMATCH',
  (d: { what: string; expected: Digest; actual: Digest }) => ({
    message: `${d.what}: its bytes have the digest ${d.actual}, not ${d.expected}`,
    hint: 'the transfer or the source is damaged; try again, then look at the registry',
  }),
);

export const SizeMismatch = defineError('SIZE_MISMATCH', (d: { what: string; expected: number; actual: number }) => ({
  message: `${d.what}: ${d.actual} bytes, not the ${d.expected} announced`,
}));

export const BlobTooLarge = defineError('BLOB_TOO_LARGE', (d: { what: string; limitBytes: number }) => ({
  message: `${d.what}: more than the ${d.limitBytes} bytes allowed`,
}));

/** What was verified when it was written has changed on disk since. The file is set aside, so that the next pull fetches it. */
export const BlobDamaged = defineError('BLOB_DAMAGED', (d: { digest: Digest; actual: Digest; path: string }) => ({
  message: `${d.path}: its bytes changed since they were stored: their digest is ${d.actual}`,
  hint: 'the disk or somebody has changed the file; it has been set aside, pull the image again',
}));

export const IngestBusy = defineError('INGEST_BUSY', (d: { ref: string }) => ({
  message: `upload ${d.ref} is being written by somebody else`,
}));

export const IngestClosed = defineError('INGEST_CLOSED', (d: { ref: string }) => ({
  message: `upload ${d.ref} has ended`,
}));

export const LayerNotFound = defineError('LAYER_NOT_FOUND', (d: { diffId: Digest }) => ({
  message: `layer ${d.diffId} is not unpacked here`,
}));

/** The unpacked form of a layer changed on disk. It is removed; unpacking the blob again makes it anew. */
export const LayerDamaged = defineError('LAYER_DAMAGED', (d: { diffId: Digest; path: string }) => ({
  message: `${d.path}: layer ${d.diffId} changed since it was unpacked`,
  hint: 'the disk or somebody has changed the file; it has been removed and is made again from its blob at the next try',
}));

export const LayerInUse = defineError('LAYER_IN_USE', (d: { diffId: Digest; by: string }) => ({
  message: `layer ${d.diffId} is used by ${d.by}`,
}));

export const SnapshotExists = defineError('SNAPSHOT_EXISTS', (d: { id: string }) => ({
  message: `there is a snapshot ${d.id} already`,
}));

export const SnapshotNotFound = defineError('SNAPSHOT_NOT_FOUND', (d: { id: string }) => ({
  message: `there is no snapshot ${d.id}`,
}));

export const TooManyLayers = defineError('TOO_MANY_LAYERS', (d: { count: number; limit: number }) => ({
  message: `${d.count} layers are more than the ${d.limit} that overlayfs stacks`,
  hint: 'squash the image',
}));

export const TooManyFiles = defineError('TOO_MANY_FILES', (d: { limit: number }) => ({
  message: `the image has more than ${d.limit} files, too many to be compared with each other`,
}));

export const NoSuchImage = defineError('NO_SUCH_IMAGE', (d: { reference: string }) => ({
  message: `No such image: ${d.reference}`,
  hint: 'pull it, or look at the list of images',
}));

export const ImageAmbiguous = defineError('IMAGE_AMBIGUOUS', (d: { prefix: string; count: number }) => ({
  message: `${d.count} images have ids that begin with ${d.prefix}`,
  hint: 'write more digits of the id',
}));

export const ImageInUse = defineError('IMAGE_IN_USE', (d: { reference: string; by: string }) => ({
  message: `image ${d.reference} is used by ${d.by}`,
  hint: 'remove what uses it first, or force the removal of a name',
}));

export const PlatformNotHere = defineError('IMAGE_PLATFORM_NOT_HERE', (d: { reference: string; platform: string }) => ({
  message: `image ${d.reference} has nothing for ${d.platform} on this node`,
  hint: 'pull it for that platform',
}));

export const ArchiveInvalid = defineError('IMAGE_ARCHIVE_INVALID', (d: { rule: string }) => ({
  message: `the archive is no image: ${d.rule}`,
  hint: 'docker save, skopeo and umoci write archives that can be loaded',
}));
