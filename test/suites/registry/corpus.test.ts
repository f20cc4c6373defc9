import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeBlob } from '#image/content.ts';
import { destroyNode, openNode, scratch, shell, type TestNode } from '#image/fixtures/node.ts';
import { describeTree } from '#image/fixtures/trees.ts';
import { directoryDriver, erofsDriver } from '#image/layer/driver.ts';
import { inlineUnpacker } from '#image/layer/pool.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';

// Images made of this host's Debian packages, a layer each, unpack to the tree that umoci and GNU tar make: type, mode, owner,
// size, contents, links, devices, times and attributes. By both drivers; several layers through overlayfs.

/** Of all packages below 15 MB every so-manieth is taken, two for an image. */
const IMAGES = 30;
const TAR =
  'tar --numeric-owner --xattrs --xattrs-include=* --acls --no-recursion --sort=name --format=pax --pax-option=delete=atime,delete=ctime';

interface Case {
  name: string;
  layers: Buffer[];
}

let folder: string;
let cases: Case[];

beforeAll(async () => {
  folder = await scratch();
  cases = [await special(), ...packages()];
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each([erofsDriver, directoryDriver('keep')])('driver $form', (driver) => {
  it('unpacks every image as umoci does, and every layer as GNU tar does', async () => {
    const node = await openNode(join(folder, driver.form), inlineUnpacker, driver);
    try {
      let files = 0;
      for (const image of cases) {
        const diffIds = await keep(node, image);
        for (const [i, diffId] of diffIds.entries()) await compareLayer(node, image, i, diffId);
        files += await compareImage(node, image, diffIds);
      }
      process.stdout.write(`${driver.form}: ${cases.length} images, ${files} files, all equal\n`);
      expect(files).toBeGreaterThan(3000);
    } finally {
      await destroyNode(node);
    }
  }, 600_000);
});

async function keep(node: TestNode, { layers }: Case): Promise<Digest[]> {
  const diffIds: Digest[] = [];
  for (const tar of layers) {
    const { digest } = await writeBlob(node.content, digestOf(tar), [tar]);
    diffIds.push((await node.layers.ensure({ blob: digest, compression: 'none', diffId: digest })).diffId);
  }
  return diffIds;
}

/** GNU tar knows no whiteouts: layers that have some are compared as part of their image. */
async function compareLayer(node: TestNode, image: Case, i: number, diffId: Digest): Promise<void> {
  const tar = image.layers[i] ?? Buffer.alloc(0);
  if (tar.includes('.wh.')) return;
  await inFolder('tar', async (out) => {
    writeFileSync(`${out}.tar`, tar);
    shell(
      `tar --numeric-owner --xattrs --xattrs-include=* --acls --same-owner --delay-directory-restore -C ${out} -xpf ${out}.tar 2>/dev/null`,
      '/',
    );
    rmSync(`${out}.tar`);
    const [mounted = ''] = await node.layers.mount([diffId]);
    expect(await lines(mounted), `${image.name}, layer ${i}`).toEqual(await lines(out));
  });
}

async function compareImage(node: TestNode, image: Case, diffIds: readonly Digest[]): Promise<number> {
  const id = image.name.replace(/\W/g, '-');
  await node.snapshots.prepare(id, diffIds);
  const rootfs = await node.snapshots.rootfs(id);
  const target = join(folder, 'merged');
  mkdirSync(target, { recursive: true });
  const data = `lowerdir=${rootfs.lower.join(':')},upperdir=${rootfs.upper},workdir=${rootfs.work}`;
  await act({ op: 'mount', source: 'overlay', target, type: 'overlay', flags: 0n, data });
  try {
    return await inFolder('umoci', async (out) => {
      layout(join(out, 'layout'), image.layers);
      execFileSync('umoci', ['raw', 'unpack', '--image', `${out}/layout:1`, `${out}/tree`], { stdio: 'ignore' });
      const ours = await lines(target);
      expect(asUmoci(ours), image.name).toEqual(asUmoci(await lines(join(out, 'tree'))));
      return ours.length;
    });
  } finally {
    await act({ op: 'umount', target, flags: 0 });
    await node.snapshots.remove(id);
  }
}

/** Without the root itself, which not every archive has. */
async function lines(root: string): Promise<string[]> {
  return (await describeTree(root)).slice(1);
}

/** umoci takes attributes from pax records of SCHILY.xattr, while GNU tar writes ACLs in a record of their own. */
function asUmoci(all: string[]): string[] {
  return all.map((line) => line.replace(/ (?:system\.posix_acl|user\.umoci)\S+/g, ''));
}

function act(op: Op): Promise<unknown> {
  return runPlan({ steps: [{ ...op, where: 'host', because: 'corpus' }] });
}

async function inFolder<T>(name: string, work: (path: string) => Promise<T>): Promise<T> {
  const path = join(folder, name);
  mkdirSync(path);
  try {
    return await work(path);
  } finally {
    rmSync(path, { recursive: true });
  }
}

function packages(): Case[] {
  const installed = shell(
    "dpkg-query -W -f '${db:Status-Abbrev}${Installed-Size} ${Package}\\n' | awk '/^ii/ && $2 < 15000 { print $3 }'",
    '/',
  )
    .toString()
    .trim()
    .split('\n');
  const step = Math.floor(installed.length / (IMAGES * 2));
  const chosen = installed.filter((_, i) => i % step === 0).slice(0, IMAGES * 2);
  const pairs = chosen.flatMap((name, i) => (i % 2 === 0 ? [[name, chosen[i + 1] ?? 'base-files'] as const] : []));
  return pairs.map(([lower, upper]) => ({
    name: `${lower} under ${upper}`,
    layers: ['base-files', lower, upper].map(packageTar),
  }));
}

/** The files of a package where they really are: dpkg's list goes through links such as /lib. */
function packageTar(name: string): Buffer {
  const listed = shell(`dpkg -L ${name}`, '/').toString().split('\n');
  const real = new Map<string, string>();
  const paths = new Set<string>();
  for (const path of listed) {
    if (!path.startsWith('/') || path === '/.' || !existsSync(dirname(path))) continue;
    const folder = real.get(dirname(path)) ?? realpathSync(dirname(path));
    real.set(dirname(path), folder);
    const place = join(folder, path.slice(path.lastIndexOf('/') + 1));
    if (!lstatSync(place, { throwIfNoEntry: false }) || /^\/(?:proc|sys|dev|tmp|run)\b/.test(place)) continue;
    for (let parent = dirname(place); parent !== '/'; parent = dirname(parent)) paths.add(parent.slice(1));
    paths.add(place.slice(1));
  }
  const list = join(folder, 'list');
  // What is in a directory right after it, as packers write it: doc/x before doc-base.
  const inTree = (path: string): string => path.replaceAll('/', '\0');
  writeFileSync(list, [...paths].sort((a, b) => (inTree(a) < inTree(b) ? -1 : 1)).join('\n'));
  return shell(`${TAR} -C / -cf - -T ${list}`, '/');
}

/** What packages do not have: capabilities, ACLs, attributes, devices, pipes, whiteouts, opaque directories, replaced types. */
async function special(): Promise<Case> {
  const [lower, upper] = [join(folder, 'lower'), join(folder, 'upper')];
  mkdirSync(lower);
  mkdirSync(upper);
  shell(
    `mkdir -p bin etc/keep etc/cover/deep dev var/gone; cp /bin/true bin/ping; cp /bin/true bin/su; chown 0:42 bin/su; chmod 6755 bin/su
     ln bin/ping bin/ping6; ln -s ../bin/ping etc/link; echo a > etc/cover/a; echo b > etc/cover/deep/b; echo c > var/gone/c; echo d > etc/becomes-dir
     mkdir etc/becomes-file; echo x > etc/becomes-file/x; mknod dev/null c 1 3; mknod dev/sda b 8 0; mkfifo dev/pipe; chmod 1777 var
     truncate -s 5M etc/sparse; echo end >> etc/sparse; touch -d 1975-05-05T05:05:05.25 etc/sparse; touch -h -d 2001-01-01 etc/link; chown 4000000000:70000 etc/keep`,
    lower,
  );
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  const acl = Buffer.from(
    '0200000001000600ffffffff020004003930000004000400ffffffff10000600ffffffff20000400ffffffff',
    'hex',
  );
  const set = (path: string, name: string, value: Buffer): Promise<unknown> =>
    act({ op: 'setXattr', path: join(lower, path), name, value });
  await set('bin/ping', 'security.capability', capability);
  await set('etc/sparse', 'system.posix_acl_access', acl);
  await set('etc/keep', 'user.note', Buffer.from([0, 1, 254, 255]));
  shell(
    `mkdir -p etc/cover var etc/becomes-dir; : > etc/cover/.wh..wh..opq; echo new > etc/cover/new; : > var/.wh.gone; : > etc/.wh.link
     echo file > etc/becomes-file; echo in > etc/becomes-dir/in; chmod 700 etc`,
    upper,
  );
  const tar = (at: string): Buffer => shell(`find . -mindepth 1 -printf '%P\\n' | sort | ${TAR} -cf - -T -`, at);
  return { name: 'special', layers: [tar(lower), tar(upper)] };
}

function layout(path: string, tars: readonly Buffer[]): void {
  mkdirSync(join(path, 'blobs/sha256'), { recursive: true });
  const blob = (bytes: Buffer): { digest: Digest; size: number } => {
    const digest = digestOf(bytes);
    writeFileSync(join(path, 'blobs/sha256', digest.slice('sha256:'.length)), bytes);
    return { digest, size: bytes.length };
  };
  const json = (value: object): { digest: Digest; size: number } => blob(Buffer.from(JSON.stringify(value)));
  const layers = tars.map((tar) => ({ mediaType: MEDIA.ociLayerGzip, ...blob(gzipSync(tar, { level: 1 })) }));
  const config = json({
    architecture: 'amd64',
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, ...config },
    layers,
  });
  const named = {
    mediaType: MEDIA.ociManifest,
    ...manifest,
    annotations: { 'org.opencontainers.image.ref.name': '1' },
  };
  writeFileSync(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }));
}
