import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { seededRandom } from '#base/random.ts';
import { AnnouncedContexts } from '#build/context/announced.ts';
import { receiveContext } from '#build/context/classic.ts';
import { FileStore } from '#build/context/files.ts';
import { receiveTar } from '#build/context/receive.ts';
import { parseGitUrl } from '#build/context/remote.ts';
import { ContextTree, treeDigest, treeSource } from '#build/context/tree.ts';
import { packingOf, peek, unpacked } from '#build/context/unpack.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { entryWith, type TarEntry } from '#image/tar/entry.ts';
import { endOfArchive, member } from '#image/tar/writer.ts';
import { fileHead } from '#spec/estiba/build.ts';
import { digestOf, hexOf } from '#spec/image/digest.ts';

function tar(...members: (Partial<TarEntry> & { path: string; text?: string })[]): Buffer {
  const parts = members.map(({ text = '', ...said }) =>
    member(entryWith({ uid: 1000, gid: 1000, mtimeSec: 1, ...said }), Buffer.from(text)),
  );
  return Buffer.concat([...parts, endOfArchive()]);
}

const dir = mkdtempSync(join(tmpdir(), 'estiba-build-context-'));
let files: FileStore;
beforeEach(async () => {
  files = await FileStore.openAt(join(dir, 'files'), systemClock, seededRandom(Math.floor(Math.random() * 2 ** 31)));
});
afterAll(() => rmSync(dir, { recursive: true }));

const receive = (bytes: Buffer): Promise<ContextTree> => receiveTar(Readable.from([bytes]), files, { what: 'test' });

async function textOf(tree: ContextTree, path: string): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of treeSource(tree, 'test', (digest) => files.open(digest)).open(path)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

describe('receiveTar', () => {
  it('keeps names, modes, links and bytes, whatever the pieces they come in', async () => {
    const bytes = tar(
      { path: 'd', type: 'dir', mode: 0o750 },
      { path: 'd/a', text: 'alpha' },
      { path: 'd/b', type: 'hardlink', linkTarget: 'd/a' },
      { path: 'l', type: 'symlink', linkTarget: '../../etc/passwd' },
      { path: 'big', text: 'x'.repeat(700_000) },
    );
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 511, max: 100_000 }), async (size) => {
        const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
          bytes.subarray(i * size, (i + 1) * size),
        );
        const tree = await receiveTar(Readable.from(pieces), files, { what: 'test' });
        expect([...tree.walk()].map(([path, node]) => `${path} ${node.type} ${node.mode.toString(8)}`)).toEqual([
          'big file 644',
          'd dir 750',
          'd/a file 644',
          'd/b file 644',
          'l symlink 644',
        ]);
        expect(await textOf(tree, 'd/b')).toBe('alpha');
        expect((await textOf(tree, 'big')).length).toBe(700_000);
      }),
      { numRuns: 10 },
    );
  });

  it('refuses what leads through a link, and stays inside for the rest', async () => {
    await expect(
      receive(tar({ path: 'l', type: 'symlink', linkTarget: '/etc' }, { path: 'l/passwd', text: 'x' })),
    ).rejects.toMatchObject({
      code: 'CONTEXT_INVALID',
    });
    await expect(receive(tar({ path: '../../out', text: 'x' }))).rejects.toMatchObject({ code: 'LAYER_INVALID' });
    const tree = await receive(tar({ path: 'l', type: 'symlink', linkTarget: '../../../etc/passwd' }));
    const source = treeSource(tree, 'test', (digest) => files.open(digest));
    expect(await resolveIn(source, 'l')).toEqual({ path: 'etc/passwd', info: undefined });
  });

  it('ends links that go round', async () => {
    const tree = await receive(
      tar({ path: 'a', type: 'symlink', linkTarget: 'b' }, { path: 'b', type: 'symlink', linkTarget: 'a' }),
    );
    await expect(
      resolveIn(
        treeSource(tree, 'test', (d) => files.open(d)),
        'a',
      ),
    ).rejects.toMatchObject({ code: 'BUILD_LINKS' });
  });

  it('is the same content whatever the times', async () => {
    const one = await receive(tar({ path: 'a', text: '1', mtimeSec: 5 }));
    const two = await receive(tar({ path: 'a', text: '1', mtimeSec: 900 }));
    expect(treeDigest(two)).toBe(treeDigest(one));
    expect(treeDigest(await receive(tar({ path: 'a', text: '1', mode: 0o600 })))).not.toBe(treeDigest(one));
    expect(treeDigest(await receive(tar({ path: 'a', text: '2' })))).not.toBe(treeDigest(one));
  });

  it('counts files and bytes against a bound', () => {
    const tree = new ContextTree({ entries: 2, contentBytes: 10 });
    const node = {
      type: 'file' as const,
      mode: 0,
      uid: 0,
      gid: 0,
      mtimeSec: 0,
      linkTarget: '',
      deviceMajor: 0,
      deviceMinor: 0,
    };
    tree.add('a', { ...node, size: 4 });
    expect(() => tree.add('b', { ...node, size: 7 })).toThrow(/larger than 10 bytes/);
    expect(() => tree.add('c', { ...node, size: 0 })).toThrow(/beyond the 2 files/);
  });
});

describe('receiveContext', () => {
  it('hides the Dockerfile and .dockerignore where the latter says so, and only from COPY', async () => {
    const bytes = tar(
      { path: 'Dockerfile', text: 'FROM x' },
      { path: '.dockerignore', text: 'Dockerfile\n.dockerignore' },
      { path: 'a', text: '' },
    );
    const { context } = await receiveContext(Readable.from([gzipSync(bytes)]), 'Dockerfile', { files });
    expect(treeSource(context, 'test', (d) => files.open(d)).list('')).toEqual(['a']);
    expect(context.find('Dockerfile')).toBeDefined();
  });

  it('says that text is no context', async () => {
    await expect(receiveContext(Readable.from([Buffer.from('FROM x\n')]), 'Dockerfile', { files })).rejects.toThrow(
      'is no tar archive',
    );
  });
});

describe('FileStore', () => {
  it('finds out that a file changed on disk, and forgets it', async () => {
    const digest = await files.put(Buffer.from('right'));
    const hex = hexOf(digest);
    writeFileSync(join(dir, 'files', hex.slice(0, 2), hex.slice(2)), 'wrong');
    const read = async (): Promise<void> => {
      for await (const _ of files.open(digest));
    };
    await expect(read()).rejects.toMatchObject({ code: 'CONTEXT_FILE_LOST' });
    expect(files.has(digest)).toBe(false);
    await files.put(Buffer.from('right'));
    await expect(read()).resolves.toBeUndefined();
  });

  it('knows after a restart what it had', async () => {
    const digest = await files.put(Buffer.from('kept'));
    expect((await FileStore.openAt(join(dir, 'files'), systemClock, seededRandom(1))).has(digest)).toBe(true);
  });
});

describe('AnnouncedContexts', () => {
  const line = (path: string, text: string): string =>
    `${JSON.stringify({ p: path, t: 'file', m: 0o644, ts: 1, s: text.length, h: hexOf(digestOf(text)) })}\n`;

  it('asks for what is missing, once, and for nothing the second time', async () => {
    const contexts = new AnnouncedContexts(files, systemClock, seededRandom(3));
    const [one, two] = [`one ${Math.random()}`, `two ${Math.random()}`];
    const lines = [Buffer.from(line('a', one) + line('b', two) + line('c', one))];
    const first = await contexts.announce(Readable.from(lines));
    expect(first.missing.sort()).toEqual([hexOf(digestOf(one)), hexOf(digestOf(two))].sort());
    expect(() => contexts.take(first.id)).toThrow(/no longer in the cache/);
    const sent = Buffer.concat(
      [one, two].flatMap((text) => [fileHead(hexOf(digestOf(text)), text.length), Buffer.from(text)]),
    );
    const halves = [sent.subarray(0, 17), sent.subarray(17, 60), sent.subarray(60)];
    expect(await contexts.receive(Readable.from(halves))).toBe(2);
    expect(await textOf(contexts.take(first.id), 'c')).toBe(one);
    expect((await contexts.announce(Readable.from(lines))).missing).toEqual([]);
  });

  it.each([
    ['{"p":"../out","t":"file","m":420,"ts":1,"s":0,"h":"' + 'a'.repeat(64) + '"}', 'is no relative path'],
    ['{"p":"/etc/x","t":"dir","m":420,"ts":1}', 'is no relative path'],
    ['{"p":"a","t":"file","m":420,"ts":1}', 'has no digest'],
    ['{"p":"a","t":"block","m":420,"ts":1}', 'is none of'],
    ['nonsense', 'is not JSON'],
    [`{"p":"l","t":"symlink","m":511,"ts":1,"l":"/etc"}\n{"p":"l/x","t":"dir","m":493,"ts":1}`, 'leads through l'],
  ])('refuses %s', async (text, message) => {
    const contexts = new AnnouncedContexts(files, systemClock, seededRandom(4));
    await expect(contexts.announce(Readable.from([Buffer.from(text)]))).rejects.toThrow(message);
  });

  it('refuses bytes that are not what their head says, and a body that is cut', async () => {
    const contexts = new AnnouncedContexts(files, systemClock, seededRandom(5));
    const wrong = Buffer.concat([fileHead('0'.repeat(64), 3), Buffer.from('abc')]);
    await expect(contexts.receive(Readable.from([wrong]))).rejects.toThrow('it changed meanwhile');
    await expect(contexts.receive(Readable.from([wrong.subarray(0, 42)]))).rejects.toThrow('ends too early');
  });
});

describe('packingOf', () => {
  it('knows an archive by its content alone', () => {
    const plain = tar({ path: 'a', text: 'x' });
    expect(packingOf(plain)).toBe('tar');
    expect(packingOf(gzipSync(plain))).toBe('gzip');
    expect(packingOf(Buffer.from('FROM busybox\n'.repeat(50)))).toBeUndefined();
    expect(packingOf(Buffer.alloc(0))).toBeUndefined();
  });

  it.each(['bzip2', 'xz', 'gzip'] as const)('unpacks %s, and says what is wrong with a broken one', async (packing) => {
    const { execFileSync } = await import('node:child_process');
    const packed = execFileSync(packing, ['-c'], { input: 'inside '.repeat(1000) });
    const chunks: Buffer[] = [];
    for await (const chunk of unpacked(packing, Readable.from([packed]), 'x')) chunks.push(chunk);
    expect(Buffer.concat(chunks).toString()).toBe('inside '.repeat(1000));
    const broken = async (): Promise<void> => {
      for await (const _ of unpacked(packing, Readable.from([packed.subarray(0, packed.length / 2)]), 'x'));
    };
    await expect(broken()).rejects.toThrow();
  });

  it('gives back what it looked at', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 20 })), fc.nat(40), async (chunks, n) => {
        const { head, whole } = await peek(
          Readable.from(
            chunks.map((c) => Buffer.from(c)),
            { objectMode: true },
          ),
          n,
        );
        const all = Buffer.concat(chunks);
        const read: Buffer[] = [];
        for await (const chunk of whole) read.push(Buffer.from(chunk));
        expect(head.equals(all.subarray(0, n))).toBe(true);
        expect(Buffer.concat(read).equals(all)).toBe(true);
      }),
    );
  });
});

describe('parseGitUrl', () => {
  it.each([
    ['https://h/r.git', ['https://h/r.git', '', '']],
    ['https://h/r.git#v1', ['https://h/r.git', 'v1', '']],
    ['https://h/r.git#v1:sub/dir', ['https://h/r.git', 'v1', 'sub/dir']],
    ['git@h:r.git#:../../etc', ['git@h:r.git', '', 'etc']],
  ])('%s', (url, [remote, ref, subdirectory]) => {
    expect(parseGitUrl(url)).toEqual({ remote, ref, subdirectory });
  });
});
