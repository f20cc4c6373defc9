import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OverlayRoots } from '#engine/core/roots.ts';
import { destroyNode, openNode, scratch, shell, type TestNode } from '#image/fixtures/node.ts';
import type { ImageStore } from '#image/images.ts';
import { directoryDriver, erofsDriver } from '#image/layer/driver.ts';
import { inlineUnpacker } from '#image/layer/pool.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Digest } from '#spec/image/digest.ts';
import { LAYERS_MAX } from '#spec/image/manifest.ts';

const dir = mkdtempSync(join(tmpdir(), 'estiba-roots-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const open = (root: string, snapshots: unknown): Promise<OverlayRoots> =>
  OverlayRoots.open({
    images: {} as ImageStore,
    snapshots: snapshots as SnapshotStore,
    runPlan,
    dir: join(root, 'roots'),
    bottoms: join(root, 'bottoms'),
    kernelRelease: release(),
    readInside: () => undefined,
  });

it('a root that need not last is not synced when it goes, and can be mounted again', async () => {
  const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(dir, name));
  for (const path of [lower, upper, work]) mkdirSync(path ?? '');
  const rootfs = { lower: [lower], upper, work, options: [] };
  const roots = await open(dir, { toMount: async () => ({ rootfs, missing: [] }), workOf: () => work });
  const options = (): string | undefined =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((line) => line.includes(` ${join(dir, 'roots/web')} `));

  const root = await roots.mount('web', { by: 'docker', volatile: true });
  expect(options()).toContain('volatile');
  writeFileSync(join(root, 'written'), 'yes');
  await roots.unmount('web');
  expect(options()).toBeUndefined();

  const again = await roots.mount('web', { by: 'docker' });
  expect(options()).not.toContain('volatile');
  expect(readFileSync(join(again, 'written'), 'utf8')).toBe('yes');
  await roots.unmount('web');
});

describe.each([erofsDriver, directoryDriver('keep')])('what every root has, below layers as $form', (driver) => {
  let node: TestNode;
  let roots: OverlayRoots;
  beforeEach(async () => {
    node = await openNode(await scratch(), inlineUnpacker, driver);
    roots = await open(node.root, node.snapshots);
  });
  afterEach(async () => {
    for (const id of node.snapshots.list()) await roots.remove(id);
    await destroyNode(node);
  });

  /** The root of a container on one layer for each script. */
  async function rootOn(scripts: string[], by: 'docker' | 'kubernetes' = 'docker'): Promise<string> {
    const layers: Digest[] = [];
    for (const [i, script] of scripts.entries()) {
      const source = join(node.root, `source${i}`);
      mkdirSync(source);
      shell(`${script}\ntar --numeric-owner --sort=name -cf ../${i}.tar $(ls -A)`, source);
      layers.push(await node.addLayer(readFileSync(join(node.root, `${i}.tar`))));
    }
    await node.snapshots.prepare('c', layers);
    return roots.mount('c', { by });
  }
  /** Mode, owner, path, and where a link leads. */
  const listed = (root: string): string[] =>
    String(shell(String.raw`find . -mindepth 1 -printf '%M %U %P %l\n' | sed 's/ $//' | sort -k3`, root))
      .trim()
      .split('\n');
  const upper = async (): Promise<string[]> => readdirSync((await node.snapshots.rootfs('c')).upper);
  const changes = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const { kind, path } of node.snapshots.changes('c')) found.push(`${kind} ${path}`);
    return found;
  };

  it('is all that an image without anything has; nothing of it is a change, or is made for it', async () => {
    expect(listed(await rootOn([]))).toEqual([
      '-rwxr-xr-x 0 .dockerenv',
      'drwxr-xr-x 0 dev',
      '-rwxr-xr-x 0 dev/console',
      'drwxr-xr-x 0 dev/pts',
      'drwxr-xr-x 0 dev/shm',
      'drwxr-xr-x 0 etc',
      '-rwxr-xr-x 0 etc/hostname',
      '-rwxr-xr-x 0 etc/hosts',
      'lrwxrwxrwx 0 etc/mtab /proc/mounts',
      '-rwxr-xr-x 0 etc/resolv.conf',
      'drwxr-xr-x 0 proc',
      'drwxr-xr-x 0 sys',
    ]);
    expect(await upper()).toEqual([]);
    expect(await changes()).toEqual([]);
  });

  it('gives way to what an image has, to its owners and modes, to what it removed and to its links', async () => {
    const root = await rootOn([
      'mkdir -m 700 dev etc; chown 7:7 etc; echo own > etc/hosts; echo mine > etc/mtab; mkdir sys',
      ': > .wh..dockerenv; : > .wh.sys; ln -s usr/proc proc; mkdir -p usr/proc',
    ]);
    const list = listed(root);
    expect(list).toContain('drwx------ 7 etc');
    expect(list).toContain('drwx------ 0 dev');
    expect(list).toContain('lrwxrwxrwx 0 proc usr/proc');
    expect(readFileSync(join(root, 'etc/hosts'), 'utf8')).toBe('own\n');
    expect(readFileSync(join(root, 'etc/mtab'), 'utf8')).toBe('mine\n');
    expect(existsSync(join(root, 'etc/hostname'))).toBe(true);
    for (const hidden of ['.dockerenv', 'sys']) expect(existsSync(join(root, hidden)), hidden).toBe(false);
    expect(await changes()).toEqual([]);
  });

  it.each([
    ['a directory that hides those below', 'mkdir etc; : > etc/.wh..wh..opq; echo x > etc/x', ['x']],
    ['a link', 'mkdir -p usr/etc; ln -s usr/etc etc; echo x > usr/etc/x', ['x']],
  ])('is not in an /etc that is %s', async (_, script, names) => {
    expect(readdirSync(join(await rootOn(['mkdir below', script]), 'etc'))).toEqual(names);
  });

  it('is not in an /etc that is a file', async () => {
    expect(readFileSync(join(await rootOn(['echo file > etc']), 'etc'), 'utf8')).toBe('file\n');
  });

  it('has not Docker’s sign in a pod', async () => {
    const root = await rootOn([], 'kubernetes');
    expect(existsSync(join(root, '.dockerenv'))).toBe(false);
    expect(readlinkSync(join(root, 'etc/mtab'))).toBe('/proc/mounts');
  });

  it('is written to in the container’s own directory alone, and is there for the next', async () => {
    const root = await rootOn([]);
    writeFileSync(join(root, 'etc/hosts'), '10.0.0.1 db\n');
    rmSync(join(root, '.dockerenv'));
    expect(await upper()).toEqual(['.dockerenv', 'etc']);
    await roots.unmount('c');
    await roots.remove('c');
    const next = await rootOn([]);
    expect(lstatSync(join(next, 'etc/hosts')).size).toBe(0);
    expect(existsSync(join(next, '.dockerenv'))).toBe(true);
  });

  it('gives way to an image of as many layers as the kernel stacks', () => {
    const layers = Array.from({ length: LAYERS_MAX }, (_, i) => `/layers/${i}`);
    expect(roots.lowerOf(layers, 'docker')).toEqual(layers);
    expect(roots.lowerOf(layers.slice(1), 'docker')).toHaveLength(LAYERS_MAX);
  });

  it('of another version goes at a start, unless a root may stand on it', async () => {
    const bottoms = join(node.root, 'bottoms');
    const ours = readdirSync(bottoms);
    expect(ours).toHaveLength(2);
    mkdirSync(join(bottoms, 'older'));
    await rootOn([]);
    await open(node.root, node.snapshots);
    expect(readdirSync(bottoms)).toContain('older');
    await roots.unmount('c');
    await open(node.root, node.snapshots);
    expect(readdirSync(bottoms)).toEqual(ours);
  });
});
