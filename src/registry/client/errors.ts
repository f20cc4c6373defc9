import { defineError } from '#base/errors.ts';
import type { Digest } from '#spec/image/digest.ts';

/** No answer at all: name, route, TLS or time. The only failure after which another registry or bootstrap may be tried. */
export const RegistryUnreachable = defineError('REGISTRY_UNREACHABLE', (d: { host: string; why: string }) => ({
  message: `registry ${d.host} cannot be reached: ${d.why}`,
  hint: 'check the name, the network and proxy settings; plain http needs the host in the list of insecure registries',
}));

export const RegistryUnauthorized = defineError(
  'REGISTRY_UNAUTHORIZED',
  (d: { host: string; repository: string; action: string; says: string; loggedIn: boolean }) => ({
    message: `${d.host} denies ${d.action} of ${d.repository}: ${d.says}`,
    hint: d.loggedIn
      ? 'this account may not do that; use another or ask for the right'
      : `log in first: docker login ${d.host}`,
  }),
);

export const ImageNotFound = defineError('IMAGE_NOT_FOUND', (d: { host: string; what: string }) => ({
  message: `${d.what} does not exist in ${d.host}`,
  hint: 'check the name and tag; a private repository may also look like this to somebody who is not logged in',
}));

export const RateLimited = defineError(
  'REGISTRY_RATE_LIMITED',
  (d: { host: string; says: string; retryAfterMs?: number }) => ({
    message: `${d.host} answers "too many requests": ${d.says}`,
    hint: `${d.retryAfterMs === undefined ? 'try again later' : `try again in ${Math.ceil(d.retryAfterMs / 1000)} s`}, log in, or set up a mirror`,
  }),
);

/** The registry answered, but not with what was asked for. */
export const RegistryAnswered = defineError(
  'REGISTRY_ANSWERED',
  (d: { host: string; request: string; status: number; code?: string; says: string }) => ({
    message: `${d.host} answered ${d.request} with ${d.status}: ${d.says}`,
  }),
);

/** What the registry sends breaks a rule: wrong digest, size, type, endless body, too many redirects. */
export const RegistryMisbehaved = defineError(
  'REGISTRY_MISBEHAVED',
  (d: { host: string; request: string; why: string }) => ({
    message: `${d.host}, ${d.request}: ${d.why}`,
    hint: 'nothing of it was kept; the registry or something on the way to it is broken or hostile',
  }),
);

/** The connection broke while a body was under way; what had arrived is kept. */
export const TransferBroken = defineError(
  'REGISTRY_TRANSFER_BROKEN',
  (d: { host: string; digest: Digest; atBytes: number }) => ({
    message: `${d.host}: the transfer of ${d.digest} broke off after ${d.atBytes} bytes`,
    hint: 'the next try goes on where this one ended',
  }),
);

export const PlatformMissing = defineError(
  'PLATFORM_MISSING',
  (d: { what: string; wanted: string; offered: string[] }) => ({
    message: `${d.what} has no image for ${d.wanted}`,
    hint: `it offers ${d.offered.slice(0, 20).join(', ') || 'nothing'}; choose one with --platform`,
  }),
);

export const CredentialHelperFailed = defineError(
  'CREDENTIAL_HELPER_FAILED',
  (d: { helper: string; host: string; why: string }) => ({
    message: `docker-credential-${d.helper} gives no credentials for ${d.host}: ${d.why}`,
    hint: 'log in again, or remove the helper from config.json',
  }),
);
