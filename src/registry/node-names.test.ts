import { request } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { writeBlob } from '#image/content.ts';
import { destroyNode, openNode, scratch, type TestNode } from '#image/fixtures/node.ts';
import { type Collected, collect } from '#image/gc.ts';
import { entryWith } from '#image/tar/entry.ts';
import { endOfArchive, header } from '#image/tar/writer.ts';
import { anonymous } from '#registry/client/credentials.ts';
import { nodeImageNames, registryAuthorities } from '#registry/node-names.ts';
import { Registries } from '#registry/registries.ts';
import { registryRoots } from '#registry/server/gc.ts';
import { type TestRegistry, testRegistry } from '#registry/server/testing.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';
import { hostPlatform } from '#spec/image/platform.ts';
import { parseReference } from '#spec/image/reference.ts';

const log = logger('registry', silentSink);
const platform = hostPlatform(process.arch);
let node: TestNode;
let served: TestRegistry;
let authorities: string[];

beforeEach(async () => {
  node = await openNode(await scratch());
  const names = nodeImageNames({ ...node, platform, authorities: () => authorities, log });
  // Pushed bytes stay leased for a minute; here that minute is over at once.
  const clock: Clock = { ...systemClock, after: (_, fn) => systemClock.after(0, fn) };
  served = await testRegistry({ content: node.content, store: node.store, names, clock });
  authorities = registryAuthorities('127.0.0.1', Number(served.host.split(':')[1]));
});
afterEach(async () => {
  await served[Symbol.asyncDispose]();
  await destroyNode(node);
});

describe('the registry and the images of one node', () => {
  it('an image pushed to the registry is an image of the node at once, from the same blobs', async () => {
    await push('team/web', '1', 'first');
    const image = await node.images.get(`${served.host}/team/web:1`);
    expect(image.repoTags).toEqual([`${served.host}/team/web:1`]);
    expect(image.repoDigests).toEqual([`${served.host}/team/web@${image.target.digest}`]);
    expect(await node.images.layersOf(image)).toEqual([digestOf(tarOf('first'))]);
    expect(await blobs()).toHaveLength(3);
  });

  it('a second push moves the name, and the image that lost it goes', async () => {
    await push('web', '1', 'first');
    await push('web', '1', 'second');
    expect((await node.images.list()).map((image) => image.repoTags)).toEqual([[`${served.host}/web:1`]]);
    expect(await node.images.layersOf(await node.images.get(`${served.host}/web:1`))).toEqual([
      digestOf(tarOf('second')),
    ]);
  });

  it('what is deleted in the registry is no image any more, but keeps its other names', async () => {
    const { digest } = await push('web', '1', 'first');
    await node.images.tag(`${served.host}/web:1`, parseReference('kept:1'));
    await fetch(`${served.url}/v2/web/manifests/${digest}`, { method: 'DELETE' });
    expect((await node.images.list()).map((image) => [image.repoTags, image.repoDigests])).toEqual([[['kept:1'], []]]);
  });

  it('a Host header cannot name images of another registry', async () => {
    await push('library/debian', 'latest', 'evil', { host: 'docker.io' });
    expect(await node.images.find('debian')).toBeUndefined();
    expect((await node.images.list()).flatMap((image) => image.repoTags)).toEqual([
      `${authorities[0]}/library/debian:latest`,
    ]);
  });

  it('artifacts and signatures are kept by the registry and are no images', async () => {
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: { mediaType: MEDIA.ociEmpty, digest: digestOf('{}'), size: 2 },
      layers: [],
    });
    await upload('charts/app', '{}');
    expect(await put('charts/app', '1', manifest)).toBe(201);
    expect(await node.images.list()).toEqual([]);
  });

  it('an image built here is pulled at once, by its own name and by one without a registry, and goes with it', async () => {
    const target = await make('built');
    await node.images.add(target, [parseReference(`${served.host}/own:1`), parseReference('short:1')]);
    expect(await served.content.info(target.digest)).toBeDefined();
    expect(await digestAt('own', '1')).toBe(target.digest);
    expect(await digestAt('short', '1')).toBe(target.digest);
    expect((await fetch(`${served.url}/v2/short/blobs/${digestOf(tarOf('built'))}`)).status).toBe(200);
    await node.images.remove('short:1');
    expect(await digestAt('short', '1')).toBeNull();
    await served.registry.tidy({ graceMs: -1 });
    expect((await fetch(`${served.url}/v2/short/blobs/${digestOf(tarOf('built'))}`)).status).toBe(404);
    expect(await digestAt('own', '1')).toBe(target.digest);
  });

  it('an image that was pulled from docker.io is not offered under its short name', async () => {
    const target = await make('theirs');
    await node.images.add(target, [parseReference('web:1'), parseReference(`web@${target.digest}`)]);
    expect(await digestAt('web', '1')).toBeNull();
  });

  it('what nobody has pushed or asked for yet is in the catalog and among the tags, in order and in pages', async () => {
    await push('pushed', 'b', 'first');
    const target = await make('built');
    const names = ['short:1', 'own/app:2', 'own/app:A', 'own/app:b'].map((name) =>
      parseReference(name.startsWith('own') ? `${served.host}/${name}` : name),
    );
    await node.images.add(target, [...names, parseReference(`${served.host}/pushed:C`), parseReference('pushed:a')]);
    await node.images.add(target, [parseReference('other.example/x:1')]);
    await node.images.add(await make('theirs'), [parseReference('hub:1')]);
    const theirs = (await node.images.get('hub:1')).target;
    await node.images.add(theirs, [parseReference(`hub@${theirs.digest}`)]);

    expect(await listed('/v2/_catalog', 'repositories', 10)).toEqual([['own/app', 'pushed', 'short']]);
    expect(await listed('/v2/_catalog', 'repositories', 2)).toEqual([['own/app', 'pushed'], ['short']]);
    expect(await listed('/v2/own/app/tags/list', 'tags', 1)).toEqual([['2'], ['A'], ['b']]);
    expect(await listed('/v2/pushed/tags/list', 'tags', 2)).toEqual([['a', 'b'], ['C']]);
    expect(await digestAt('own/app', 'A')).toBe(target.digest); // linked now, and still there once
    expect(await listed('/v2/own/app/tags/list', 'tags', 10)).toEqual([['2', 'A', 'b']]);
    await node.images.remove(`${served.host}/own/app:A`);
    expect(await listed('/v2/own/app/tags/list', 'tags', 10)).toEqual([['2', 'b']]);
    expect((await fetch(`${served.url}/v2/hub/tags/list`)).status).toBe(404);
  });

  it('a push of what was built here to our own registry sends nothing twice', async () => {
    const target = await make('built');
    const name = `${served.host}/own:1`;
    await node.images.add(target, [parseReference(name)]);
    const seen: string[] = [];
    const registries = client();
    await registries.push(name, target.digest, {
      onProgress: (step) => void (step.at === 'layer' && seen.push(step.state)),
    });
    await registries.close();
    expect(seen).toContain('present');
    expect(seen).not.toContain('uploading');
    await node.images.remove(name);
    await served.registry.tidy({ graceMs: -1 });
    expect(await digestAt('own', '1')).toBe(target.digest); // pushed, so the registry keeps it
  });

  it('collection takes what neither has, and nothing of what one of them has', async () => {
    await push('web', '1', 'first');
    await push('web', '1', 'second');
    expect((await gc()).blobs).toEqual([]); // the first is still there by its digest
    const old = await node.images.get(`${served.host}/web:1`);
    await fetch(`${served.url}/v2/web/manifests/1`, { method: 'DELETE' });
    expect(await node.images.list()).toEqual([]);
    expect((await gc()).blobs).toEqual([]);
    for (const { digest } of await served.registry.services.repositories.manifests('web'))
      await fetch(`${served.url}/v2/web/manifests/${digest}`, { method: 'DELETE' });
    const kept = await make('local');
    await node.images.add(kept, [parseReference('local:1')]);
    await served.registry.tidy({ graceMs: -1 });
    expect((await gc()).blobs).toContain(old.target.digest);
    expect(await node.images.layersOf(await node.images.get('local:1'))).toEqual([digestOf(tarOf('local'))]);
    expect(await blobs()).toHaveLength(3);
  });
});

describe('authorities', () => {
  it('loopback has three names, an address its own, and everywhere all of them', () => {
    expect(registryAuthorities('127.0.0.1', 5000)).toEqual(['localhost:5000', '127.0.0.1:5000', '[::1]:5000']);
    expect(registryAuthorities('10.0.0.5', 5000)).toEqual(['10.0.0.5:5000']);
    expect(registryAuthorities('0.0.0.0', 80, ['Node1', '10.0.0.5'])).toEqual([
      'localhost:80',
      '127.0.0.1:80',
      '[::1]:80',
      'node1:80',
      '10.0.0.5:80',
    ]);
  });
});

/** A layer of one directory with that name. */
function tarOf(path: string): Buffer {
  return Buffer.concat([header(entryWith({ type: 'dir', path, mode: 0o755 })), endOfArchive()]);
}

function documents(layer: string): { tar: Buffer; config: string; manifest: string } {
  const tar = tarOf(layer);
  const config = JSON.stringify({
    architecture: platform.architecture,
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [digestOf(tar)] },
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: digestOf(config), size: config.length },
    layers: [{ mediaType: MEDIA.ociLayer, digest: digestOf(tar), size: tar.length }],
  });
  return { tar, config, manifest };
}

async function push(repository: string, tag: string, layer: string, headers: Record<string, string> = {}) {
  const { tar, config, manifest } = documents(layer);
  await upload(repository, tar);
  await upload(repository, config);
  expect(await put(repository, tag, manifest, headers)).toBe(201);
  return { digest: digestOf(manifest) };
}

async function upload(repository: string, bytes: string | Buffer): Promise<void> {
  const url = `${served.url}/v2/${repository}/blobs/uploads/?digest=${digestOf(bytes)}`;
  expect((await fetch(url, { method: 'POST', body: bytes })).status).toBe(201);
}

/** By node:http, since fetch does not let its caller choose the Host header. */
function put(repository: string, tag: string, body: string, headers: Record<string, string> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { method: 'PUT', headers: { 'content-type': MEDIA.ociManifest, ...headers } };
    request(`${served.url}/v2/${repository}/manifests/${tag}`, options, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    })
      .on('error', reject)
      .end(body);
  });
}

/** What a build leaves in the node's store. */
async function make(layer: string): Promise<{ digest: Digest; mediaType: string; size: number }> {
  const { tar, config, manifest } = documents(layer);
  for (const bytes of [tar, Buffer.from(config), Buffer.from(manifest)])
    await writeBlob(node.content, digestOf(bytes), [bytes]);
  return { digest: digestOf(manifest), mediaType: MEDIA.ociManifest, size: manifest.length };
}

/** All pages of a list. */
async function listed(path: string, what: 'repositories' | 'tags', n: number): Promise<string[][]> {
  const pages: string[][] = [];
  for (let next: string | undefined = `${path}?n=${n}`; next; ) {
    const answer: Response = await fetch(served.url + next);
    pages.push(((await answer.json()) as Record<typeof what, string[]>)[what]);
    next = /<(.*)>/.exec(answer.headers.get('link') ?? '')?.[1];
  }
  return pages;
}

async function digestAt(repository: string, tag: string): Promise<string | null> {
  const answer = await fetch(`${served.url}/v2/${repository}/manifests/${tag}`, { method: 'HEAD' });
  return answer.headers.get('docker-content-digest');
}

async function blobs(): Promise<Digest[]> {
  const digests: Digest[] = [];
  for await (const { digest } of node.content.list()) digests.push(digest);
  return digests;
}

function gc(): Promise<Collected> {
  const { repositories } = served.registry.services;
  return collect({ ...node, clock: systemClock, roots: [() => registryRoots(repositories)], graceMs: 0 });
}

function client(): Registries {
  return new Registries({
    content: node.content,
    table: {},
    clock: systemClock,
    random: seededRandom(1),
    log,
    credentials: anonymous,
    env: {},
    ownAuthorities: () => authorities,
  });
}
