import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { accepts, parseAccept } from '#registry/http/accept.ts';
import { formatChallenge, parseChallenges } from '#registry/http/challenge.ts';
import { nextLink, parseNextLink } from '#registry/http/link.ts';
import { parseChunkRange, parseContentRange, parseRange } from '#registry/http/range.ts';

describe('challenges', () => {
  it('reads what Docker Hub sends', () => {
    const header =
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"';
    expect(parseChallenges(header)).toEqual([
      {
        scheme: 'bearer',
        parameters: {
          realm: 'https://auth.docker.io/token',
          service: 'registry.docker.io',
          scope: 'repository:library/debian:pull',
        },
      },
    ]);
  });

  it('tells several challenges in one header apart, with spaces, bare values and escapes', () => {
    expect(parseChallenges('Basic realm="a \\"team\\", b" , charset=UTF-8,Bearer  realm = "https://x/t"')).toEqual([
      { scheme: 'basic', parameters: { realm: 'a "team", b', charset: 'UTF-8' } },
      { scheme: 'bearer', parameters: { realm: 'https://x/t' } },
    ]);
    expect(parseChallenges('Negotiate, Basic realm="x"').map((c) => c.scheme)).toEqual(['negotiate', 'basic']);
  });

  it('print and parse are inverse, whatever the values hold', () => {
    const value = fc.string({ unit: 'binary-ascii' }).filter((s) => !/[\r\n\0]/.test(s));
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/), value, { minKeys: 1 }), (parameters) => {
        const [parsed] = parseChallenges(formatChallenge('Bearer', parameters));
        expect({ ...parsed?.parameters }).toEqual({ ...parameters });
      }),
    );
  });

  it('ends on any input, and in time that grows no faster than the input', () => {
    fc.assert(fc.property(fc.string({ maxLength: 300 }), (s) => Array.isArray(parseChallenges(s))));
    const startMs = performance.now();
    parseChallenges(`Bearer realm="${'\\'.repeat(100_000)}`);
    expect(performance.now() - startMs).toBeLessThan(200);
  });
});

describe('ranges', () => {
  it.each([
    ['bytes=0-9', { first: 0, last: 9 }],
    ['bytes=90-', { first: 90, last: 99 }],
    ['bytes=-10', { first: 90, last: 99 }],
    ['bytes=-1000', { first: 0, last: 99 }],
    ['bytes=95-200', { first: 95, last: 99 }],
    ['bytes=100-', 'unsatisfiable'],
    ['bytes=50-0', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=0-1,5-6', undefined],
    ['lines=0-1', undefined],
    [undefined, undefined],
  ])('%s of 100 bytes is %j', (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });

  it('a chunk is first-last, with or without the unit', () => {
    expect(parseChunkRange('0-1023')).toEqual({ first: 0, last: 1023 });
    expect(parseChunkRange('bytes 5-9/*')).toEqual({ first: 5, last: 9 });
    expect(parseChunkRange('9-5')).toBeUndefined();
    expect(parseChunkRange('-5')).toBeUndefined();
  });

  it('the range of an answer carries the size of the whole, if known', () => {
    expect(parseContentRange('bytes 500-1499/2048')).toEqual({ first: 500, last: 1499, sizeBytes: 2048 });
    expect(parseContentRange('bytes 500-1499/*')).toEqual({ first: 500, last: 1499 });
    expect(parseContentRange('bytes */2048')).toBeUndefined();
  });
});

describe('links', () => {
  it('finds the next page among other relations', () => {
    expect(parseNextLink('</v2/a/tags/list?n=1>; rel="first", </v2/a/tags/list?n=1&last=b>; rel="next"')).toBe(
      '/v2/a/tags/list?n=1&last=b',
    );
    expect(parseNextLink(nextLink('/v2/_catalog?n=2&last=x'))).toBe('/v2/_catalog?n=2&last=x');
    expect(parseNextLink('</a>; rel=prev')).toBeUndefined();
    expect(parseNextLink(undefined)).toBeUndefined();
  });
});

describe('accept', () => {
  it('takes wildcards and refuses what has quality zero', () => {
    const entries = parseAccept('application/vnd.oci.image.manifest.v1+json, text/*;q=0.5, image/png;q=0');
    expect(accepts(entries, 'application/vnd.oci.image.manifest.v1+json')).toBe(true);
    expect(accepts(entries, 'text/plain')).toBe(true);
    expect(accepts(entries, 'image/png')).toBe(false);
    expect(accepts(entries, 'application/json')).toBe(false);
    expect(accepts(parseAccept(undefined), 'anything/at-all')).toBe(true);
  });
});
