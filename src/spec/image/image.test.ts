import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf, hexOf, isDigest, parseDigest } from '#spec/image/digest.ts';
import { layerCompression, MEDIA, parseImageConfig, parseManifest } from '#spec/image/manifest.ts';
import { acceptable, choosePlatform, formatPlatform, hostPlatform, parsePlatform } from '#spec/image/platform.ts';
import { familiarReference, formatReference, parseReference, withDefaultTag } from '#spec/image/reference.ts';

const A = digestOf('a');

describe('digests', () => {
  it('are sha256 or sha512 in lower-case hex, and nothing else', () => {
    expect(parseDigest(digestOf('x', 'sha512'))).toBe(digestOf('x', 'sha512'));
    expect(hexOf(A)).toHaveLength(64);
    for (const bad of ['', 'sha256:', 'sha256:XYZ', `${A}0`, A.toUpperCase(), `sha512:${hexOf(A)}`, `${A}\n`]) {
      expect(isDigest(bad)).toBe(false);
      expect(() => parseDigest(bad)).toThrow('is not a digest');
    }
  });
});

describe('references', () => {
  it.each([
    ['web', 'docker.io/library/web', 'web'],
    ['web:1.2', 'docker.io/library/web:1.2', 'web:1.2'],
    ['team/web', 'docker.io/team/web', 'team/web'],
    ['docker.io/web', 'docker.io/library/web', 'web'],
    ['index.docker.io/library/web', 'docker.io/library/web', 'web'],
    ['localhost/web', 'localhost/web', 'localhost/web'],
    ['localhost:5000/web:1', 'localhost:5000/web:1', 'localhost:5000/web:1'],
    ['reg.example/a/b/c', 'reg.example/a/b/c', 'reg.example/a/b/c'],
    ['Reg.Example/a', 'reg.example/a', 'reg.example/a'],
    ['[::1]:5000/a:t', '[::1]:5000/a:t', '[::1]:5000/a:t'],
    [`web@${A}`, `docker.io/library/web@${A}`, `web@${A}`],
    [`web:1@${A}`, `docker.io/library/web:1@${A}`, `web:1@${A}`],
    ['a__b/c.d-e--f_g', 'docker.io/a__b/c.d-e--f_g', 'a__b/c.d-e--f_g'],
  ])('%s means %s', (text, whole, familiar) => {
    expect(formatReference(parseReference(text))).toBe(whole);
    expect(familiarReference(parseReference(text))).toBe(familiar);
  });

  it.each([
    ['', 'empty'],
    ['Web', 'lowercase'],
    ['team/Web', 'lowercase'],
    ['web:', 'not a tag'],
    ['web:-a', 'not a tag'],
    [`web:${'a'.repeat(129)}`, 'not a tag'],
    ['web@sha256:abc', 'not a digest'],
    ['a//b', 'no repository'],
    ['/web', 'no repository'],
    ['web/', 'no repository'],
    ['-web', 'no repository'],
    ['a..b', 'no repository'],
    ['a___b', 'no repository'],
    ['reg.example:0/a', 'out of range'],
    ['reg.example:x/a', 'host name'],
    ['reg_x.example/a', 'host name'],
    ['web\n', 'no repository'],
    [hexOf(A), 'are an id'],
    [`a/${'b'.repeat(255)}`, 'longer than'],
  ])('%j is refused: %s', (text, rule) => {
    expect(() => parseReference(text)).toThrow(rule);
  });

  it('print and parse again to the same', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}([._-][a-z0-9]{1,8})?$/);
    const registry = fc.constantFrom(
      'docker.io',
      'localhost',
      'localhost:5000',
      'r.example',
      '10.0.0.1:443',
      '[fe80::1]',
    );
    const reference = fc.record(
      {
        registry,
        repository: fc.array(part, { minLength: 2, maxLength: 4 }).map((p) => p.join('/')),
        tag: fc.stringMatching(/^\w[\w.-]{0,20}$/),
        digest: fc.constant(A),
      },
      { requiredKeys: ['registry', 'repository'] },
    );
    fc.assert(
      fc.property(reference, (r) => {
        expect(parseReference(formatReference(r))).toEqual(r);
        expect(parseReference(familiarReference(r))).toEqual(r);
      }),
    );
  });

  it('never fail with anything but REFERENCE_INVALID', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'aZ0/:@._-[]% é\0') }), (text) => {
        try {
          parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'REFERENCE_INVALID' });
        }
      }),
    );
  });

  it('mean latest when they name neither tag nor digest', () => {
    expect(withDefaultTag(parseReference('web')).tag).toBe('latest');
    expect(withDefaultTag(parseReference(`web@${A}`)).tag).toBeUndefined();
  });
});

describe('platforms', () => {
  const host = hostPlatform('x64');

  it('have one spelling', () => {
    const print = (text: string): string => formatPlatform(parsePlatform(text, host));
    expect(
      ['linux/x86_64', 'aarch64', 'linux/arm64/v8', 'linux/arm', 'armhf', 'linux/arm/7', 'windows'].map(print),
    ).toEqual([
      'linux/amd64',
      'linux/arm64',
      'linux/arm64',
      'linux/arm/v7',
      'linux/arm/v7',
      'linux/arm/v7',
      'windows/amd64',
    ]);
    for (const bad of ['', 'a/b/c/d', 'linux/', 'plan10', 'li nux/amd64'])
      expect(() => print(bad)).toThrow('not a platform');
  });

  it('accept older variants and, unless exact, the 32-bit sister, best first', () => {
    expect(acceptable({ os: 'linux', architecture: 'arm', variant: 'v7' }).map(formatPlatform)).toEqual([
      'linux/arm/v7',
      'linux/arm/v6',
      'linux/arm/v5',
    ]);
    const entries = ['linux/386', 'linux/arm/v6', 'linux/amd64/v2', 'linux/amd64'].map((p) => ({
      platform: parsePlatform(p, host),
    }));
    expect(choosePlatform(entries, host)).toBe(entries[3]);
    expect(choosePlatform(entries, parsePlatform('linux/amd64/v3', host))).toBe(entries[2]);
    expect(choosePlatform(entries.slice(0, 1), host)).toBe(entries[0]);
    expect(choosePlatform(entries.slice(0, 1), host, { exact: true })).toBeUndefined();
    expect(choosePlatform([{ platform: { os: 'unknown', architecture: 'unknown' } }, {}], host)).toBeUndefined();
  });
});

describe('manifests', () => {
  const layer = { mediaType: MEDIA.ociLayerGzip, digest: A, size: 1 };
  const image = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { ...layer, mediaType: MEDIA.ociConfig },
    layers: [layer],
  };
  const parse = (json: unknown, type?: string) => parseManifest(Buffer.from(JSON.stringify(json)), type, '$');

  it('are told apart by media type and keep what they do not know', () => {
    expect(parse({ ...image, future: 1 })).toMatchObject({ kind: 'image', manifest: { future: 1 } });
    expect(parse({ ...image, mediaType: undefined }, MEDIA.dockerManifest)).toMatchObject({
      mediaType: MEDIA.dockerManifest,
    });
    expect(parse({ schemaVersion: 2, manifests: [layer] })).toMatchObject({ kind: 'index', mediaType: MEDIA.ociIndex });
    expect(parse(image, 'application/vnd.oci.image.manifest.v1+json; charset=utf-8')).toMatchObject({ kind: 'image' });
  });

  it('that could be read as two things are refused', () => {
    expect(() => parse({ ...image, manifests: [layer] })).toThrow('at once');
    expect(() => parse(image, MEDIA.ociIndex)).toThrow('was sent as');
  });

  it.each([
    [{ ...image, schemaVersion: 1 }, '$.schemaVersion'],
    [{ ...image, layers: Array(501).fill(layer) }, 'more than 500'],
    [{ ...image, layers: [{ ...layer, size: -1 }] }, '$.layers[0].size'],
    [{ ...image, layers: [{ ...layer, size: 2 ** 60 }] }, '$.layers[0].size'],
    [{ ...image, layers: [{ ...layer, digest: '../../etc' }] }, '$.layers[0].digest'],
    [{ ...image, config: undefined }, '$.config'],
    [{ ...image, mediaType: 'application/vnd.docker.distribution.manifest.v1+prettyjws' }, 'schema 1|not one we read'],
    [[], 'not a JSON object'],
    ['x', 'not a JSON object'],
  ])('%# broken ones name the place', (json, message) => {
    expect(() => parse(json)).toThrow(new RegExp(message.replace(/[[\]$.]/g, '\\$&')));
  });

  it('that are not JSON, not UTF-8 or too large are refused before they are read', () => {
    expect(() => parseManifest(Buffer.from([0x7b, 0xff, 0x7d]), undefined, 'm')).toThrow('m: is not JSON in UTF-8');
    expect(() => parseManifest(Buffer.alloc(5_000_000, 32), undefined, 'm')).toThrow('larger than');
  });

  it('any bytes give a manifest or a coded error', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          parseManifest(Buffer.from(text), undefined, 'm');
        } catch (error) {
          expect(error).toHaveProperty('code');
        }
      }),
    );
  });

  it('configurations are Docker’s and OCI’s alike', () => {
    const config = parseImageConfig(
      Buffer.from(
        JSON.stringify({
          architecture: 'amd64',
          os: 'linux',
          config: { Cmd: ['sh'], Labels: null },
          rootfs: { type: 'layers', diff_ids: [A] },
          docker_version: '1',
        }),
      ),
      'c',
    );
    expect(config).toMatchObject({ config: { Cmd: ['sh'] }, rootfs: { diff_ids: [A] }, docker_version: '1' });
    expect(config.config?.Labels).toBeUndefined();
  });

  it('layers say how they are packed', () => {
    expect(layerCompression('application/vnd.oci.image.layer.nondistributable.v1.tar+zstd', 'l')).toBe('zstd');
    expect(layerCompression(MEDIA.dockerForeignGzip, 'l')).toBe('gzip');
    expect(() => layerCompression('application/x-tar', 'l')).toThrow('not one we read');
  });
});
