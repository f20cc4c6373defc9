import { readdirSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeBlob } from '#image/content.ts';
import { destroyNode, openNode, scratch, type TestNode } from '#image/fixtures/node.ts';
import { directoryDriver, erofsDriver } from '#image/layer/driver.ts';
import { inlineUnpacker, type Unpacker } from '#image/layer/pool.ts';
import { entryWith } from '#image/tar/entry.ts';
import { endOfArchive, header, member } from '#image/tar/writer.ts';
import { digestOf } from '#spec/image/digest.ts';
import type { Compression } from '#spec/image/manifest.ts';

// What the reader refuses entry by entry is in tar/tar.test.ts. Here: what only shows in the tree or in the blob, at the store,
// by both drivers. Each is an error that names the blob (and the entry), and nothing of it is left.

let node: TestNode;
let limits: { contentBytes: number; entries: number } | undefined;
const bounded: Unpacker = {
  ...inlineUnpacker,
  unpack: (job, arrival) => inlineUnpacker.unpack(limits ? { ...job, limits } : job, arrival),
};

describe.each([erofsDriver, directoryDriver('mine')])('driver $form', (driver) => {
  beforeEach(async () => {
    limits = undefined;
    node = await openNode(await scratch(), bounded, driver);
  });
  afterEach(() => destroyNode(node));

  it.each<[string, Buffer[], string, RegExp]>([
    [
      'a file below a link that leads out',
      [link('out', '/tmp'), file('out/evil')],
      'out/evil',
      /a symlink and not a directory/,
    ],
    [
      'a link in the place of a directory',
      [dir('d'), file('d/x'), link('d', '/etc')],
      'd',
      /twice: as dir and as symlink/,
    ],
    [
      'a directory in the place of a link',
      [link('d', '/etc'), dir('d'), file('d/x')],
      'd',
      /twice: as symlink and as dir/,
    ],
    ['a file in the place of a directory', [dir('d'), file('d/x'), file('d')], 'd', /twice: as dir and as file/],
    ['a file twice', [file('x'), file('x')], 'x', /twice: as file and as file/],
    ['a hard link to what is not in the layer', [hard('x', 'etc/shadow')], 'x', /not in the layer before it/],
    ['a hard link through a link', [link('l', '/etc'), hard('x', 'l/shadow')], 'x', /not in the layer before it/],
    ['a hard link to a directory', [dir('d'), hard('x', 'd')], 'x', /to a directory/],
    ['a hard link to itself', [hard('x', 'x')], 'x', /not in the layer before it/],
    ['a whiteout of the directory above', [file('d/.wh...')], 'd/.wh...', /whiteout of no name/],
    [
      'an attribute that redirects overlayfs',
      [xattr('x', 'trusted.overlay.redirect')],
      'x',
      /would redirect overlayfs/,
    ],
  ])('%s', async (_, parts, entry, rule) => {
    const error = await refusal(Buffer.concat([...parts, endOfArchive()]));
    expect(error).toMatchObject({ code: 'LAYER_INVALID', data: { entry } });
    expect(error.message).toMatch(rule);
  });

  const tar = Buffer.concat([
    file('data', Array.from({ length: 60 }, (_, i) => digestOf(String(i)).slice(-9)).join()),
    endOfArchive(),
  ]);

  it('a blob that is cut or bent anywhere', async () => {
    const packed = gzipSync(tar);
    const bent = (at: number): Buffer => {
      const copy = Buffer.from(packed);
      copy[at] = (copy[at] ?? 0) ^ 0x10;
      return copy;
    };
    // A bit of gzip's own header, or of a distance within zeros, changes nothing that is unpacked: the blob's digest tells it.
    const isSame = (bytes: Buffer): boolean => {
      try {
        return gunzipSync(bytes).equals(tar);
      } catch {
        return false;
      }
    };
    for (let at = 0; at < packed.length; at += 7) {
      if (!isSame(bent(at))) expect(await refusal(bent(at), 'gzip')).toHaveProperty('code');
      expect(await refusal(packed.subarray(0, at), 'gzip')).toMatchObject({ code: 'LAYER_INVALID' });
    }
  });

  it('a blob of another kind than its media type says', async () => {
    expect(await refusal(tar, 'gzip')).toMatchObject({ code: 'LAYER_INVALID' });
    expect(await refusal(tar, 'zstd')).toMatchObject({ code: 'LAYER_INVALID' });
    expect(await refusal(gzipSync(tar), 'none')).toMatchObject({ code: 'LAYER_INVALID' });
  });

  it('a bomb is told as such when it passes the bound, before it is on disk', async () => {
    limits = { contentBytes: 1_000_000, entries: 100 };
    const bomb = gzipSync(Buffer.concat([file('zeros', Buffer.alloc(50_000_000)), endOfArchive()]));
    expect(bomb.length).toBeLessThan(60_000);
    const error = await refusal(bomb, 'gzip');
    expect(error).toMatchObject({ code: 'LAYER_INVALID', data: { entry: 'zeros' } });
    expect(error.message).toContain('larger than the 1000000 bytes');
    const swarm = Buffer.concat([...Array.from({ length: 200 }, (_, i) => file(`f${i}`)), endOfArchive()]);
    expect((await refusal(swarm)).message).toMatch(/100/);
  });

  it('more than the disk has room for is refused by its header', async () => {
    const huge = Buffer.concat([header(entryWith({ path: 'huge', size: 2 ** 42 })), Buffer.alloc(4096)]);
    const error = await refusal(huge);
    expect(error).toMatchObject({ code: 'LAYER_INVALID', data: { entry: 'huge' } });
    expect(error.message).toContain('larger than');
  });
});

async function refusal(packed: Buffer, compression: Compression = 'none'): Promise<Error> {
  const { digest } = await writeBlob(node.content, digestOf(packed), [packed]);
  const error = await node.layers.ensure({ blob: digest, compression }).then(
    () => new Error('it was taken'),
    (reason: Error) => reason,
  );
  expect(error.message).toContain(digest);
  expect(await readdir(join(node.root, 'data/layers'))).toEqual(['none']);
  expect(readdirSync(join(node.root, 'data/blobs/ingest'))).toEqual([]);
  expect(node.layers.list()).toEqual([]);
  return error;
}

function file(path: string, data: string | Buffer = ''): Buffer {
  return member(entryWith({ path }), Buffer.from(data));
}

function dir(path: string): Buffer {
  return header(entryWith({ path, type: 'dir', mode: 0o755 }));
}

function link(path: string, linkTarget: string): Buffer {
  return header(entryWith({ path, type: 'symlink', linkTarget }));
}

function hard(path: string, linkTarget: string): Buffer {
  return header(entryWith({ path, type: 'hardlink', linkTarget }));
}

function xattr(path: string, name: string): Buffer {
  return header(entryWith({ path, xattrs: new Map([[name, Buffer.from('/etc')]]) }));
}
