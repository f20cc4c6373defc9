import { defineError } from '#base/errors.ts';

/** API versions as Docker counts them: `1.41`. */
export const MIN_API_VERSION = '1.24';
export const MAX_API_VERSION = '1.51';

export const ApiVersionUnsupported = defineError('API_VERSION', (d: { version: string; side: 'old' | 'new' }) => ({
  message:
    d.side === 'old'
      ? `client version ${d.version} is too old. Minimum supported API version is ${MIN_API_VERSION}, please upgrade your client to a newer version`
      : `client version ${d.version} is too new. Maximum supported API version is ${MAX_API_VERSION}`,
}));

/** `/v1.41/info` → 1.41 and `/info`. Without a prefix the newest is meant. */
export function splitVersion(path: string): { version: string; path: string } {
  const match = /^\/v(\d+\.\d+)(\/.*)$/.exec(path);
  if (!match?.[1] || !match[2]) return { version: MAX_API_VERSION, path };
  const version = match[1];
  if (compareVersions(version, MIN_API_VERSION) < 0) throw new ApiVersionUnsupported({ version, side: 'old' });
  if (compareVersions(version, MAX_API_VERSION) > 0) throw new ApiVersionUnsupported({ version, side: 'new' });
  return { version, path: match[2] };
}

export function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = a.split('.').map(Number);
  const [bMajor = 0, bMinor = 0] = b.split('.').map(Number);
  return aMajor - bMajor || aMinor - bMinor;
}
