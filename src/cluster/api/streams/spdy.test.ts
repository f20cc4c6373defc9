import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { duplexPair } from '#cluster/api/testing/pair.ts';
import { SpdySession } from './spdy.ts';
import { SPDY_DICTIONARY_ID, spdyDictionary } from './spdy-dictionary.ts';

describe('SPDY', () => {
  it('the dictionary is the one both sides name', () => {
    const dictionary = spdyDictionary();
    expect(dictionary).toHaveLength(1_423);
    // RFC 1950, 2.2: DICTID stands behind the two bytes of the header.
    expect(deflateSync('x', { dictionary }).readUInt32BE(2)).toBe(SPDY_DICTIONARY_ID);
  });

  it('whatever bytes come, the session ends or waits; it never throws', async () => {
    const head = fc.constantFrom([0x80, 3, 0, 1], [0x80, 3, 0, 6], [0x80, 3, 0, 3], [0, 0, 0, 1], [0x80, 2, 0, 1]);
    await fc.assert(
      fc.asyncProperty(head, fc.uint8Array({ maxLength: 64 }), async (start, rest) => {
        const [ours, theirs] = duplexPair();
        let closed = 0;
        new SpdySession(ours, Buffer.alloc(0), { stream: (s) => s.resume(), closed: () => closed++ });
        theirs.resume();
        theirs.end(Buffer.from([...start, 0, 0, 0, rest.length, ...rest]));
        await expect.poll(() => closed, { interval: 1 }).toBe(1);
      }),
      { numRuns: 200 },
    );
  });
});
