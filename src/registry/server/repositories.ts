import type { Clock } from '#base/clock.ts';
import { KeyedSerial } from '#base/queue.ts';
import type { Digest } from '#spec/image/digest.ts';
import { get, type KeyValue, prefix, type Store, type TxnOp } from '#storage/store.ts';

/**
 * What lies in which repository, as keys of the node's store. Bytes are in the content store; a repository only links them.
 *
 *     registry/r/<repository>                          → when it was made
 *     registry/b/<repository>:<digest>                 → blob, its size
 *     registry/w/<digest>:<repository>                 → the same link the other way round, for mounts without a source
 *     registry/m/<repository>:<digest>                 → manifest: media type, size, subject
 *     registry/t/<repository>:<tag in lower case>!<tag>  → the manifest a tag names
 *     registry/s/<repository>:<subject>/<digest>       → referrer of a subject (which need not exist)
 *
 * `:` occurs in no repository name and `!` sorts before every character of a tag, so each list is one range in the order the
 * specification wants: tags without regard to case.
 */
export interface BlobLink {
  sizeBytes: number;
  linkedAtMs: number;
}

export interface ManifestRecord {
  digest: Digest;
  mediaType: string;
  sizeBytes: number;
  pushedAtMs: number;
  subject?: Digest;
  /** Of a manifest with a subject: what referrer lists show and filter by. */
  artifactType?: string;
  /** Nobody pushed it: it is here because the node has it under a name of ours, and for as long. */
  adopted?: true;
}

export interface TagRecord {
  tag: string;
  digest: Digest;
  /** As in ManifestRecord. */
  adopted?: true;
}

export interface Page<T> {
  items: T[];
  more: boolean;
}

/** Operations of one transaction, far below the store's own bound. */
const BATCH = 256;
const ROOT = 'registry';

export class Repositories {
  readonly #store: Store;
  readonly #clock: Clock;
  /** One writer a repository: checks and the writes that rest on them are not torn apart by another push or the collector. */
  readonly #writers = new KeyedSerial<string>('repository');

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Runs `work` while nobody else changes the repository. Not re-entrant. */
  exclusively<T>(repository: string, work: () => Promise<T>): Promise<T> {
    return this.#writers.run(repository, work);
  }

  async exists(repository: string): Promise<boolean> {
    return (await get(this.#store, `${ROOT}/r/${repository}`)) !== undefined;
  }

  /** Repository names after `after`, in order. */
  async list(after: string, limit: number): Promise<Page<string>> {
    const base = `${ROOT}/r/`;
    const page = await this.#page(base, after === '' ? '' : `${after}\u0001`, limit, true);
    return { items: page.items.map((kv) => kv.key.slice(base.length)), more: page.more };
  }

  async blob(repository: string, digest: Digest): Promise<BlobLink | undefined> {
    return decode<BlobLink>(await get(this.#store, `${ROOT}/b/${repository}:${digest}`));
  }

  async blobs(repository: string): Promise<{ digest: Digest; link: BlobLink }[]> {
    const base = `${ROOT}/b/${repository}:`;
    const { items } = await this.#store.range(prefix(base));
    return items.map((kv) => ({ digest: kv.key.slice(base.length) as Digest, link: decodeValue<BlobLink>(kv) }));
  }

  /** Repositories that link the blob. */
  async holders(digest: Digest, limit: number): Promise<string[]> {
    const base = `${ROOT}/w/${digest}:`;
    const { items } = await this.#store.range({ ...prefix(base), keysOnly: true, limit });
    return items.map((kv) => kv.key.slice(base.length));
  }

  async linkBlob(repository: string, digest: Digest, sizeBytes: number): Promise<void> {
    const link: BlobLink = { sizeBytes, linkedAtMs: this.#clock.now() };
    await this.#store.txn({
      ops: [
        this.#put(`${ROOT}/r/${repository}`, {}),
        this.#put(`${ROOT}/b/${repository}:${digest}`, link),
        this.#put(`${ROOT}/w/${digest}:${repository}`, {}),
      ],
    });
  }

  async unlinkBlob(repository: string, digest: Digest): Promise<boolean> {
    const key = `${ROOT}/b/${repository}:${digest}`;
    const { succeeded } = await this.#store.txn({
      when: [{ key, target: 'version', is: '>', to: 0 }],
      ops: [
        { do: 'delete', key },
        { do: 'delete', key: `${ROOT}/w/${digest}:${repository}` },
      ],
    });
    return succeeded;
  }

  async manifest(repository: string, digest: Digest): Promise<ManifestRecord | undefined> {
    return decode<ManifestRecord>(await get(this.#store, `${ROOT}/m/${repository}:${digest}`));
  }

  async manifests(repository: string): Promise<ManifestRecord[]> {
    const { items } = await this.#store.range(prefix(`${ROOT}/m/${repository}:`));
    return items.map((kv) => decodeValue<ManifestRecord>(kv));
  }

  async tag(repository: string, tag: string): Promise<Omit<TagRecord, 'tag'> | undefined> {
    return decode<Omit<TagRecord, 'tag'>>(await get(this.#store, tagKey(repository, tag)));
  }

  /** Tags after `after`, without regard to case. */
  async tags(repository: string, after: string, limit: number): Promise<Page<TagRecord>> {
    const base = `${ROOT}/t/${repository}:`;
    const from = after === '' ? '' : `${after.toLowerCase()}!${after}\u0001`;
    const page = await this.#page(base, from, limit, false);
    return { items: page.items.map(tagOf), more: page.more };
  }

  async *allTags(repository: string): AsyncIterable<TagRecord> {
    for (let last = ''; ; ) {
      const page = await this.tags(repository, last, BATCH);
      yield* page.items;
      last = page.items.at(-1)?.tag ?? '';
      if (!page.more) return;
    }
  }

  /** With tags that name it; `adopted` is theirs, the record has its own. */
  async putManifest(
    repository: string,
    record: Omit<ManifestRecord, 'pushedAtMs'>,
    tags: readonly string[],
    adopted: Pick<TagRecord, 'adopted'> = {},
  ): Promise<void> {
    const full: ManifestRecord = { ...record, pushedAtMs: this.#clock.now() };
    await this.#store.txn({
      ops: [
        this.#put(`${ROOT}/r/${repository}`, {}),
        this.#put(`${ROOT}/m/${repository}:${record.digest}`, full),
        ...(record.subject ? [this.#put(referrerKey(repository, record.subject, record.digest), full)] : []),
        ...tags.map((tag) => this.#put(tagKey(repository, tag), { digest: record.digest, ...adopted })),
      ],
    });
  }

  async deleteTag(repository: string, tag: string): Promise<boolean> {
    const { results } = await this.#store.txn({ ops: [{ do: 'delete', key: tagKey(repository, tag) }] });
    return results[0]?.do === 'delete' && results[0].deleted > 0;
  }

  /** Deletes a manifest and every tag that names it; returns those tags, or undefined when it was not there. */
  async deleteManifest(repository: string, digest: Digest): Promise<string[] | undefined> {
    const record = await this.manifest(repository, digest);
    if (!record) return undefined;
    const { items } = await this.#store.range(prefix(`${ROOT}/t/${repository}:`));
    const tags = items.filter((kv) => decodeValue<{ digest: Digest }>(kv).digest === digest).map((kv) => tagOf(kv).tag);
    // Tags first: a crash between two batches leaves a manifest with fewer tags, never a tag that names nothing.
    for (let i = 0; i < tags.length; i += BATCH) {
      const batch = tags.slice(i, i + BATCH);
      await this.#store.txn({ ops: batch.map((tag) => ({ do: 'delete', key: tagKey(repository, tag) })) });
    }
    const ops: TxnOp[] = [{ do: 'delete', key: `${ROOT}/m/${repository}:${digest}` }];
    if (record.subject) ops.push({ do: 'delete', key: referrerKey(repository, record.subject, digest) });
    await this.#store.txn({ ops });
    return tags;
  }

  /** Manifests of the repository whose subject is `subject`, by digest, after the digest `after`. */
  async referrers(repository: string, subject: Digest, after: string, limit: number): Promise<Page<ManifestRecord>> {
    const page = await this.#page(
      `${ROOT}/s/${repository}:${subject}/`,
      after === '' ? '' : `${after}\u0001`,
      limit,
      false,
    );
    return { items: page.items.map((kv) => decodeValue<ManifestRecord>(kv)), more: page.more };
  }

  /** Removes the name of a repository that links nothing any more. */
  async removeIfEmpty(repository: string): Promise<boolean> {
    for (const kind of ['b', 'm', 't']) {
      const { count } = await this.#store.range({ ...prefix(`${ROOT}/${kind}/${repository}:`), countOnly: true });
      if (count > 0) return false;
    }
    await this.#store.txn({ ops: [{ do: 'delete', key: `${ROOT}/r/${repository}` }] });
    return true;
  }

  async #page(base: string, from: string, limit: number, keysOnly: boolean): Promise<Page<KeyValue>> {
    const range = prefix(base);
    if (limit === 0) return { items: [], more: false };
    const { items, more } = await this.#store.range({ ...range, key: base + from, limit, keysOnly });
    return { items, more };
  }

  #put(key: string, value: object): TxnOp {
    return { do: 'put', key, value: Buffer.from(JSON.stringify(value)) };
  }
}

function tagKey(repository: string, tag: string): string {
  return `${ROOT}/t/${repository}:${tag.toLowerCase()}!${tag}`;
}

function tagOf(kv: KeyValue): TagRecord {
  return { ...decodeValue<Omit<TagRecord, 'tag'>>(kv), tag: kv.key.slice(kv.key.lastIndexOf('!') + 1) };
}

function referrerKey(repository: string, subject: Digest, digest: Digest): string {
  return `${ROOT}/s/${repository}:${subject}/${digest}`;
}

function decode<T>(kv: KeyValue | undefined): T | undefined {
  return kv && decodeValue<T>(kv);
}

/** Only this file writes these values, so they are not checked again. */
function decodeValue<T>(kv: KeyValue): T {
  return JSON.parse(Buffer.from(kv.value).toString('utf8')) as T;
}
