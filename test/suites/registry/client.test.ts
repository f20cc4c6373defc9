import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { writeBlob } from '#image/content.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import type { Progress } from '#registry/client/progress.ts';
import type { Registries } from '#registry/registries.ts';
import { plainRegistries } from '#registry/testing.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';
import { RegistryProcess } from './process.ts';

// For our client, Debian's docker-registry and our registry are interchangeable, also when they die in the middle.

const AMD64 = { os: 'linux', architecture: 'amd64' };
const LAYER_BYTES = 96 << 20;
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'estiba-registry-client-suite-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(['ours', 'docker-registry'])('with %s', (kind) => {
  let registry: RegistryProcess;
  let from: Node;
  let image: { root: Digest; layer: Digest };

  beforeAll(async () => {
    const own = mkdtempSync(join(folder, 'r-'));
    registry = kind === 'ours' ? await RegistryProcess.ours(own) : await RegistryProcess.dockerRegistry(own);
    from = await node();
    image = await makeImage(from.content, randomBytes(LAYER_BYTES));
  });
  afterAll(async () => {
    await registry.kill();
    await from.registries.close();
  });

  it('a push that the registry dies under goes on when it is back', async () => {
    const events: Progress[] = [];
    let killed: Promise<void> | undefined;
    await from.registries.push(`${registry.host}/team/app:1`, image.root, {
      onProgress: (e) => {
        events.push(e);
        if (!killed && e.at === 'layer' && e.state === 'uploading' && e.totalBytes === LAYER_BYTES) {
          killed = registry.kill().then(() => registry.start());
        }
      },
    });
    await killed;
    expect(events.some((e) => e.at === 'layer' && e.state === 'retrying')).toBe(true);
    const whole = await fetch(`http://${registry.host}/v2/team/app/blobs/${image.layer}`, { method: 'HEAD' });
    expect([whole.status, Number(whole.headers.get('content-length'))]).toEqual([200, LAYER_BYTES]);
  });

  it('a pull that the registry dies under is resumed, not restarted', async () => {
    const to = await node();
    const events: (Progress & { at: 'layer' })[] = [];
    let killed: Promise<void> | undefined;
    const pulled = await to.registries.pull(`${registry.host}/team/app:1`, {
      platform: AMD64,
      onProgress: (e) => {
        if (e.at !== 'layer' || e.digest !== image.layer) return;
        events.push(e);
        if (!killed && e.state === 'downloading') killed = registry.kill().then(() => registry.start());
      },
    });
    await killed;
    expect(pulled.root.digest).toBe(image.root);
    const bytes = events.flatMap((e) => ('doneBytes' in e ? [e.doneBytes] : []));
    expect(bytes).toEqual([...bytes].sort((a, b) => a - b));
    expect(events.some((e) => e.state === 'retrying' && 'doneBytes' in e && e.doneBytes > 0)).toBe(true);
    await to.content.verify(image.layer);
    await to.registries.close();
  });

  it('tags are listed, mounts link, deletes delete', async () => {
    const client = from.registries.client(registry.host);
    await from.registries.push(`${registry.host}/team/app:2`, image.root, quiet());
    expect((await client.tags('team/app')).sort()).toEqual(['1', '2']);
    const events: Progress[] = [];
    await from.registries.push(`${registry.host}/other/app:1`, image.root, {
      onProgress: (e) => events.push(e),
      mountFrom: () => ['team/app'],
    });
    expect(events.some((e) => e.at === 'layer' && e.state === 'mounted')).toBe(true);
    await client.deleteManifest('other/app', image.root);
    await expect(
      from.registries.pull(`${registry.host}/other/app:1`, { ...quiet(), platform: AMD64 }),
    ).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' });
  });

  it('an artifact with a subject is found again, by the registry or by the tag that stands in for it', async () => {
    const artifact = await makeArtifact(from.content, image.root);
    await from.registries.push(`${registry.host}/team/app@${artifact}`, artifact, quiet());
    const api = await fetch(`http://${registry.host}/v2/team/app/referrers/${image.root}`);
    const fallback = `http://${registry.host}/v2/team/app/manifests/${image.root.replace(':', '-')}`;
    const answer = api.status === 200 ? api : await fetch(fallback, { headers: { accept: MEDIA.ociIndex } });
    const { manifests } = (await answer.json()) as { manifests: { digest: string; artifactType: string }[] };
    expect(manifests).toMatchObject([{ digest: artifact, artifactType: 'text/spdx' }]);
    expect(api.status).toBe(kind === 'ours' ? 200 : 404);
  });

  it('layers go up in chunks where a proxy limits bodies', async () => {
    const small = await makeImage(from.content, randomBytes(5_000_000));
    await from.registries.push(`${registry.host}/chunks:1`, small.root, { ...quiet(), chunkBytes: 1 << 20 });
    const to = await node();
    await to.registries.pull(`${registry.host}/chunks:1`, { ...quiet(), platform: AMD64 });
    await to.registries.close();
  });
});

it('our registry, killed at any moment of many pushes, has everything it acknowledged and nothing half', async () => {
  const own = mkdtempSync(join(folder, 'k-'));
  const registry = await RegistryProcess.ours(own);
  const from = await node();
  const done: { name: string; root: Digest; layer: Digest }[] = [];
  for (let round = 0; round < 8; round++) {
    const stop = new AbortController();
    const image = await makeImage(from.content, randomBytes(4_000_000));
    const pushing = from.registries
      .push(`${registry.host}/k/r${round}:1`, image.root, { ...quiet(), signal: stop.signal })
      .then(() => done.push({ name: `k/r${round}`, ...image }))
      .catch(() => 'was cut');
    await new Promise((go) => setTimeout(go, 5 + round * 12));
    await registry.kill();
    stop.abort();
    await pushing;
    await registry.start();
  }
  const to = await node();
  for (const { name, root } of done) {
    expect((await to.registries.pull(`${registry.host}/${name}:1`, { ...quiet(), platform: AMD64 })).root.digest).toBe(
      root,
    );
  }
  // What was not acknowledged is there whole or not at all: every tag can be pulled.
  const { repositories } = (await (await fetch(`http://${registry.host}/v2/_catalog`)).json()) as {
    repositories: string[];
  };
  for (const name of repositories) {
    const { tags } = (await (await fetch(`http://${registry.host}/v2/${name}/tags/list`)).json()) as { tags: string[] };
    for (const tag of tags)
      await to.registries.pull(`${registry.host}/${name}:${tag}`, { ...quiet(), platform: AMD64 });
  }
  await registry.kill();
  await Promise.all([from.registries.close(), to.registries.close()]);
});

interface Node {
  content: DiskContentStore;
  registries: Registries;
}

async function node(): Promise<Node> {
  const content = await DiskContentStore.open(join(mkdtempSync(join(folder, 'n-')), 'blobs'), systemClock);
  const registries = plainRegistries(content);
  return { content, registries };
}

function quiet(): { onProgress: () => void } {
  return { onProgress: () => undefined };
}

async function makeImage(content: DiskContentStore, layer: Buffer): Promise<{ root: Digest; layer: Digest }> {
  const layerInfo = await writeBlob(content, 'layer', [layer]);
  const config = Buffer.from(JSON.stringify({ ...AMD64, rootfs: { type: 'layers', diff_ids: [layerInfo.digest] } }));
  await writeBlob(content, 'config', [config]);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: digestOf(config), size: config.byteLength },
    layers: [{ mediaType: MEDIA.ociLayer, digest: layerInfo.digest, size: layer.byteLength }],
  };
  const { digest } = await writeBlob(content, 'manifest', [Buffer.from(JSON.stringify(manifest))]);
  return { root: digest, layer: layerInfo.digest };
}

async function makeArtifact(content: DiskContentStore, subject: Digest): Promise<Digest> {
  const empty = Buffer.from('{}');
  await writeBlob(content, 'empty', [empty]);
  const descriptor = { mediaType: MEDIA.ociEmpty, digest: digestOf(empty), size: 2 };
  const size = (await content.info(subject))?.sizeBytes;
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    artifactType: 'text/spdx',
    config: descriptor,
    layers: [descriptor],
    subject: { mediaType: MEDIA.ociManifest, digest: subject, size },
  };
  return (await writeBlob(content, 'artifact', [Buffer.from(JSON.stringify(manifest))])).digest;
}
