/** Set by `tools/build.mjs`; what runs from sources says so. */
declare const ESTIBA_VERSION: string | undefined;
declare const ESTIBA_COMMIT: string | undefined;

export const VERSION = {
  version: typeof ESTIBA_VERSION === 'string' ? ESTIBA_VERSION : '0.0.0',
  commit: typeof ESTIBA_COMMIT === 'string' ? ESTIBA_COMMIT : 'sources',
};
