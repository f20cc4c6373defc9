import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { logger, silentSink } from '#base/log.ts';
import type { Change } from '#image/diff.ts';
import { destroyNode, openNode, scratch, shell, type TestNode } from '#image/fixtures/node.ts';
import { describeTree } from '#image/fixtures/trees.ts';
import { chooseDriver, directoryDriver, erofsDriver, type LayerDriver, privilegeOf } from '#image/layer/driver.ts';
import { inlineUnpacker } from '#image/layer/pool.ts';
import { LayerStore, mountsBelow } from '#image/layers.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Step } from '#kernel/plan/plan.ts';
import { digestOf } from '#spec/image/digest.ts';

const nodes: TestNode[] = [];

async function make(driver: LayerDriver, root?: string): Promise<TestNode> {
  const node = await openNode(root ?? (await scratch()), inlineUnpacker, driver);
  nodes.push(node);
  return node;
}

afterEach(async () => {
  for (const node of nodes.splice(0)) await destroyNode(node);
});

function step(s: Record<string, unknown>): Step {
  return { where: 'host', because: 'test', ...s } as Step;
}

/** A tree with one of everything, made with the host's own tools. */
async function everything(at: string): Promise<void> {
  mkdirSync(at);
  shell(
    `mkdir -p dir/sub "naïve name" many; echo hello > dir/file; ln dir/file dir/hard; ln dir/file other; ln -s ../dir/file dir/sub/soft
     ln -s "$(printf 'x%.0s' {1..300})" longlink; : > empty; head -c 5000 /dev/zero > zeros; head -c 2048 /dev/urandom > edge; head -c 2049 /dev/urandom > past
     head -c 4096 /dev/urandom > block; head -c 100000 /dev/urandom > large; mknod null c 1 3; mknod loop b 7 300; mkfifo pipe
     truncate -s 3M sparse; printf end | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none; printf mid | dd of=sparse bs=1 seek=70000 conv=notrunc status=none
     mkdir -p "$(printf 'd%.0s' {1..120})/$(printf 'e%.0s' {1..120})"; echo deep > "$(printf 'd%.0s' {1..120})/$(printf 'e%.0s' {1..120})/f"
     for i in $(seq 1 400); do echo $i > many/file-with-a-rather-long-name-$i; done
     chmod 4755 dir/file; chmod 1777 dir/sub; chmod 000 empty; chown 1000:100000 zeros; chown -h 5:6 longlink; touch -d '1969-07-20 20:17:40.25' zeros; touch -d '2222-01-01' large`,
    at,
  );
  const acl = Buffer.from(
    '0200000001000600ffffffff020004003930000004000400ffffffff10000600ffffffff20000400ffffffff',
    'hex',
  );
  const xattr = (path: string, name: string, value: Buffer | string): Step =>
    step({ op: 'setXattr', path: join(at, path), name, value: Buffer.from(value) });
  await runPlan({
    steps: [
      xattr('large', 'security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')),
      xattr('large', 'user.note', 'x'.repeat(1500)),
      xattr('edge', 'user.empty', ''),
      xattr('dir', 'user.of-directory', 'yes'),
      xattr('dir', 'trusted.secret', Buffer.from([0, 1, 2, 255])),
      xattr('past', 'system.posix_acl_access', acl),
    ],
  });
}

const TAR = 'tar --numeric-owner --xattrs --xattrs-include=* --acls';

const drivers = [erofsDriver, directoryDriver('keep')] as const;

describe.each(drivers)('driver $form: an unpacked layer is the tree that GNU tar unpacks', (driver) => {
  it.each(['gnu', 'pax', 'pax --sparse', 'gnu --sparse'])('from an archive in the format %s', async (format) => {
    const node = await make(driver);
    const [source, out] = [join(node.root, 'source'), join(node.root, 'out')];
    await everything(source);
    // The GNU format holds no attributes and no fractions of seconds; GNU tar says so by failing.
    const flags = format.startsWith('gnu') ? 'tar --numeric-owner' : TAR;
    const tar = shell(`${flags} --format=${format} -cf - .`, source);
    mkdirSync(out);
    writeFileSync(join(node.root, 'layer.tar'), tar);
    shell(`${TAR} --same-owner -xpf ../layer.tar`, out);
    const diffId = await node.addLayer(tar, 'gzip', gzipSync(tar, { level: 1 }));
    const [mounted = ''] = await node.layers.mount([diffId]);
    expect(await describeTree(mounted)).toEqual(await describeTree(out));
  });

  it('from the Debian packages of this host', async () => {
    const node = await make(driver);
    const tar = shell(
      `dpkg -L base-files coreutils tar bash netbase | sed -E "s,^/(bin|sbin|lib|lib64)(/|$),/usr/\\1\\2," | sort -u | tar --numeric-owner --no-recursion -C / -cf - -T - 2>/dev/null`,
      '/',
    );
    const out = join(node.root, 'out');
    mkdirSync(out);
    writeFileSync(join(node.root, 'layer.tar'), tar);
    shell(`${TAR} --same-owner -xpf ../layer.tar`, out);
    const [mounted = ''] = await node.layers.mount([await node.addLayer(tar)]);
    const made = await describeTree(mounted);
    expect(made.length).toBeGreaterThan(400);
    expect(made.slice(1)).toEqual((await describeTree(out)).slice(1)); // the list has no entry for the root itself
  });
});

describe.each(drivers)('driver $form: snapshots', (driver) => {
  const overlay = (node: TestNode, rootfs: { lower: string[]; upper: string; work: string }): Step => {
    const target = join(node.root, 'merged');
    mkdirSync(target, { recursive: true });
    const data = `lowerdir=${rootfs.lower.join(':')},upperdir=${rootfs.upper},workdir=${rootfs.work}`;
    return step({ op: 'mount', source: 'overlay', target, type: 'overlay', flags: 0n, data });
  };
  const umount = (node: TestNode): Step => step({ op: 'umount', target: join(node.root, 'merged'), flags: 0 });

  it('stack layers, hide what was removed, and give their changes back as a layer that does the same', async () => {
    const node = await make(driver);
    const source = join(node.root, 'source');
    mkdirSync(source);
    const base = shell(
      'mkdir -p a b/c; echo 1 > a/one; echo 2 > a/two; echo 3 > b/c/three; echo 4 > four; chmod 755 .; tar -cf - .',
      source,
    );
    const second = shell(
      'rm -rf * ; mkdir a b; : > a/.wh.one; : > b/.wh..wh..opq; echo new > b/new; : > .wh.four; tar -cf - a b .wh.four',
      source,
    );
    const layers = [await node.addLayer(base), await node.addLayer(second)];
    await node.snapshots.prepare('c1', layers);
    const rootfs = await node.snapshots.rootfs('c1');
    await runPlan({ steps: [overlay(node, rootfs)] });
    const merged = join(node.root, 'merged');
    expect(shell('find . | sort', merged).toString().trim().split('\n')).toEqual([
      '.',
      './a',
      './a/two',
      './b',
      './b/new',
    ]);

    shell(
      'rm a/two; rm -r b; mkdir b; echo again > b/again; echo x > x; setfacl -m u:1:r x 2>/dev/null || true; chmod 700 a; ln x y',
      merged,
    );
    await runPlan({
      steps: [step({ op: 'setXattr', path: join(merged, 'x'), name: 'user.k', value: Buffer.from('v') })],
    });
    const changes: Change[] = [];
    for await (const change of node.snapshots.changes('c1')) changes.push(change);
    expect(changes.map((c) => `${c.kind} ${c.path}`).sort()).toEqual([
      'added b/again',
      'added x',
      'added y',
      'changed a',
      'changed b',
      'deleted a/two',
    ]);
    const chunks: Buffer[] = [];
    for await (const chunk of node.snapshots.diff('c1')) chunks.push(chunk);
    const third = await node.addLayer(Buffer.concat(chunks));
    const before = await describeTree(merged);
    await runPlan({ steps: [umount(node)] });

    await node.snapshots.prepare('c2', [...layers, third]);
    const again = await node.snapshots.rootfs('c2');
    await runPlan({ steps: [overlay(node, again)] });
    const whole = (lines: string[]): string[] =>
      lines.map((l) => l.replace(/ at \d+/, '').replace(/ trusted\.overlay\.\S+/g, ''));
    expect(whole(await describeTree(merged))).toEqual(whole(before));
    await runPlan({ steps: [umount(node)] });
    expect((await node.snapshots.usage('c1')).inodes).toBeGreaterThan(4);
    await node.snapshots.remove('c1');
    await node.snapshots.remove('c1');
    expect(node.snapshots.has('c1')).toBe(false);
    expect(() => node.snapshots.checkUnused(third)).toThrow('used by container c2');
  });

  it('are there after a restart, and those of a crash are gone', async () => {
    const root = await scratch();
    const first = await openNode(root, inlineUnpacker, driver);
    const source = join(root, 'source');
    mkdirSync(source);
    const diffId = await first.addLayer(shell('echo 1 > one; tar -cf - .', source));
    await first.snapshots.prepare('kept', [diffId]);
    await first.snapshots.prepare('forgotten', [diffId], { volatile: true });
    expect(first.snapshots.usersOf(diffId)).toEqual(['kept', 'forgotten']);
    await first.close();
    mkdirSync(join(root, 'data/snapshots/zz/fs'), { recursive: true });
    writeFileSync(join(root, 'data/layers/zz.erofs'), 'orphan');
    mkdirSync(join(root, 'data/layers/zz.dir/fs'), { recursive: true });
    writeFileSync(join(root, 'data/layers/.tmp-1'), 'torn');
    const second = await make(driver, root);
    expect(second.snapshots.list()).toEqual(['kept']);
    const { lower } = await second.snapshots.rootfs('kept');
    expect(readFileSync(join(lower[0] ?? '', 'one'), 'utf8')).toBe('1\n');
    expect(readdirSync(join(root, 'data/snapshots'))).toEqual(['1']);
    expect(readdirSync(join(root, 'data/layers')).sort()).toEqual([driver.entry('1'), 'none']);
  });

  it.each([
    ['kill -9', true],
    ['a power cut', false],
  ])(
    'made from a tar in memory are mounted at once, and after %s there when they were sure to be whole',
    async (_, sameBoot) => {
      const root = await scratch();
      const first = await openNode(root, inlineUnpacker, driver);
      mkdirSync(join(root, 'source'));
      const tar = shell('echo 1 > one; head -c 9000 /dev/urandom > two; tar -cf - .', join(root, 'source'));
      const twice = await Promise.all([
        first.layers.addTar(digestOf(tar), tar),
        first.layers.addTar(digestOf(tar), tar),
      ]);
      expect(twice[0]).toEqual(twice[1]);
      const [mounted = ''] = await first.layers.mount([digestOf(tar)]);
      expect(readFileSync(join(mounted, 'one'), 'utf8')).toBe('1\n');
      await first.layers.idle();
      const other = shell('echo 2 > one; tar -cf - .', join(root, 'source'));
      await first.layers.addTar(digestOf(other), other);
      await first.store.close(); // nobody computes its checksum
      if (!sameBoot) rmSync(join(root, 'run/layers.boot'));
      const second = await make(driver, root);
      const kept = sameBoot ? [digestOf(tar), digestOf(other)] : [digestOf(tar)];
      expect(second.layers.list().map((layer) => layer.diffId)).toEqual(expect.arrayContaining(kept));
      expect(second.layers.list()).toHaveLength(kept.length);
      expect(readdirSync(join(root, 'data/layers'))).toHaveLength(kept.length + 1);
      const [again = ''] = await second.layers.mount([kept.at(-1) ?? digestOf(tar)]);
      expect(readFileSync(join(again, 'one'), 'utf8')).toBe(sameBoot ? '2\n' : '1\n');
    },
  );

  it('that a killed daemon left without a checksum are on disk for good before the next one records it', async () => {
    const root = await scratch();
    const first = await openNode(root, inlineUnpacker, driver);
    mkdirSync(join(root, 'source'));
    const tar = shell('echo 1 > one; tar -cf - .', join(root, 'source'));
    const { name } = await first.layers.addTar(digestOf(tar), tar);
    await first.store.close(); // killed: nobody computes its checksum
    const order: string[] = [];
    const seen: LayerDriver = {
      ...driver,
      sync: (path) => {
        order.push(`sync ${path}`);
        return driver.sync(path);
      },
      checksum: (path) => {
        order.push(`checksum ${path}`);
        return driver.checksum(path);
      },
    };
    const second = await make(seen, root);
    await second.layers.idle();
    const path = join(root, 'data/layers', driver.entry(name));
    expect(order).toEqual([`sync ${path}`, `checksum ${path}`]);
  });
});

describe.each(drivers)('driver $form: damage', (driver) => {
  it('of an unpacked layer is found before it is mounted again, and the blob makes it anew', async () => {
    const root = await scratch();
    const first = await openNode(root, inlineUnpacker, driver);
    mkdirSync(join(root, 'source'));
    const tar = shell('head -c 50000 /dev/urandom > data; tar -cf - .', join(root, 'source'));
    const diffId = await first.addLayer(tar);
    await first.layers.idle();
    await first.layers.unmountAll();
    await first.close();
    const file = driver.form === 'erofs' ? join(root, 'data/layers/1.erofs') : join(root, 'data/layers/1.dir/fs/data');
    const bytes = readFileSync(file);
    bytes[30_000] = (bytes[30_000] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const second = await make(driver, root);
    await expect(second.layers.mount([diffId])).rejects.toMatchObject({ code: 'LAYER_DAMAGED' });
    await expect(second.layers.mount([diffId])).rejects.toMatchObject({ code: 'LAYER_NOT_FOUND' });
    await second.layers.ensure({ blob: digestOf(tar), compression: 'none', diffId });
    const [mounted = ''] = await second.layers.mount([diffId]);
    expect(readFileSync(join(mounted, 'data')).equals(readFileSync(join(root, 'source/data')))).toBe(true);
  });

  it('of a blob is found while it is unpacked, and nothing is left', async () => {
    const node = await make(driver);
    mkdirSync(join(node.root, 'source'));
    const tar = shell('echo x > data; tar -cf - .', join(node.root, 'source'));
    for (const [packed, diffId, code] of [
      [gzipSync(tar).subarray(0, -5), digestOf(tar), 'LAYER_INVALID'],
      [gzipSync(tar), digestOf('other'), 'DIGEST_MISMATCH'],
      [Buffer.from('no gzip at all'), digestOf(tar), 'LAYER_INVALID'],
    ] as const) {
      const ingest = await node.content.ingest('r');
      await ingest.append(packed);
      const { digest } = await ingest.commit();
      await expect(node.layers.ensure({ blob: digest, compression: 'gzip', diffId })).rejects.toMatchObject({ code });
    }
    expect(readdirSync(join(node.root, 'data/layers'))).toEqual(['none']);
    expect(node.layers.list()).toEqual([]);
  });

  it('removing a layer takes file, mount and record', async () => {
    const node = await make(driver);
    mkdirSync(join(node.root, 'source'));
    const diffId = await node.addLayer(shell('echo x > data; tar -cf - .', join(node.root, 'source')));
    await node.layers.mount([diffId]);
    const mounts = (): string[] =>
      mountsBelow(join(node.root, 'run/layers'), readFileSync('/proc/self/mountinfo', 'utf8'));
    expect(mounts()).toEqual(driver.form === 'erofs' ? ['1'] : []);
    await node.layers.remove(diffId);
    expect(mounts()).toEqual([]);
    expect(readdirSync(join(node.root, 'data/layers'))).toEqual(['none']);
    expect(node.layers).toBeInstanceOf(LayerStore);
    await rm(join(node.root, 'source'), { recursive: true });
  });
});

describe('choice of a driver', () => {
  const log = logger('image', silentSink);

  it('is EROFS where root can mount it, a directory otherwise, and nothing of the trial stays', async () => {
    const root = await scratch();
    expect((await chooseDriver({ scratch: root, privilege: 'host', runPlan, log })).form).toBe('erofs');
    const refuses = (): Promise<never> => Promise.reject(new Error('ENODEV'));
    expect(await chooseDriver({ scratch: root, privilege: 'host', runPlan: refuses, log })).toMatchObject({
      form: 'directory',
      ownership: 'keep',
    });
    for (const [privilege, ownership] of [
      ['namespace', 'mapped'],
      ['none', 'mine'],
    ] as const)
      expect(await chooseDriver({ scratch: root, privilege, runPlan, log })).toMatchObject({ ownership });
    expect(privilegeOf(0, '         0          0 4294967295\n')).toBe('host');
    expect(privilegeOf(0, '         0       1000          1\n         1     100000      65536\n')).toBe('namespace');
    expect(privilegeOf(0, '         0       1000          1\n')).toBe('none');
    expect(privilegeOf(1000, '         0          0 4294967295\n')).toBe('none');
    expect(readdirSync(root)).toEqual([]);
    await rm(root, { recursive: true });
  });

  it('a store opened with the other driver makes its layers anew', async () => {
    const root = await scratch();
    const first = await openNode(root);
    mkdirSync(join(root, 'source'));
    const tar = shell('echo x > data; tar -cf - .', join(root, 'source'));
    const diffId = await first.addLayer(tar);
    await first.layers.mount([diffId]);
    await first.layers.idle();
    await first.close();
    const second = await make(directoryDriver('keep'), root);
    expect(second.layers.get(diffId)).toBeUndefined();
    expect(mountsBelow(join(root, 'run/layers'), readFileSync('/proc/self/mountinfo', 'utf8'))).toEqual([]);
    const [lower = ''] = await second.layers.mount([await second.addLayer(tar)]);
    expect(readFileSync(join(lower, 'data'), 'utf8')).toBe('x\n');
  });

  it('without privilege all is the own user, devices are empty files, and overlayfs reads user attributes', async () => {
    const node = await make(directoryDriver('mine'));
    mkdirSync(join(node.root, 'source'));
    const tar = shell(
      'mkdir d; : > d/.wh..wh..opq; : > .wh.gone; echo x > file; chown 5:6 file; chmod 4040 file; mknod null c 1 3; mkfifo pipe; tar --numeric-owner -cf - *  .wh.gone',
      join(node.root, 'source'),
    );
    const [lower = ''] = await node.layers.mount([await node.addLayer(tar)]);
    expect(node.layers.overlayOptions).toEqual(['userxattr']);
    const lines = (await describeTree(lower)).map((line) => line.replace(/ at \d+/, ''));
    expect(lines.slice(1)).toEqual([
      'd 40755 0:0 user.overlay.opaque=79',
      expect.stringMatching(/^file 104440 0:0 2 /),
      'gone 20400 0:0 dev 0',
      expect.stringMatching(/^null 100644 0:0 0 /),
      'pipe 10644 0:0',
    ]);
  });
});
