import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger } from '#base/log.ts';
import { writeBlob } from '#image/content.ts';
import { hashPassword, hashSecret, patternOf } from '#registry/server/access.ts';
import { collectBytes, registryRoots } from '#registry/server/gc.ts';
import { parseRoute } from '#registry/server/route.ts';
import { type TestRegistry, testRegistry } from '#registry/server/testing.ts';
import { parseScopes } from '#registry/server/tokens.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { writeFileAtomic } from '#storage/files.ts';

const OCI = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';

describe('routes', () => {
  it('reads names with slashes from the end of the path', () => {
    expect(parseRoute('/v2/a/b/blobs/uploads/')).toEqual({ to: 'uploads', repository: 'a/b' });
    expect(parseRoute('/v2/blobs/manifests/tags/manifests/v1')).toEqual({
      to: 'manifest',
      repository: 'blobs/manifests/tags',
      reference: { tag: 'v1' },
    });
  });

  it.each([
    ['/v2/UPPER/manifests/x', 'NAME_INVALID'],
    ['/v2/a/../etc/manifests/x', 'NAME_INVALID'],
    ['/v2/a%2f..%2fb/manifests/x', 'NAME_INVALID'],
    ['/v2/a/blobs/sha256:..%2f..%2fetc', 'DIGEST_INVALID'],
    ['/v2/a/manifests/sha256:short', 'DIGEST_INVALID'],
    ['/v2/a/manifests/.hidden', 'MANIFEST_INVALID'],
    ['/v2/%ff/manifests/x', 'NAME_INVALID'],
    [`/v2/${'a/'.repeat(200)}b/manifests/x`, 'NAME_INVALID'],
    ['/v3/', 'UNSUPPORTED'],
  ])('%s is refused as %s', (path, wire) => {
    expect(() => parseRoute(path)).toThrow(expect.objectContaining({ data: expect.objectContaining({ wire }) }));
  });
});

describe('rights', () => {
  it('one star is one part of a name, two are any', () => {
    expect(patternOf('team/*').test('team/a')).toBe(true);
    expect(patternOf('team/*').test('team/a/b')).toBe(false);
    expect(patternOf('team/**').test('team/a/b')).toBe(true);
    expect(patternOf('a.b').test('axb')).toBe(false);
  });

  it('scopes name repositories, also behind a host with a port', () => {
    expect(parseScopes(['repository:a/b:pull,push repository:c:*', 'registry:catalog:*'])).toEqual([
      { repository: 'a/b', actions: ['pull', 'push'] },
      { repository: 'c', actions: ['pull', 'push', 'delete'] },
    ]);
  });
});

describe('uploads', () => {
  it('a chunk that is not the next is 416 with the place to go on from, and the upload goes on', async () => {
    await using r = await testRegistry();
    const location = await startUpload(r, 'a');
    await fetch(location, { method: 'PATCH', body: 'hello ', headers: { 'content-range': '0-5' } });
    const wrong = await fetch(location, { method: 'PATCH', body: 'x', headers: { 'content-range': '9-9' } });
    expect([wrong.status, wrong.headers.get('range')]).toEqual([416, '0-5']);
    const done = await fetch(`${location}?digest=${digestOf('hello world')}`, { method: 'PUT', body: 'world' });
    expect(done.status).toBe(201);
    expect(await (await fetch(`${r.url}/v2/a/blobs/${digestOf('hello world')}`)).text()).toBe('hello world');
  });

  it('what arrived before the connection broke is kept, and a newer request takes the upload over', async () => {
    await using r = await testRegistry();
    const location = await startUpload(r, 'a');
    const { hostname, port, pathname } = new URL(location);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined); // the server cuts it in favour of the newer request
    socket.write(`PATCH ${pathname} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfirst half,`);
    await expect.poll(() => r.content.ingests()).toMatchObject([{ offset: 'first half,'.length }]);
    // The old connection hangs on: nobody told the server that its client is gone.
    const status = await fetch(location);
    expect([status.status, status.headers.get('range')]).toEqual([204, '0-10']);
    const whole = 'first half, second half';
    const rest = await fetch(`${location}?digest=${digestOf(whole)}`, { method: 'PUT', body: ' second half' });
    expect(rest.status).toBe(201);
    socket.destroy();
  });

  it('a wrong digest ends the upload and leaves nothing', async () => {
    await using r = await testRegistry();
    const location = await startUpload(r, 'a');
    const wrong = await fetch(`${location}?digest=${digestOf('other')}`, { method: 'PUT', body: 'this' });
    expect([wrong.status, await codeOf(wrong)]).toEqual([400, 'DIGEST_INVALID']);
    expect((await fetch(location)).status).toBe(404);
    expect(await r.content.ingests()).toEqual([]);
  });

  it('an upload cannot be gone on with in another repository', async () => {
    await using r = await testRegistry();
    const location = await startUpload(r, 'a');
    expect((await fetch(location.replace('/v2/a/', '/v2/b/'))).status).toBe(404);
  });

  it('blobs over the bound are refused before and while they arrive', async () => {
    await using r = await testRegistry({ limits: { blobMaxBytes: 100 } });
    const told = await fetch(await startUpload(r, 'a'), { method: 'PATCH', body: 'x'.repeat(101) });
    expect(told.status).toBe(413);
    const stream = new ReadableStream({
      pull(c) {
        c.enqueue(new Uint8Array(60));
      },
    });
    const request = { method: 'PATCH', body: stream, duplex: 'half' } as RequestInit;
    const untold = await fetch(await startUpload(r, 'a'), request).catch(() => undefined); // cut before it has sent all
    expect(untold?.status ?? 413).toBe(413);
  });

  it('one that nobody touches for a day is swept', async () => {
    const clock = new FakeClock();
    await using r = await testRegistry({ clock });
    const location = await startUpload(r, 'a');
    await clock.advance(86_400_001);
    await r.registry.tidy({ graceMs: 86_400_000 });
    expect((await fetch(location)).status).toBe(404);
    expect(await r.content.ingests()).toEqual([]);
  });
});

describe('manifests', () => {
  it('are refused while something they name is not there, and kept byte for byte', async () => {
    await using r = await testRegistry();
    const bytes = image('config', ['layer'], '  ');
    const early = await put(r, 'a', 'v1', bytes);
    expect([early.status, await codeOf(early)]).toEqual([400, 'MANIFEST_BLOB_UNKNOWN']);
    await pushBlob(r, 'a', 'config');
    await pushBlob(r, 'a', 'layer');
    expect((await put(r, 'a', 'v1', bytes)).status).toBe(201);
    const got = await fetch(`${r.url}/v2/a/manifests/v1`);
    expect(await got.text()).toBe(bytes);
    expect(got.headers.get('docker-content-digest')).toBe(digestOf(bytes));
  });

  it('must say the same in Content-Type and mediaType, and be JSON', async () => {
    await using r = await testRegistry();
    const wrong = await put(r, 'a', 'v1', JSON.stringify({ mediaType: INDEX, manifests: [] }), OCI);
    expect(await codeOf(wrong)).toBe('MANIFEST_INVALID');
    expect(await codeOf(await put(r, 'a', 'v1', '{'))).toBe('MANIFEST_INVALID');
    expect(await codeOf(await put(r, 'a', 'v1', '{"config":{"digest":"sha256:../x","size":-1}}'))).toBe(
      'MANIFEST_INVALID',
    );
  });

  it('a tag changes only if it is what the client last saw, when it says so', async () => {
    await using r = await testRegistry();
    const [one, two] = [await pushImage(r, 'a', 'v1', 'one'), image('two', [])];
    await pushBlob(r, 'a', 'two');
    const etag = (await fetch(`${r.url}/v2/a/manifests/v1`)).headers.get('etag') ?? '';
    expect(etag).toBe(`"${one}"`);
    expect((await put(r, 'a', 'v1', two, OCI, { 'if-match': '"sha256:other"' })).status).toBe(412);
    expect((await put(r, 'a', 'v1', two, OCI, { 'if-none-match': '*' })).status).toBe(412);
    expect((await put(r, 'a', 'v1', two, OCI, { 'if-match': etag })).status).toBe(201);
    const unchanged = await fetch(`${r.url}/v2/a/manifests/v1`, { headers: { 'if-none-match': `"${digestOf(two)}"` } });
    expect(unchanged.status).toBe(304);
  });

  it('an old client that knows no index gets the linux/amd64 image by tag, and the index by digest', async () => {
    await using r = await testRegistry();
    const child = await pushImage(r, 'a', 'amd', 'amd');
    const entry = { mediaType: OCI, digest: child, size: 1, platform: { os: 'linux', architecture: 'amd64' } };
    const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [entry] });
    await put(r, 'a', 'multi', index, INDEX);
    const get = async (reference: string, accept: string) => {
      const answer = await fetch(`${r.url}/v2/a/manifests/${reference}`, { headers: { accept } });
      return answer.headers.get('docker-content-digest');
    };
    expect(await get('multi', OCI)).toBe(child);
    expect(await get('multi', `${OCI}, ${INDEX}`)).toBe(digestOf(index));
    expect(await get(digestOf(index), OCI)).toBe(digestOf(index));
  });

  it('deleting one by digest takes its tags and its entry among referrers with it', async () => {
    await using r = await testRegistry();
    const subject = await pushImage(r, 'a', 'v1', 'app');
    await pushBlob(r, 'a', 'sbom');
    const artifact = JSON.stringify({
      ...JSON.parse(image('sbom', [])),
      artifactType: 'text/sbom',
      subject: { mediaType: OCI, digest: subject, size: 1 },
      annotations: { by: 'test' },
    });
    expect((await put(r, 'a', 'sbom-of-v1', artifact)).headers.get('oci-subject')).toBe(subject);
    const referrers = async (query = '') => {
      const answer = await fetch(`${r.url}/v2/a/referrers/${subject}${query}`);
      return ((await answer.json()) as { manifests: object[] }).manifests;
    };
    const entry = {
      mediaType: OCI,
      digest: digestOf(artifact),
      size: artifact.length,
      artifactType: 'text/sbom',
      annotations: { by: 'test' },
    };
    expect(await referrers()).toEqual([entry]);
    expect(await referrers('?artifactType=other')).toEqual([]);
    expect((await fetch(`${r.url}/v2/a/manifests/${digestOf(artifact)}`, { method: 'DELETE' })).status).toBe(202);
    expect(await referrers()).toEqual([]);
    expect((await fetch(`${r.url}/v2/a/manifests/sbom-of-v1`)).status).toBe(404);
  });

  it('the node learns each tag as it is pushed and deleted', async () => {
    const seen: string[] = [];
    const names = {
      tagged: async (repository: string, tag: string, { digest }: { digest: Digest }) =>
        void seen.push(`+${repository}:${tag}@${digest}`),
      untagged: async (repository: string, tag: string) => void seen.push(`-${repository}:${tag}`),
      find: async () => undefined,
      list: () => [],
    };
    await using r = await testRegistry({ names });
    const digest = await pushImage(r, 'a', 'v1', 'x');
    await fetch(`${r.url}/v2/a/manifests/${digest}`, { method: 'DELETE' });
    expect(seen).toEqual([`+a:v1@${digest}`, '-a:v1']);
  });
});

describe('the node', () => {
  it("an image it has under the registry's name can be pulled without a push, and follows when the name moves", async () => {
    const local = new Map<string, Digest>();
    const names = {
      tagged: async () => undefined,
      untagged: async () => undefined,
      find: async (r: string, t: string) => local.get(`${r}:${t}`),
      list: () =>
        [...local.keys()].map((name) => ({ repository: name.split(':')[0] ?? '', tag: name.split(':')[1] ?? '' })),
    };
    await using r = await testRegistry({ names });
    const keep = async (text: string): Promise<Digest> =>
      (await writeBlob(r.content, digestOf(text), [Buffer.from(text)])).digest;
    const build = async (config: string): Promise<Digest> => {
      await keep(config);
      await keep('layer');
      return keep(image(config, ['layer']));
    };
    const pulled = async () => (await fetch(`${r.url}/v2/built/here/manifests/1`)).headers.get('docker-content-digest');
    expect(await pulled()).toBeNull();
    local.set('built/here:1', await build('first'));
    expect(await pulled()).toBe(local.get('built/here:1'));
    expect(await (await fetch(`${r.url}/v2/built/here/blobs/${digestOf('layer')}`)).text()).toBe('layer');
    local.set('built/here:1', await build('second'));
    expect(await pulled()).toBe(local.get('built/here:1'));
    expect((await fetch(`${r.url}/v2/other/blobs/${digestOf('layer')}`)).status).toBe(404);
  });
});

describe('lists', () => {
  it('tags come in pages, without regard to case, and the link leads through all of them', async () => {
    await using r = await testRegistry();
    for (const tag of ['b', 'A', 'c', 'B-2', 'a']) await pushImage(r, 'x/y', tag, 'same');
    const seen: string[][] = [];
    for (let next: string | undefined = '/v2/x/y/tags/list?n=2'; next; ) {
      const answer: Response = await fetch(r.url + next);
      seen.push(((await answer.json()) as { tags: string[] }).tags);
      next = /<(.*)>/.exec(answer.headers.get('link') ?? '')?.[1];
    }
    expect(seen).toEqual([['A', 'a'], ['b', 'B-2'], ['c']]);
    const none = await fetch(`${r.url}/v2/x/y/tags/list?n=0`);
    expect([await none.json(), none.headers.get('link')]).toEqual([{ name: 'x/y', tags: [] }, null]);
    expect(await codeOf(await fetch(`${r.url}/v2/nobody/tags/list`))).toBe('NAME_UNKNOWN');
  });
});

describe('accounts', () => {
  const access = async () => ({
    anonymous: [{ repositories: ['public/**'], actions: ['pull' as const] }],
    accounts: [
      {
        name: 'alice',
        password: await hashPassword('pw'),
        rules: [{ repositories: ['**'], actions: ['pull' as const, 'push' as const] }],
      },
      {
        name: 'robot$ci',
        secret: hashSecret('s3cret'),
        rules: [{ repositories: ['team/*'], actions: ['pull' as const, 'push' as const] }],
      },
      {
        name: 'robot$old',
        secret: hashSecret('s3cret'),
        expiresAtMs: 1,
        rules: [{ repositories: ['**'], actions: ['pull' as const] }],
      },
    ],
  });
  const basic = (name: string, password: string) => ({
    authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
  });

  it('nobody in particular may pull what is public, is asked to log in elsewhere, and may not push', async () => {
    await using r = await testRegistry({ access: await access() });
    await pushImage(r, 'public/app', 'v1', 'x', basic('alice', 'pw'));
    expect((await fetch(`${r.url}/v2/public/app/manifests/v1`)).status).toBe(200);
    expect((await fetch(`${r.url}/v2/team/app/manifests/v1`)).status).toBe(401);
    const push = await fetch(`${r.url}/v2/public/app/blobs/uploads/`, { method: 'POST' });
    expect([push.status, push.headers.get('www-authenticate')]).toEqual([
      401,
      `Bearer realm="${r.url}/auth/token",service="estiba-registry",scope="repository:public/app:pull,push"`,
    ]);
    expect((await fetch(`${r.url}/v2/`)).status).toBe(401);
  });

  it('an account without the right is told so, and wrong or expired credentials are heard of', async () => {
    await using r = await testRegistry({ access: await access() });
    const status = async (headers: Record<string, string>, path = '/v2/other/manifests/v1') =>
      (await fetch(r.url + path, { headers })).status;
    expect(await status(basic('robot$ci', 's3cret'))).toBe(403);
    expect(await status(basic('robot$ci', 'wrong'))).toBe(401);
    expect(await status(basic('robot$old', 's3cret'), '/v2/')).toBe(401);
    expect(await status(basic('nobody', 'x'), '/v2/public/app/manifests/v1')).toBe(401);
    expect(await status({ authorization: 'Bearer rubbish' })).toBe(401);
  });

  it('a token does what it was asked for and the account may, until it runs out', async () => {
    const clock = new FakeClock();
    await using r = await testRegistry({ access: await access(), clock });
    const query = 'service=estiba-registry&scope=repository:team/app:pull,push&scope=repository:other:pull';
    const answer = await fetch(`${r.url}/auth/token?${query}`, { headers: basic('robot$ci', 's3cret') });
    const { token } = (await answer.json()) as { token: string };
    const bearer = { authorization: `Bearer ${token}` };
    await pushImage(r, 'team/app', 'v1', 'x', bearer);
    expect((await fetch(`${r.url}/v2/other/manifests/v1`, { headers: bearer })).status).toBe(403);
    // The account may, the token was not asked for it: another token would help.
    const other = await fetch(`${r.url}/v2/team/b/manifests/v1`, { headers: bearer });
    expect([other.status, other.headers.get('www-authenticate')?.includes('insufficient_scope')]).toEqual([401, true]);
    await clock.advance(310_000);
    expect((await fetch(`${r.url}/v2/team/app/manifests/v1`, { headers: bearer })).status).toBe(401);
  });

  it('are read anew when their file changes; a bad or lost one leaves them as they were, and the log says so once', async () => {
    const lines: string[] = [];
    const log = logger('registry', { write: (line) => void lines.push(line), now: () => 0 });
    await using r = await testRegistry({ access: await access(), log });
    const path = join(r.folder, 'access.json');
    const { anonymous, accounts } = await access();
    const may = async (name: string, secret: string) =>
      (await fetch(`${r.url}/v2/`, { headers: basic(name, secret) })).status === 200;
    const query = 'service=estiba-registry&scope=repository:team/app:pull';
    const issued = await fetch(`${r.url}/auth/token?${query}`, { headers: basic('robot$ci', 's3cret') });
    const bearer = { authorization: `Bearer ${((await issued.json()) as { token: string }).token}` };
    expect((await fetch(`${r.url}/v2/`, { headers: bearer })).status).toBe(200);

    const bob = { name: 'bob', secret: hashSecret('new'), rules: [] };
    await writeFileAtomic(path, JSON.stringify({ anonymous, accounts: [accounts[0], bob] }));
    expect([await may('bob', 'new'), await may('robot$ci', 's3cret'), await may('alice', 'pw')]).toEqual([
      true,
      false,
      true,
    ]);
    expect((await fetch(`${r.url}/v2/`, { headers: bearer })).status).toBe(401); // its account is gone

    for (const bad of ['{"accounts": [', '{"accounts": [{"name": "eve"}]}']) {
      lines.length = 0;
      await writeFileAtomic(path, bad);
      expect([await may('bob', 'new'), await may('eve', '')]).toEqual([true, false]);
      expect(lines).toEqual([
        expect.stringMatching(/error registry accounts and rights stay as they were.*access\.json/),
      ]);
    }
    await rm(path);
    expect([await may('bob', 'new'), (await fetch(`${r.url}/v2/`)).status]).toEqual([true, 401]);
    expect(lines.at(-1)).toContain('ENOENT');
  });

  it('come into being while the registry runs: from then on it is not open to all', async () => {
    await using r = await testRegistry();
    expect((await fetch(`${r.url}/v2/`)).status).toBe(200);
    await writeFileAtomic(join(r.folder, 'access.json'), JSON.stringify(await access()));
    expect((await fetch(`${r.url}/v2/`)).status).toBe(401);
  });

  it('blobs are not mounted out of repositories the client may not read', async () => {
    await using r = await testRegistry({ access: await access() });
    await pushBlob(r, 'secret/app', 'top secret', basic('alice', 'pw'));
    const mount = async (query: string) =>
      (
        await fetch(`${r.url}/v2/team/x/blobs/uploads/?mount=${digestOf('top secret')}${query}`, {
          method: 'POST',
          headers: basic('robot$ci', 's3cret'),
        })
      ).status;
    expect(await mount('&from=secret/app')).toBe(202);
    expect(await mount('')).toBe(202);
  });
});

describe('garbage', () => {
  it('unused blobs are unlinked after the grace; used ones, and those being pushed, stay', async () => {
    const clock = new FakeClock();
    await using r = await testRegistry({ clock });
    await pushImage(r, 'a', 'v1', 'used');
    await pushBlob(r, 'a', 'stale');
    await clock.advance(3_600_001);
    await pushBlob(r, 'a', 'young');
    await r.registry.tidy({ graceMs: 3_600_000 });
    const present = async (text: string) =>
      (await fetch(`${r.url}/v2/a/blobs/${digestOf(text)}`, { method: 'HEAD' })).status === 200;
    expect([await present('used'), await present('stale'), await present('young')]).toEqual([true, false, true]);
  });

  it('bytes go when no repository links them and they are old, and not while they are leased', async () => {
    const clock = new FakeClock();
    await using r = await testRegistry({ clock });
    await pushImage(r, 'a', 'v1', 'used');
    const gone = await pushImage(r, 'a', 'v2', 'unused');
    await fetch(`${r.url}/v2/a/manifests/${gone}`, { method: 'DELETE' });
    const collect = async () => {
      await r.registry.tidy({ graceMs: 3_600_000 });
      const roots = await registryRoots(r.registry.services.repositories);
      return collectBytes(r.content, roots, { olderThanMs: clock.now() - 3_600_000 });
    };
    expect((await collect()).removed).toBe(0);
    await clock.advance(3_600_001);
    const lease = r.content.lease('test');
    lease.add(gone);
    expect((await collect()).removed).toBe(1);
    lease.release();
    expect((await collect()).removed).toBe(1);
    expect(await r.content.info(digestOf('used'))).toBeDefined();
    expect((await fetch(`${r.url}/v2/a/manifests/v1`)).status).toBe(200);
  });
});

async function startUpload(r: TestRegistry, repository: string, headers: Record<string, string> = {}): Promise<string> {
  const answer = await fetch(`${r.url}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers });
  expect(answer.status).toBe(202);
  return r.url + answer.headers.get('location');
}

async function pushBlob(
  r: TestRegistry,
  repository: string,
  text: string,
  headers: Record<string, string> = {},
): Promise<void> {
  const location = await startUpload(r, repository, headers);
  const answer = await fetch(`${location}?digest=${digestOf(text)}`, { method: 'PUT', body: text, headers });
  expect(answer.status).toBe(201);
}

function image(config: string, layers: string[], indent = ''): string {
  const descriptor = (mediaType: string, text: string) => ({ mediaType, digest: digestOf(text), size: text.length });
  return JSON.stringify(
    {
      schemaVersion: 2,
      mediaType: OCI,
      config: descriptor('application/vnd.oci.image.config.v1+json', config),
      layers: layers.map((l) => descriptor('application/vnd.oci.image.layer.v1.tar', l)),
    },
    null,
    indent,
  );
}

function put(
  r: TestRegistry,
  repository: string,
  reference: string,
  body: string,
  type = OCI,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${r.url}/v2/${repository}/manifests/${reference}`, {
    method: 'PUT',
    body,
    headers: { 'content-type': type, ...headers },
  });
}

async function pushImage(
  r: TestRegistry,
  repository: string,
  tag: string,
  config: string,
  headers: Record<string, string> = {},
): Promise<Digest> {
  await pushBlob(r, repository, config, headers);
  const bytes = image(config, []);
  expect((await put(r, repository, tag, bytes, OCI, headers)).status).toBe(201);
  return digestOf(bytes);
}

async function codeOf(answer: Response): Promise<string | undefined> {
  const { errors } = (await answer.json()) as { errors: { code: string }[] };
  return errors[0]?.code;
}
