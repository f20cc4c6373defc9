import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { ValueUnreadable } from './errors.ts';

/**
 * Encryption at rest of the values of some keys (secrets). Wire form of a sealed value:
 *
 *     "sealed:v1:" · 12 bytes nonce · ciphertext · 16 bytes tag          AES-256-GCM, the key's name is authenticated with it
 *
 * so a sealed value copied under another name does not open. Values without the mark are read as they are: what was written before
 * the key existed stays readable and is sealed at its next write.
 */
const MARK = Buffer.from('sealed:v1:');
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export interface Sealer {
  seal(key: string, value: Uint8Array): Uint8Array;
  open(key: string, value: Uint8Array): Uint8Array;
}

export function sealer(options: { secretKey: Uint8Array; prefixes: readonly string[] }): Sealer {
  if (options.secretKey.length !== 32) throw new RangeError('the encryption key must have 32 bytes');
  const concerns = (key: string): boolean => options.prefixes.some((p) => key.startsWith(p));
  return {
    seal(key, value) {
      if (!concerns(key)) return value;
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv('aes-256-gcm', options.secretKey, nonce).setAAD(Buffer.from(key));
      return Buffer.concat([MARK, nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]);
    },
    open(key, value) {
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      if (!bytes.subarray(0, MARK.length).equals(MARK)) return value;
      if (bytes.length < MARK.length + NONCE_BYTES + TAG_BYTES)
        throw new ValueUnreadable({ key, why: 'it is cut short' });
      const nonce = bytes.subarray(MARK.length, MARK.length + NONCE_BYTES);
      const decipher = createDecipheriv('aes-256-gcm', options.secretKey, nonce).setAAD(Buffer.from(key));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      try {
        return Buffer.concat([
          decipher.update(bytes.subarray(MARK.length + NONCE_BYTES, -TAG_BYTES)),
          decipher.final(),
        ]);
      } catch (error) {
        throw new ValueUnreadable({ key, why: 'it was sealed with another key or has been changed' }, { cause: error });
      }
    },
  };
}

export const unsealed: Sealer = { seal: (_, value) => value, open: (_, value) => value };
