import { afterEach, describe, expect, it } from 'vitest';
import { type ContentStore, writeBlob } from '#image/content.ts';
import { digestOf } from '#spec/image/digest.ts';

export interface ContentUnderTest {
  store: ContentStore;
  /** Changes one byte of a stored blob behind the store's back. */
  flip(digest: ReturnType<typeof digestOf>): Promise<void>;
  /** The store as a restarted process finds it; undefined where nothing outlives one. */
  reopen?: () => Promise<ContentStore>;
  dispose(): Promise<void>;
}

/** The same cases for disk and memory. */
export function contentStoreConformance(name: string, make: () => Promise<ContentUnderTest>): void {
  const opened: ContentUnderTest[] = [];
  const open = async (): Promise<ContentUnderTest> => {
    const under = await make();
    opened.push(under);
    return under;
  };
  afterEach(async () => {
    for (const under of opened.splice(0)) await under.dispose();
  });
  const body = Buffer.from('hello, blob '.repeat(50_000));
  const digest = digestOf(body);

  describe(`${name} is a content store`, () => {
    it('gives back what was written, whole and in parts', async () => {
      const { store } = await open();
      expect(await writeBlob(store, 'r', [body.subarray(0, 10), body.subarray(10)], { digest })).toEqual({
        digest,
        sizeBytes: body.length,
      });
      expect(await store.info(digest)).toEqual({ digest, sizeBytes: body.length });
      expect((await collect(store, digest)).equals(body)).toBe(true);
      expect((await collect(store, digest, { offset: 7, length: 9 })).toString()).toBe(body.subarray(7, 16).toString());
      expect((await collect(store, digest, { offset: body.length - 3 })).toString()).toBe(body.subarray(-3).toString());
      expect((await collect(store, digest, { offset: body.length + 5 })).length).toBe(0);
      expect((await collect(store, digest, { offset: 0, length: 0 })).length).toBe(0);
      expect((await store.read(digest, body.length)).equals(body)).toBe(true);
    });

    it('takes small blobs from memory, also twice at once', async () => {
      const { store, reopen } = await open();
      const put = await Promise.all([store.put(body), store.put(body)]);
      expect(put).toEqual([
        { digest, sizeBytes: body.length },
        { digest, sizeBytes: body.length },
      ]);
      expect((await (reopen ? await reopen() : store).read(digest, body.length)).equals(body)).toBe(true);
      expect(await store.ingests()).toEqual([]);
    });

    it('holds empty blobs and both digest algorithms', async () => {
      const { store } = await open();
      for (const d of [digestOf('', 'sha512'), digestOf('')]) {
        await writeBlob(store, d, [], { digest: d });
        expect(await store.info(d)).toEqual({ digest: d, sizeBytes: 0 });
        expect((await collect(store, d)).length).toBe(0);
      }
      await writeBlob(store, 'x', [body], { digest: digestOf(body, 'sha512') });
      expect((await store.read(digestOf(body, 'sha512'), 1e6)).equals(body)).toBe(true);
    });

    it('keeps nothing of a body with another digest, size or of too many bytes', async () => {
      const { store } = await open();
      await expect(writeBlob(store, 'r', [body], { digest: digestOf('other') })).rejects.toMatchObject({
        code: 'DIGEST_MISMATCH',
      });
      await expect(writeBlob(store, 'r', [body], { sizeBytes: body.length + 1 })).rejects.toMatchObject({
        code: 'SIZE_MISMATCH',
      });
      await expect(writeBlob(store, 'r', [body], { maxBytes: 100 })).rejects.toMatchObject({ code: 'BLOB_TOO_LARGE' });
      expect(await store.info(digest)).toBeUndefined();
      expect(await store.ingests()).toEqual([]);
    });

    it('committing what is present succeeds and changes nothing', async () => {
      const { store } = await open();
      await writeBlob(store, 'a', [body]);
      const twice = await Promise.all([writeBlob(store, 'b', [body]), writeBlob(store, 'c', [body], { digest })]);
      expect(twice.map((b) => b.digest)).toEqual([digest, digest]);
      expect(await store.ingests()).toEqual([]);
    });

    it('a transfer that was let go is taken up where it stood', async () => {
      const { store, reopen } = await open();
      const first = await store.ingest('r');
      await first.append(body.subarray(0, 1000));
      await expect(store.ingest('r')).rejects.toMatchObject({ code: 'INGEST_BUSY' });
      await first.close();
      await expect(first.append(body)).rejects.toMatchObject({ code: 'INGEST_CLOSED' });
      const later = (await reopen?.()) ?? store;
      expect(await later.ingests()).toMatchObject([{ ref: 'r', offset: 1000, held: false }]);
      const second = await later.ingest('r');
      expect(second.offset).toBe(1000);
      await second.append(body.subarray(second.offset));
      expect(await second.commit(digest)).toEqual({ digest, sizeBytes: body.length });
      expect(await later.ingests()).toEqual([]);
    });

    it('a whole blob has nothing of an earlier try in it', async () => {
      const { store, reopen } = await open();
      const cut = await store.ingest('r');
      await cut.append(body.subarray(0, 1000));
      await cut.close();
      const later = (await reopen?.()) ?? store;
      expect(await writeBlob(later, 'r', [body])).toEqual({ digest, sizeBytes: body.length });
      expect(await later.ingests()).toEqual([]);
    });

    it('finds a changed byte when the blob is used, and sets the blob aside', async () => {
      const { store, flip } = await open();
      for (const use of [() => collect(store, digest), () => store.read(digest, 1e6), () => store.verify(digest)]) {
        await writeBlob(store, 'r', [body], { digest });
        await flip(digest);
        await expect(use()).rejects.toMatchObject({ code: 'BLOB_DAMAGED', data: { digest } });
        expect(await store.info(digest)).toBeUndefined();
        await expect(store.open(digest)).rejects.toMatchObject({ code: 'BLOB_NOT_FOUND' });
      }
    });

    it('leased blobs are not removed; released ones are', async () => {
      const { store } = await open();
      await writeBlob(store, 'r', [body]);
      const [one, two] = [store.lease('pull'), store.lease('push')];
      one.add(digest);
      one.add(digest);
      two.add(digest);
      one.release();
      one.release();
      expect(await store.remove(digest)).toBe(false);
      two.release();
      expect(await store.remove(digest)).toBe(true);
      expect(await store.info(digest)).toBeUndefined();
    });

    it('lists what is there', async () => {
      const { store } = await open();
      await writeBlob(store, 'r', [body]);
      await writeBlob(store, 's', [Buffer.from('x')]);
      const sizes: number[] = [];
      for await (const blob of store.list()) sizes.push(blob.sizeBytes);
      expect(sizes.sort((a, b) => a - b)).toEqual([1, body.length]);
    });

    it('a reader that has begun finishes although the blob is removed', async () => {
      const { store } = await open();
      await writeBlob(store, 'r', [body]);
      const stream = await store.open(digest);
      await store.remove(digest);
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk);
      expect(Buffer.concat(chunks).equals(body)).toBe(true);
    });
  });
}

async function collect(
  store: ContentStore,
  digest: ReturnType<typeof digestOf>,
  part?: { offset?: number; length?: number },
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await store.open(digest, part)) chunks.push(chunk);
  return Buffer.concat(chunks);
}
