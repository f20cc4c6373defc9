/** Set by `tools/build.mjs`; what runs from sources says so. */
declare const ESTIBA_VERSION: string | undefined;
declare const ESTIBA_COMMIT: string | undefined;
declare const ESTIBA_SECCOMP: string | undefined;

export const VERSION = {
  version: typeof ESTIBA_VERSION === 'string' ? ESTIBA_VERSION : '0.0.0',
  commit: typeof ESTIBA_COMMIT === 'string' ? ESTIBA_COMMIT : 'sources',
};

/** Digest of the seccomp compiler and its tables; undefined when they run from sources, which change between two calls. */
export const SECCOMP_BUILD = typeof ESTIBA_SECCOMP === 'string' ? ESTIBA_SECCOMP : undefined;
