import { createHash, type Hash } from 'node:crypto';
import { DigestInvalid } from '#spec/image/errors.ts';

/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case: the algorithms the image specification registers (descriptor.md, Digests). */
export type Digest = `${Algorithm}:${string}`;
export type Algorithm = 'sha256' | 'sha512';

const HEX_LENGTH: Record<Algorithm, number> = { sha256: 64, sha512: 128 };

export function isDigest(text: string): text is Digest {
  return /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/.test(text);
}

export function parseDigest(text: string): Digest {
  if (!isDigest(text)) throw new DigestInvalid({ text });
  return text;
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

/** The part after the colon: what files are named by. */
export function hexOf(digest: Digest): string {
  return digest.slice(digest.length - HEX_LENGTH[algorithmOf(digest)]);
}

export function hasher(algorithm: Algorithm = 'sha256'): Hash {
  return createHash(algorithm);
}

export function digestOf(bytes: Uint8Array | string, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

export function finish(hash: Hash, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${hash.digest('hex')}`;
}
