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
  return part(a, 0) - part(b, 0) || part(a, 1) - part(b, 1);
}

function part(version: string, which: 0 | 1): number {
  const dot = version.indexOf('.');
  if (dot < 0) return which === 0 ? Number(version) : 0;
  return Number(which === 0 ? version.slice(0, dot) : version.slice(dot + 1));
}
