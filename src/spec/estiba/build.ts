import {
  array,
  boolean,
  integer,
  type Out,
  object,
  oneOf,
  optional,
  record,
  string,
  withDefault,
} from '#base/shape.ts';

/**
 * Our own build calls, under `/estiba/v1/build`. Only what has changed travels:
 *
 *     client                                   daemon
 *       ── POST contexts: a line a file ─────────▶   remembers the tree
 *       ◀──────────── id, digests that are missing ──
 *       ── POST files: those bytes ──────────────▶   keeps them
 *       ── POST build: what is wished ───────────▶   builds
 *       ◀──────────────── a line an event, the result ──
 *       ── POST agents/ID/NAME (upgraded) ───────▶   a connection to the ssh agent, waiting to be used
 *       ── GET exports/ID?type=tar ──────────────▶   the result as a file
 */
export const BUILD_API = '/estiba/v1/build';

/** One file of a context, a JSON line each. Directories before what they hold. */
export const contextLine = object({
  /** Relative to the context, without a slash at either end. */
  p: string({ nonEmpty: true, maxLength: 4096 }),
  t: oneOf('file', 'dir', 'symlink', 'fifo'),
  /** Permission bits. */
  m: integer({ min: 0, max: 0o7777 }),
  /** Seconds since the epoch. */
  ts: integer({ min: 0 }),
  /** Of files: bytes, and the SHA-256 of them. */
  s: optional(integer({ min: 0 })),
  h: optional(string({ match: /^[0-9a-f]{64}$/, says: 'is no SHA-256' })),
  /** Of links. */
  l: optional(string({ maxLength: 4096 })),
});
export type ContextLine = Out<typeof contextLine>;

export const contextAnswer = object({ id: string(), missing: array(string()) });

/** Before each file's bytes in `POST files`: 32 bytes of digest, 8 bytes of length, big endian. */
export const FILE_HEAD_BYTES = 40;

export function fileHead(hex: string, sizeBytes: number): Buffer {
  const head = Buffer.alloc(FILE_HEAD_BYTES);
  head.write(hex, 0, 'hex');
  head.writeBigUInt64BE(BigInt(sizeBytes), 32);
  return head;
}

export function readFileHead(head: Buffer): { hex: string; sizeBytes: number } {
  return { hex: head.toString('hex', 0, 32), sizeBytes: Number(head.readBigUInt64BE(32)) };
}

const contextSource = object({
  /** From `POST contexts`. */
  id: optional(string()),
  /** `docker-image://…` without its scheme. */
  image: optional(string()),
  /** A repository or an archive that the daemon fetches. */
  url: optional(string()),
});

/** What commands may use: Docker's names for the same are in `POST /build`. */
export const buildLimits = object(
  {
    memoryBytes: optional(integer({ min: 0 })),
    /** Memory and swap together; -1 is unlimited. */
    memorySwapBytes: optional(integer({ min: -1 })),
    cpuShares: optional(integer({ min: 0 })),
    cpuPeriodUs: optional(integer({ min: 0 })),
    cpuQuotaUs: optional(integer({ min: -1 })),
    cpusetCpus: optional(string()),
    cpusetMems: optional(string()),
    cgroupParent: optional(string()),
    shmBytes: optional(integer({ min: 0 })),
    ulimits: withDefault(array(object({ name: string(), soft: integer(), hard: integer() })), []),
  },
  { unknown: 'reject' },
);
export type BuildLimits = Out<typeof buildLimits>;

export const buildWish = object(
  {
    /** `''` is the main one. */
    contexts: withDefault(record(contextSource), {}),
    dockerfile: object({ name: withDefault(string(), 'Dockerfile'), text: optional(string()) }),
    tags: withDefault(array(string(), { max: 1000 }), []),
    target: optional(string()),
    buildArgs: withDefault(record(string()), {}),
    labels: withDefault(record(string()), {}),
    platform: optional(string()),
    noCache: withDefault(boolean(), false),
    noCacheFilter: withDefault(array(string()), []),
    pull: withDefault(boolean(), false),
    /** Warnings alone. */
    check: withDefault(boolean(), false),
    /** Base64. */
    secrets: withDefault(record(string()), {}),
    /** Names of agents that the client will connect. */
    ssh: withDefault(array(string()), []),
    allow: withDefault(array(oneOf('network.host')), []),
    network: withDefault(string(), 'default'),
    addHosts: withDefault(array(string()), []),
    limits: withDefault(buildLimits, { ulimits: [] }),
    squash: withDefault(boolean(), false),
    /** Text of `.dockerignore`, for the check of copied files. */
    ignore: optional(string()),
    registryAuth: optional(string()),
  },
  { unknown: 'reject' },
);
export type BuildWish = Out<typeof buildWish>;

/** A line of the answer. */
export type BuildLine =
  | { at: 'build'; id: string }
  | { at: 'steps'; titles: string[] }
  | { at: 'warning'; check: string; message: string; line: number; excerpt: string }
  | { at: 'start' | 'cached' | 'failed'; step: number }
  | { at: 'done'; step: number; tookMs: number; layer?: string }
  | { at: 'output'; step: number; stream: 'stdout' | 'stderr'; text: string }
  | { at: 'note'; text: string }
  | { at: 'result'; imageId: string; digest: string; tags: string[]; tookMs: number }
  | { at: 'checked'; warnings: number; failed: boolean }
  | { at: 'error'; error: BuildFailure };

export interface BuildFailure {
  code: string;
  message: string;
  hint?: string;
  /** Where in the Dockerfile, and what the command said last. */
  file?: string;
  line?: number;
  excerpt?: string;
  tail?: string;
  exitCode?: number;
}

/** How a result leaves the daemon as a file. */
export const EXPORT_TYPES = ['tar', 'oci', 'docker'] as const;
export type ExportType = (typeof EXPORT_TYPES)[number];

/** A failed step's root as an image, and the network that the step had. */
export interface FailedStepImage {
  Id: string;
  Network: string;
}

export interface FailedStepLine {
  id: string;
  title: string;
  command: string[];
  code: number;
  atMs: number;
}
