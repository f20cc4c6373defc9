import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { systemRandom } from '#base/random.ts';
import { loadImages } from '#image/archive-load.ts';
import { saveImages } from '#image/archive-save.ts';
import { tarOf } from '#image/diff.ts';
import { historyOf } from '#image/explain.ts';
import { destroyNode, openNode, scratch, shell, type TestNode } from '#image/fixtures/node.ts';
import { describeTree } from '#image/fixtures/trees.ts';
import { collect } from '#image/gc.ts';
import type { Image } from '#image/images.ts';
import { directoryDriver, erofsDriver, type LayerDriver } from '#image/layer/driver.ts';
import { inlineUnpacker } from '#image/layer/pool.ts';
import { importLayer, makeImage, makeLayer, withLayer } from '#image/make.ts';
import { readXattrs } from '#image/xattrs.ts';
import { walkDirectory } from '#kernel/beneath.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import { hostPlatform } from '#spec/image/platform.ts';
import { parseReference } from '#spec/image/reference.ts';

const nodes: TestNode[] = [];

async function make(root?: string, driver: LayerDriver = erofsDriver): Promise<TestNode> {
  const node = await openNode(root ?? (await scratch()), inlineUnpacker, driver);
  nodes.push(node);
  return node;
}

afterEach(async () => {
  for (const node of nodes.splice(0)) await destroyNode(node);
});

/** An image of one layer for every script, run in a directory of its own. */
async function addImage(node: TestNode, name: string, ...scripts: string[]): Promise<Image> {
  const lease = node.content.lease(name);
  const parts = { content: node.content, layers: node.layers, random: systemRandom, lease };
  let made: { config: Parameters<typeof makeImage>[1]; layers: Parameters<typeof makeImage>[2] } = {
    config: {
      architecture: 'amd64',
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: [] },
    },
    layers: [],
  };
  for (const [i, script] of scripts.entries()) {
    const source = join(node.root, `source-${name.replace(/\W/g, '-')}-${i}`);
    mkdirSync(source);
    const tar = shell(`${script}; tar --sort=name -cf - .`, source);
    const layer = await makeLayer(parts, chunks(tar));
    const base = {
      manifest: {
        schemaVersion: 2,
        config: { mediaType: '', digest: layer.diffId, size: 0 },
        layers: [...made.layers],
      },
      config: made.config,
    };
    made = withLayer(base, layer, { createdAtMs: 1_700_000_000_000 + i, createdBy: script });
  }
  const target = await makeImage(parts, made.config, made.layers);
  const image = await node.images.add(target, [parseReference(name)]);
  lease.release();
  return image;
}

async function* chunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
}

async function load(node: TestNode, path: string): Promise<Image[]> {
  const lease = node.content.lease('load');
  const loaded = await loadImages(
    node.content,
    createReadStream(path),
    lease,
    hostPlatform(process.arch),
    systemRandom,
  );
  const images = [];
  for (const { target, names } of loaded) images.push(await node.images.add(target, names));
  lease.release();
  return images;
}

async function save(node: TestNode, path: string, ...names: string[]): Promise<void> {
  const images = await Promise.all(names.map(async (name) => ({ image: await node.images.get(name), names: [name] })));
  const parts: Buffer[] = [];
  for await (const part of saveImages(node.content, images)) parts.push(part);
  writeFileSync(path, Buffer.concat(parts));
}

const gc = (node: TestNode, budgetBytes?: number) =>
  collect({
    ...node,
    clock: systemClock,
    roots: [],
    graceMs: -1000,
    ...(budgetBytes === undefined ? {} : { budgetBytes }),
  });

describe('images by name', () => {
  it('are found by name, id and the beginning of an id; tags move and leave dangling images behind', async () => {
    const node = await make();
    const one = await addImage(node, 'web:1', 'echo 1 > a');
    const two = await addImage(node, 'reg.example/team/web:2', 'echo 2 > a');
    expect((await node.images.get('web:1')).id).toBe(one.id);
    expect((await node.images.get(two.id)).repoTags).toEqual(['reg.example/team/web:2']);
    expect((await node.images.get(one.id.slice(7, 19))).id).toBe(one.id);
    await expect(node.images.get('web')).rejects.toMatchObject({ code: 'NO_SUCH_IMAGE' });
    await node.images.tag('web:1', parseReference('web'));
    await node.images.tag(two.id, parseReference('web:1'));
    expect((await node.images.get('web:1')).id).toBe(two.id);
    expect((await node.images.get(one.id)).repoTags).toEqual(['web:latest']);
    expect(await node.images.remove('web')).toMatchObject({ untagged: ['web:latest'], deleted: [one.id] });
    expect(await node.images.remove('web:1')).toEqual({ untagged: ['web:1'], deleted: [] });
    expect((await node.images.list()).map((i) => i.repoTags)).toEqual([['reg.example/team/web:2']]);
  });

  it('stay while a container uses them, and are all there after a restart', async () => {
    const root = await scratch();
    const first = await openNode(root);
    const image = await addImage(first, 'web:1', 'echo 1 > a');
    await first.snapshots.prepare('c', await first.images.layersOf(image));
    await expect(first.images.remove('web:1')).rejects.toMatchObject({
      code: 'IMAGE_IN_USE',
      data: { by: 'container c' },
    });
    expect(await first.images.prune({ all: true })).toEqual([]);
    await first.layers.idle();
    await first.close();
    const second = await make(root);
    expect((await second.images.get('web:1')).id).toBe(image.id);
    expect((await second.images.remove('web:1', { force: true })).deleted).toEqual([image.id]);
    const { layers } = await gc(second);
    expect(layers).toEqual([]); // the container stands on it
    await second.snapshots.remove('c');
    expect((await gc(second)).layers).toEqual(image.platform.config.rootfs.diff_ids);
  });

  it('are not used by containers of other images that end in the same layer, or stand on it', async () => {
    const madeFrom = new Map<string, string>();
    const node = await openNode(await scratch(), undefined, undefined, (snapshot) => madeFrom.get(snapshot));
    nodes.push(node);
    const old = await addImage(node, 'web:old', 'echo 1 > a');
    const { config, manifest } = old.platform;
    const parts = { ...node, random: systemRandom, lease: node.content.lease('fresh') };
    const target = await makeImage(parts, { ...config, config: { Cmd: ['other'] } }, manifest.layers);
    const fresh = await node.images.add(target, [parseReference('web:new')]);
    parts.lease.release();
    await node.snapshots.prepare('c', await node.images.layersOf(fresh));
    await expect(node.images.remove('web:old')).rejects.toMatchObject({ code: 'IMAGE_IN_USE' }); // nobody knows better
    madeFrom.set('c', fresh.id);
    expect((await node.images.remove('web:old')).deleted).toEqual([old.id]);
    await expect(node.images.remove('web:new')).rejects.toMatchObject({ code: 'IMAGE_IN_USE' });
    expect((await gc(node)).layers).toEqual([]);
  });
});

describe('garbage collection', () => {
  it('takes what no image, container or lease needs, and nothing else', async () => {
    const node = await make();
    const kept = await addImage(node, 'kept:1', 'head -c 10000 /dev/urandom > a');
    await addImage(node, 'gone:1', 'head -c 20000 /dev/urandom > b');
    await node.images.remove('gone:1');
    const blob = await node.content.ingest('leased');
    await blob.append(Buffer.from('leased'));
    const leased = await blob.commit();
    const lease = node.content.lease('test');
    lease.add(leased.digest);
    const { blobs } = await gc(node);
    expect(blobs.length).toBe(3); // layer, configuration, manifest
    expect(await node.content.info(leased.digest)).toBeDefined();
    await node.snapshots.prepare('c', await node.images.layersOf(kept));
    lease.release();
    expect((await gc(node)).blobs).toEqual([leased.digest]);
  });

  it('above the budget takes the least recently used image that nobody uses, and says why', async () => {
    const node = await make();
    await addImage(node, 'old:1', 'head -c 300000 /dev/urandom > a');
    const oldAtMs = systemClock.now();
    await expect.poll(() => systemClock.now(), { interval: 1 }).toBeGreaterThan(oldAtMs); // they are told apart by it
    await addImage(node, 'new:1', 'head -c 300000 /dev/urandom > a');
    const { evicted } = await gc(node, 900_000);
    expect(evicted.length).toBe(1);
    expect((await node.images.list()).map((i) => i.repoTags)).toEqual([['new:1']]);
    expect(node.events.filter((e) => e.type === 'evict')).toMatchObject([
      { name: 'old:1', because: expect.stringContaining('the budget is 900000') },
      {},
    ]);
  });
});

describe('moving images', () => {
  it('save and load keep every digest, through skopeo too', async () => {
    const [from, to] = [await make(), await make()];
    const image = await addImage(from, 'team/web:1', 'echo 1 > a; mkdir d', 'echo 2 > b');
    await addImage(from, 'other:2', 'echo 3 > c');
    const tar = join(from.root, 'saved.tar');
    await save(from, tar, 'team/web:1', 'other:2');
    const loaded = await load(to, tar);
    expect(loaded.map((i) => [i.id, i.target.digest, i.repoTags])).toEqual([
      [image.id, image.target.digest, ['team/web:1']],
      [expect.any(String), expect.any(String), ['other:2']],
    ]);
    await save(from, join(from.root, 'one.tar'), 'team/web:1');
    for (const transport of ['oci-archive', 'docker-archive']) {
      const seen = JSON.parse(shell(`skopeo inspect --config ${transport}:one.tar`, from.root).toString());
      expect(seen.rootfs.diff_ids).toEqual(image.platform.config.rootfs.diff_ids);
    }
    shell('skopeo copy -q oci-archive:one.tar docker-archive:docker.tar:skopeo.example/made:9', from.root);
    const [fromDocker] = await load(to, join(from.root, 'docker.tar'));
    expect(fromDocker?.repoTags).toEqual(['skopeo.example/made:9']);
    expect(fromDocker?.id).toBe(image.id);
    expect(await to.images.layersOf(fromDocker as Image)).toEqual(image.platform.config.rootfs.diff_ids);
  });

  it('an archive that lacks a part, or is none, is refused', async () => {
    const node = await make();
    await addImage(node, 'web:1', 'echo 1 > a');
    await save(node, join(node.root, 'ok.tar'), 'web:1');
    const layer = (await node.images.get('web:1')).platform.manifest.layers[0]?.digest.slice(7);
    shell(`tar --delete -f ok.tar blobs/sha256/${layer}`, node.root);
    const other = await make();
    await expect(load(other, join(node.root, 'ok.tar'))).rejects.toMatchObject({ code: 'IMAGE_ARCHIVE_INVALID' });
    shell('echo hi > x; tar -cf none.tar x', node.root);
    await expect(load(other, join(node.root, 'none.tar'))).rejects.toMatchObject({ code: 'IMAGE_ARCHIVE_INVALID' });
    writeFileSync(join(node.root, 'bad.tar'), 'not a tar'.repeat(200));
    await expect(load(other, join(node.root, 'bad.tar'))).rejects.toMatchObject({ code: 'LAYER_INVALID' });
    expect(await other.content.ingests()).toEqual([]);
  });

  it('an image that names a layer twice stacks it once', async () => {
    const node = await make();
    const same = 'touch -d 2001-02-03 a .';
    const image = await addImage(node, 'twice:1', same, 'touch -d 2001-02-03 b .', same);
    const layers = await node.images.layersOf(image);
    expect(layers).toHaveLength(3);
    expect(layers[0]).toBe(layers[2]);
    await node.snapshots.prepare('c', layers);
    expect((await node.snapshots.rootfs('c')).lower).toHaveLength(2);
  });

  it('an image unpacks to the same tree as with umoci', async () => {
    const node = await make();
    const image = await addImage(
      node,
      'web:1',
      'mkdir -p a/b c; echo 1 > a/one; echo 2 > a/b/two; ln a/one a/hard; ln -s one a/soft; mkfifo c/p; chmod 2755 c; chown 12:34 a/one; touch -d 2001-02-03 a/b/two',
      'mkdir a; : > a/.wh.b; echo new > a/new; mkdir c; : > c/.wh..wh..opq; echo x > c/x',
    );
    await save(node, join(node.root, 'saved.tar'), 'web:1');
    shell('mkdir layout; tar -C layout -xf saved.tar; umoci raw unpack --image layout:1 tree', node.root);
    await node.snapshots.prepare('c', await node.images.layersOf(image));
    const rootfs = await node.snapshots.rootfs('c');
    const target = join(node.root, 'merged');
    mkdirSync(target);
    const data = `lowerdir=${rootfs.lower.join(':')},upperdir=${rootfs.upper},workdir=${rootfs.work}`;
    await runPlan({
      steps: [{ op: 'mount', where: 'host', because: 'test', source: 'o', target, type: 'overlay', flags: 0n, data }],
    });
    try {
      const plain = (lines: string[]): string[] =>
        lines.slice(1).map((l) => l.replace(/ user\.umoci\S+| user\.rootless\S+/g, ''));
      expect(plain(await describeTree(target))).toEqual(plain(await describeTree(join(node.root, 'tree'))));
      const exported: Buffer[] = [];
      for await (const part of tarOf(walkDirectory(target), await readXattrs(rootfs.upper, runPlan), {
        whiteouts: false,
      }))
        exported.push(part);
      writeFileSync(join(node.root, 'export.tar'), Buffer.concat(exported));
      expect(shell('tar -tf export.tar | sed s,^[.]/,, | sort', node.root).toString()).toBe(
        shell('tar -C tree -cf - . | tar -t | sed s,^[.]/,, | sort', node.root).toString(),
      );
      const lease = node.content.lease('import');
      const parts = { content: node.content, layers: node.layers, random: systemRandom, lease };
      const layer = await importLayer(parts, 'import', createReadStream(join(node.root, 'export.tar')));
      expect(node.layers.get(layer.diffId)?.inodes).toBeGreaterThan(5);
    } finally {
      await runPlan({ steps: [{ op: 'umount', where: 'host', because: 'test', target, flags: 0 }] });
    }
  });
});

describe.each([erofsDriver, directoryDriver('keep'), directoryDriver('mine')])('explaining an image', (driver) => {
  const { form, ownership } = driver;
  it(`says which instruction added which bytes, and what is hidden (${form}, ${ownership})`, async () => {
    const node = await make(undefined, driver);
    const image = await addImage(
      node,
      'fat:1',
      'head -c 5000 /dev/zero > big; mkdir d; head -c 700 /dev/zero > d/x',
      'echo small > big; : > .wh.d',
      'mkdir e; head -c 300 /dev/zero > e/under; head -c 200 /dev/zero > e/over',
      'mkdir e; : > e/.wh..wh..opq; head -c 20 /dev/zero > e/over',
    );
    const { config, manifest } = image.platform;
    const history = historyOf(config, manifest.layers, (diffId) => node.layers.get(diffId));
    expect(history.map((h) => h.layer?.contentBytes)).toEqual([5700, 6, 500, 20]);
    expect(history[0]?.createdBy).toContain('head -c 5000');
    const { hidden } = await node.layers.survey(await node.images.layersOf(image), 10);
    expect(hidden).toEqual([
      { path: 'big', bytes: 5000, layer: 0, hiddenBy: 1, how: 'replaced' },
      { path: 'd/x', bytes: 700, layer: 0, hiddenBy: 1, how: 'removed' },
      { path: 'e/under', bytes: 300, layer: 2, hiddenBy: 3, how: 'removed' },
      { path: 'e/over', bytes: 200, layer: 2, hiddenBy: 3, how: 'removed' },
    ]);
  });
});

describe('kill -9', () => {
  it('during storing, unpacking, naming, removing and collecting leaves nothing, and the next life goes on', async () => {
    const root = await scratch();
    mkdirSync(join(root, 'source'));
    shell(
      'mkdir d; for i in $(seq 200); do head -c 3000 /dev/urandom > d/$i; done; tar -cf ../layer.tar .',
      join(root, 'source'),
    );
    const script = join(root, 'crasher.mjs');
    const entry = new URL('./fixtures/crasher.ts', import.meta.url).pathname;
    await build({
      entryPoints: [entry],
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
    });
    for (let round = 0; round < 10; round++) {
      const init = new URL('../../native/build/estiba-init', import.meta.url).pathname;
      const env = { ...process.env, ESTIBA_INIT: init };
      const child = spawn(process.execPath, [script, root, join(root, 'layer.tar')], {
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let last = '';
      child.stdout.on('data', (chunk: Buffer) => {
        last = chunk.toString().trim().split('\n').at(-1) ?? last;
        if (!child.killed && /named|removing/.test(last)) setTimeout(() => child.kill('SIGKILL'), 3 + round * 17);
      });
      await once(child, 'close');
      const node = await openNode(root);
      const names = (await node.images.list()).flatMap((image) => image.repoTags);
      if (last.startsWith('named')) expect(names.length).toBeLessThanOrEqual(1);
      for (const image of await node.images.list()) await node.images.layersOf(image); // what is named can be run
      // A snapshot that the killed process had just prepared keeps its image, as a container would: it goes first.
      for (const id of node.snapshots.list()) await node.snapshots.remove(id);
      await node.images.prune({ all: true });
      for (const { ref } of await node.content.ingests()) await (await node.content.ingest(ref)).abort();
      await node.layers.idle();
      for (const layer of node.layers.list()) await node.layers.remove(layer.diffId);
      await gc(node);
      expect(readdirSync(join(root, 'data/blobs/sha256'))).toEqual([]);
      expect(readdirSync(join(root, 'data/layers'))).toEqual(['none']);
      expect(readdirSync(join(root, 'data/snapshots'))).toEqual([]);
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(join(root, 'run'));
      await node.close();
    }
    await rm(root, { recursive: true, force: true });
  });
});
