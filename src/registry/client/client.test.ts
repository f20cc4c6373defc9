import { randomBytes } from 'node:crypto';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { type ContentStore, writeBlob } from '#image/content.ts';
import { MemoryContentStore } from '#image/content-memory.ts';
import type { CredentialSource } from '#registry/client/credentials.ts';
import type { Progress } from '#registry/client/progress.ts';
import type { Registries, RegistriesOptions } from '#registry/registries.ts';
import { hashPassword } from '#registry/server/access.ts';
import { testRegistry } from '#registry/server/testing.ts';
import { plainRegistries } from '#registry/testing.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';

const AMD64 = { os: 'linux', architecture: 'amd64' };

describe('push and pull', () => {
  it('bring an image over byte for byte; again costs no bytes', async () => {
    await using r = await testRegistry();
    const here = node();
    const root = await makeImage(here.content, [randomBytes(300_000), randomBytes(10), randomBytes(0)]);
    await here.registries.push(`${r.host}/team/app:1`, root, quiet());
    const there = node();
    const pulled = await there.registries.pull(`${r.host}/team/app:1`, { ...quiet(), platform: AMD64 });
    expect([pulled.root.digest, pulled.changed, pulled.digests.length]).toEqual([root, true, 5]);
    for (const digest of pulled.digests)
      expect(await there.content.info(digest)).toEqual(await here.content.info(digest));
    const again = await there.registries.pull(`${r.host}/team/app:1`, { ...quiet(), platform: AMD64 });
    expect(again.changed).toBe(false);
    const events: Progress[] = [];
    await here.registries.push(`${r.host}/team/app:2`, root, { onProgress: (e) => events.push(e) });
    expect(events.filter((e) => e.at === 'layer' && e.state === 'present')).toHaveLength(4);
  });

  it('an index is kept whole when all platforms are pulled, and one platform is chosen otherwise', async () => {
    await using r = await testRegistry();
    const here = node();
    const [amd, arm] = [
      await makeImage(here.content, [randomBytes(9)]),
      await makeImage(here.content, [randomBytes(9)]),
    ];
    const index = await makeIndex(here.content, [
      { digest: amd, platform: AMD64 },
      { digest: arm, platform: { os: 'linux', architecture: 'arm64' } },
    ]);
    await here.registries.push(`${r.host}/multi`, index, quiet());
    const one = node();
    const pulled = await one.registries.pull(`${r.host}/multi`, { ...quiet(), platform: AMD64 });
    expect([pulled.root.digest, pulled.image?.manifestDigest, await one.content.info(arm)]).toEqual([
      index,
      amd,
      undefined,
    ]);
    const both = node();
    await both.registries.pull(`${r.host}/multi`, { ...quiet(), platform: 'all' });
    expect(await both.content.info(arm)).toBeDefined();
    const wrong = one.registries.pull(`${r.host}/multi`, {
      ...quiet(),
      platform: { os: 'linux', architecture: 's390x' },
    });
    await expect(wrong).rejects.toMatchObject({
      code: 'PLATFORM_MISSING',
      data: { offered: ['linux/amd64', 'linux/arm64'] },
    });
    await expect(one.registries.push(`${r.host}/other`, index, quiet())).rejects.toMatchObject({
      code: 'IMAGE_INCOMPLETE',
    });
  });

  it('a blob that another repository has is mounted, not sent', async () => {
    await using r = await testRegistry();
    const here = node();
    const root = await makeImage(here.content, [randomBytes(1000)]);
    await here.registries.push(`${r.host}/a`, root, quiet());
    const events: Progress[] = [];
    await here.registries.push(`${r.host}/b`, root, { onProgress: (e) => events.push(e), mountFrom: () => ['a'] });
    expect(events.filter((e) => e.at === 'layer' && e.state === 'mounted')).toHaveLength(2);
  });

  it('a foreign layer is not sent, and is fetched from where its descriptor says', async () => {
    await using r = await testRegistry();
    const layer = randomBytes(5000);
    const asked: string[] = [];
    const elsewhere = await listening(
      createServer((request, response) => {
        asked.push(request.url ?? '');
        if (request.url === '/gone') response.writeHead(404).end();
        else response.end(layer);
      }),
    );
    const here = node();
    const config = Buffer.from(JSON.stringify({ ...AMD64, rootfs: { type: 'layers', diff_ids: [digestOf(layer)] } }));
    for (const bytes of [config, layer]) await writeBlob(here.content, digestOf(bytes), [bytes]);
    const manifest = JSON.parse(manifestOf(config, [layer]));
    manifest.layers[0].mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
    manifest.layers[0].urls = ['gone', 'layer'].map((name) => `http://${hostOf(elsewhere)}/${name}`);
    const bytes = Buffer.from(JSON.stringify(manifest));
    const { digest } = await writeBlob(here.content, digestOf(bytes), [bytes]);
    const events: Progress[] = [];
    await here.registries.push(`${r.host}/win`, digest, { onProgress: (e) => events.push(e) });
    expect(events.filter((e) => e.at === 'layer' && e.state === 'foreign')).toHaveLength(1);
    expect((await fetch(`${r.url}/v2/win/blobs/${digestOf(layer)}`)).status).toBe(404);
    const there = node();
    await there.registries.pull(`${r.host}/win`, { ...quiet(), platform: AMD64 });
    expect(await there.content.info(digestOf(layer))).toMatchObject({ sizeBytes: 5000 });
    expect(asked).toEqual(['/gone', '/layer']);
  });

  it('logs in with a token where the registry wants one, and says who lacks the right', async () => {
    const all = { repositories: ['**'], actions: ['pull' as const, 'push' as const] };
    const access = {
      accounts: [
        { name: 'alice', password: await hashPassword('pw'), rules: [all] },
        { name: 'bob', password: await hashPassword('pw'), rules: [] },
      ],
    };
    await using r = await testRegistry({ access });
    const as =
      (name: string): CredentialSource =>
      async () => ({ name, password: 'pw' });
    const alice = node({ credentials: as('alice') });
    const root = await makeImage(alice.content, [randomBytes(1000)]);
    await alice.registries.push(`${r.host}/a`, root, quiet());
    await alice.registries.push(`${r.host}/b`, root, { ...quiet(), mountFrom: () => ['a'] });
    const pull = (n: ReturnType<typeof node>) => n.registries.pull(`${r.host}/a`, { ...quiet(), platform: AMD64 });
    await expect(pull(node())).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED', data: { loggedIn: false } });
    await expect(pull(node({ credentials: as('bob') }))).rejects.toMatchObject({
      code: 'REGISTRY_UNAUTHORIZED',
      data: { loggedIn: true },
    });
    await expect(alice.registries.login(r.host, async () => ({ name: 'alice', password: 'no' }))).rejects.toMatchObject(
      { code: 'REGISTRY_UNAUTHORIZED' },
    );
    await alice.registries.login(r.host, as('alice'));
  });
});

it('a blob that was damaged here is not pushed, and the error says where the damage is', async () => {
  await using r = await testRegistry();
  const content = new MemoryContentStore(systemClock);
  const here = node({ content });
  const layer = randomBytes(1000);
  const root = await makeImage(content, [layer]);
  const bytes = content.raw(digestOf(layer));
  bytes[500] = (bytes[500] ?? 0) ^ 1;
  await expect(here.registries.push(`${r.host}/a`, root, quiet())).rejects.toMatchObject({ code: 'BLOB_DAMAGED' });
});

describe('broken lines', () => {
  it('a registry that is cut off in the middle of a layer is resumed with Range, not begun anew', async () => {
    await using r = await testRegistry();
    const here = node();
    const layer = randomBytes(3_000_000);
    const root = await makeImage(here.content, [layer]);
    await here.registries.push(`${r.host}/a`, root, quiet());
    // A relay that cuts each connection after 1 MB of answer.
    const relay = await cuttingRelay(r.host, { downBytes: 1_000_000 });
    const there = node();
    const events: Progress[] = [];
    const pulled = await there.registries.pull(`${relay.host}/a`, {
      onProgress: (e) => events.push(e),
      platform: AMD64,
    });
    expect((await there.content.info(digestOf(layer)))?.sizeBytes).toBe(3_000_000);
    expect(pulled.root.digest).toBe(root);
    expect(events.filter((e) => e.at === 'layer' && e.state === 'retrying').length).toBeGreaterThanOrEqual(2);
    expect(relay.downBytes()).toBeLessThan(3_700_000);
  });

  it('an upload that is cut off goes on where the registry says it stands', async () => {
    await using r = await testRegistry();
    const here = node();
    const layer = randomBytes(3_000_000);
    const root = await makeImage(here.content, [layer]);
    const relay = await cuttingRelay(r.host, { upBytes: 1_200_000 });
    await here.registries.push(`${relay.host}/a`, root, quiet());
    const there = node();
    await there.registries.pull(`${r.host}/a`, { ...quiet(), platform: AMD64 });
    expect((await there.content.read(digestOf(layer), 4_000_000)).equals(layer)).toBe(true);
    expect(relay.upBytes()).toBeLessThan(6_000_000);
  });

  it('what arrived before a failed pull is used by the next one', async () => {
    await using r = await testRegistry();
    const here = node();
    const layer = randomBytes(2_000_000);
    await here.registries.push(`${r.host}/a`, await makeImage(here.content, [layer]), quiet());
    const there = node();
    const stop = new AbortController();
    const half = there.registries.pull(`${r.host}/a`, {
      platform: AMD64,
      signal: stop.signal,
      onProgress: (e) => {
        if (e.at === 'layer' && e.state === 'downloading' && e.totalBytes > 1_000_000) stop.abort(new Error('enough'));
      },
    });
    await expect(half).rejects.toThrow('enough');
    const [left] = (await there.content.ingests()).filter((i) => i.ref.includes(digestOf(layer)));
    expect(left?.offset).toBeGreaterThan(0);
    await there.registries.pull(`${r.host}/a`, { ...quiet(), platform: AMD64 });
    expect(await there.content.info(digestOf(layer))).toBeDefined();
  });
});

describe('hostile or tired registries', () => {
  const serve = async (listener: RequestListener): Promise<string> => hostOf(await listening(createServer(listener)));
  const pull = (host: string, n = node()) => n.registries.pull(`${host}/a:1`, { ...quiet(), platform: AMD64 });

  it('an endless manifest, a wrong digest and a body longer than announced are refused, and nothing is kept', async () => {
    const endless = await serve((req, res) => {
      res.writeHead(200, { 'content-type': MEDIA.ociManifest });
      if (req.method === 'HEAD') return void res.end(); // writes are dropped there, and never push back
      const more = (): void => {
        while (!res.destroyed && res.write(Buffer.alloc(65_536, ' ')));
        res.once('drain', more);
      };
      more();
    });
    await expect(pull(endless)).rejects.toMatchObject({ code: 'REGISTRY_MISBEHAVED' });

    const n = node();
    const config = Buffer.from('{}');
    const manifest = manifestOf(config, [Buffer.from('layer')]);
    const lying = await serve((req, res) => {
      if (req.url?.includes('/manifests/'))
        res.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(req.method === 'HEAD' ? '' : manifest);
      else res.end(req.url?.includes(digestOf(config)) ? config : 'larger than was announced');
    });
    await expect(pull(lying, n)).rejects.toMatchObject({ code: 'REGISTRY_MISBEHAVED' });
    expect((await n.content.ingests()).length).toBe(0);

    const swapped = await serve((req, res) => {
      if (req.url?.includes('/manifests/'))
        res.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(req.method === 'HEAD' ? '' : manifest);
      else res.end(req.url?.includes(digestOf(config)) ? config : 'LAYER');
    });
    await expect(pull(swapped)).rejects.toMatchObject({ code: 'DIGEST_MISMATCH' });
  });

  it('redirects in a circle end, and credentials do not follow to another host', async () => {
    const circle = await serve((req, res) => res.writeHead(307, { location: req.url ?? '/' }).end());
    await expect(pull(circle)).rejects.toMatchObject({ code: 'REGISTRY_MISBEHAVED' });

    const heard: (string | undefined)[] = [];
    const config = Buffer.from('{}');
    const storage = await serve((req, res) => {
      heard.push(req.headers.authorization);
      res.end(config);
    });
    const manifest = manifestOf(config, []);
    const registry = await serve((req, res) => {
      if (!req.headers.authorization) res.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
      else if (req.url?.includes('/manifests/'))
        res.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(manifest);
      else res.writeHead(307, { location: `http://${storage}/blob` }).end();
    });
    await pull(registry, node({ credentials: async () => ({ name: 'a', password: 'b' }) }));
    expect(heard).toEqual([undefined]);
  });

  it('an index that nests without end and one with itself inside are refused', async () => {
    let made = 0;
    const docs = new Map<string, string>();
    const nest = (depth: number): Digest => {
      const inner = depth === 0 ? digestOf('x') : nest(depth - 1);
      const text = JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA.ociIndex,
        manifests: [{ mediaType: MEDIA.ociIndex, digest: inner, size: docs.get(inner)?.length ?? 1, platform: AMD64 }],
        n: made++,
      });
      docs.set(digestOf(text), text);
      return digestOf(text);
    };
    const root = nest(10);
    const deep = await serve((req, res) => {
      const reference = req.url?.split('/').at(-1) ?? '';
      res.writeHead(200, { 'content-type': MEDIA.ociIndex }).end(docs.get(reference === '1' ? root : reference) ?? '');
    });
    await expect(pull(deep)).rejects.toMatchObject({
      code: 'REGISTRY_MISBEHAVED',
      message: expect.stringContaining('nested deeper'),
    });
  });

  it('"too many requests" is waited out when it asks for little, and told when it asks for much', async () => {
    const config = Buffer.from('{}');
    const manifest = manifestOf(config, []);
    let refusals = 2;
    const busy = await serve((req, res) => {
      if (refusals-- > 0) res.writeHead(429, { 'retry-after': '0' }).end();
      else if (req.url?.includes('/manifests/'))
        res.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(req.method === 'HEAD' ? '' : manifest);
      else res.end(config);
    });
    await pull(busy);
    const closed = await serve((_, res) =>
      res
        .writeHead(429, { 'retry-after': '3600' })
        .end('{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}'),
    );
    await expect(pull(closed)).rejects.toMatchObject({
      code: 'REGISTRY_RATE_LIMITED',
      data: { retryAfterMs: 3_600_000, says: expect.anything() },
    });
  });
});

describe('mirrors and bootstrap', () => {
  it('mirrors are asked first, the registry when they do not have it', async () => {
    await using mirror = await testRegistry();
    await using origin = await testRegistry();
    const here = node();
    const [one, two] = [
      await makeImage(here.content, [randomBytes(5)]),
      await makeImage(here.content, [randomBytes(5)]),
    ];
    await here.registries.push(`${mirror.host}/hub/both`, one, quiet());
    await here.registries.push(`${origin.host}/both`, two, quiet());
    await here.registries.push(`${origin.host}/only`, two, quiet());
    const there = node({
      table: { registries: { [origin.host]: { mirrors: ['http://127.0.0.1:1', `http://${mirror.host}/hub`] } } },
    });
    const root = async (name: string) =>
      (await there.registries.pull(`${origin.host}/${name}`, { ...quiet(), platform: AMD64 })).root.digest;
    expect(await root('both')).toBe(one);
    expect(await root('only')).toBe(two);
  });

  it('bootstrap is asked only when nobody answers, never after an answer', async () => {
    await using r = await testRegistry();
    const asked: string[] = [];
    const n = node({
      bootstrap: async (reference) => {
        asked.push(reference.repository);
        return undefined;
      },
    });
    const pull = (name: string) => n.registries.pull(name, { ...quiet(), platform: AMD64 });
    await expect(pull(`${r.host}/missing`)).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' });
    await expect(pull('127.0.0.1:1/debian')).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
    expect(asked).toEqual(['debian']);
  });
});

function node(more: Partial<RegistriesOptions> = {}): { content: ContentStore; registries: Registries } {
  const content = new MemoryContentStore(systemClock);
  const registries = plainRegistries(content, more);
  onTestFinished(() => registries.close());
  return { content: more.content ?? content, registries };
}

function quiet(): { onProgress: () => void } {
  return { onProgress: () => undefined };
}

function manifestOf(config: Buffer, layers: Buffer[]): string {
  const descriptor = (mediaType: string, bytes: Buffer) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.byteLength,
  });
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: descriptor(MEDIA.ociConfig, config),
    layers: layers.map((l) => descriptor(MEDIA.ociLayer, l)),
  });
}

async function makeImage(content: ContentStore, layers: Buffer[]): Promise<Digest> {
  const config = Buffer.from(
    JSON.stringify({
      ...AMD64,
      rootfs: { type: 'layers', diff_ids: layers.map((l) => digestOf(l)) },
      id: randomBytes(8).toString('hex'),
    }),
  );
  for (const bytes of [config, ...layers])
    await writeBlob(content, digestOf(bytes), [bytes], { digest: digestOf(bytes) });
  const manifest = Buffer.from(manifestOf(config, layers));
  return (await writeBlob(content, digestOf(manifest), [manifest])).digest;
}

async function makeIndex(content: ContentStore, entries: { digest: Digest; platform: object }[]): Promise<Digest> {
  const manifests = [];
  for (const entry of entries) {
    manifests.push({ mediaType: MEDIA.ociManifest, ...entry, size: (await content.info(entry.digest))?.sizeBytes });
  }
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }));
  return (await writeBlob(content, digestOf(bytes), [bytes])).digest;
}

async function listening(server: Server): Promise<Server> {
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', () => ready()));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return server;
}

function hostOf(server: Server | import('node:net').Server): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Passes bytes on to a registry and cuts a connection when it has carried so many, as a registry killed now and then would. */
async function cuttingRelay(to: string, limits: { downBytes?: number; upBytes?: number }) {
  const { createServer: createRelay } = await import('node:net');
  let down = 0;
  let up = 0;
  const relay = createRelay((client) => {
    const server = connect(Number(to.split(':')[1]), '127.0.0.1');
    let [ownDown, ownUp] = [0, 0];
    const cut = (): void => {
      client.destroy();
      server.destroy();
    };
    client.on('error', cut).on('close', cut);
    server.on('error', cut).on('close', cut);
    client.on('data', (part) => {
      ownUp += part.byteLength;
      up += part.byteLength;
      if (ownUp > (limits.upBytes ?? Number.POSITIVE_INFINITY)) server.end(part, cut);
      else if (!server.write(part)) client.pause();
    });
    server.on('drain', () => client.resume());
    server.on('data', (part) => {
      ownDown += part.byteLength;
      down += part.byteLength;
      if (ownDown > (limits.downBytes ?? Number.POSITIVE_INFINITY)) client.end(part, cut);
      else if (!client.write(part)) server.pause();
    });
    client.on('drain', () => server.resume());
  });
  await new Promise<void>((ready) => relay.listen(0, '127.0.0.1', () => ready()));
  onTestFinished(() => void relay.close());
  return { host: hostOf(relay), downBytes: () => down, upBytes: () => up };
}
