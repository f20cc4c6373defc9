import { defineError } from '#base/errors.ts';

/** What the stores refuse, and why. Drivers map their own failures (gRPC codes, errno) onto these. */

export const Compacted = defineError('STORE_COMPACTED', (d: { asked: number; compacted: number }) => ({
  message: `revision ${d.asked} is gone: the history before revision ${d.compacted} has been compacted`,
  hint: 'list again and watch from the revision of that list',
}));

export const FutureRevision = defineError('STORE_FUTURE_REVISION', (d: { asked: number; current: number }) => ({
  message: `revision ${d.asked} does not exist yet; the store is at ${d.current}`,
}));

export const BadKey = defineError('STORE_BAD_KEY', (d: { key: string; rule: string }) => ({
  message: `key ${JSON.stringify(d.key.slice(0, 120))} ${d.rule}`,
}));

export const BadTransaction = defineError('STORE_BAD_TRANSACTION', (d: { rule: string }) => ({
  message: `transaction refused: ${d.rule}`,
}));

export const ValueTooLarge = defineError('STORE_VALUE_TOO_LARGE', (d: { bytes: number; limitBytes: number }) => ({
  message: `a transaction of ${d.bytes} bytes is larger than the ${d.limitBytes} allowed`,
}));

export const LeaseNotFound = defineError('STORE_LEASE_NOT_FOUND', (d: { lease: string }) => ({
  message: `lease ${d.lease} does not exist or has expired`,
}));

export const StoreFull = defineError('STORE_FULL', (d: { usedBytes: number; limitBytes: number }) => ({
  message: `the store holds ${d.usedBytes} bytes, its limit is ${d.limitBytes}; writes are refused, deletes are not`,
  hint: 'delete objects or raise the size limit',
}));

export const StoreClosed = defineError('STORE_CLOSED', (_: { why: string }) => ({
  message: `the store is closed: ${_.why}`,
}));

/** A write or sync failed: what the disk holds is unknown, so nothing more is acknowledged until the store is opened again. */
export const StoreBroken = defineError('STORE_BROKEN', (d: { path: string; during: string }) => ({
  message: `${d.path}: ${d.during} failed; the store takes no more writes until it is opened again`,
  hint: 'look at the disk (space, errors), then restart the daemon',
}));

export const StoreCorrupt = defineError('STORE_CORRUPT', (d: { path: string; offset: number; what: string }) => ({
  message: `${d.path}: damaged at byte ${d.offset}: ${d.what}`,
  hint: 'restore the latest backup; the damaged files are left as they are',
}));

export const StoreLocked = defineError('STORE_LOCKED', (d: { path: string; holder: string }) => ({
  message: `${d.path} is in use by process ${d.holder}`,
  hint: 'stop that daemon, or give this one another --data-root',
}));

export const RecordInvalid = defineError('RECORD_INVALID', (d: { key: string }) => ({
  message: `the record ${d.key} in the node's store cannot be read`,
}));
