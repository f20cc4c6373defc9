import { type ChildProcess, spawn } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packPath, statPath, unpackInto } from '#engine/core/archive.ts';
import type { RootView } from '#engine/core/root-view.ts';
import { entryWith, type TarEntry } from '#image/tar/entry.ts';
import { TarReader } from '#image/tar/reader.ts';
import { endOfArchive, header, padding } from '#image/tar/writer.ts';
import { runPlan } from '#kernel/plan/execute.ts';

describe('archives of a container', () => {
  let directory: string;
  let root: string;
  let view: RootView;
  let tools: { runPlan: typeof runPlan; scratch: string };

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'estiba-archive-'));
    root = join(directory, 'root');
    tools = { runPlan, scratch: directory };
    mkdirSync(join(root, 'foo/sub'), { recursive: true });
    mkdirSync(join(root, 'tmp'));
    writeFileSync(join(root, 'foo/a'), 'hi\n');
    symlinkSync('foo', join(root, 'lnk'));
    symlinkSync('/foo/a', join(root, 'flnk'));
    symlinkSync('../../../..', join(root, 'up'));
    view = { directory: root, readonlyAt: () => undefined };
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const pack = async (path: string): Promise<Buffer> => {
    const chunks: Buffer[] = [];
    await packPath(view, path, 'c1', tools, async (chunk) => void chunks.push(chunk));
    return Buffer.concat(chunks);
  };
  const unpack = (
    path: string,
    archive: Buffer,
    more: { owner?: { uid: number; gid: number }; keepKinds?: boolean } = {},
  ) => unpackInto(view, { path, keepKinds: false, ...more }, 'c1', Readable.from([archive]), tools);

  // Answers of dockerd 20.10 for the same tree.
  it.each([
    ['/foo', 'foo', 'foo/ foo/a foo/sub/'],
    ['/foo/', 'foo', 'foo/ foo/a foo/sub/'],
    ['/foo/.', '.', './ ./a ./sub/'],
    ['/lnk', 'lnk', 'lnk'],
    ['/lnk/', 'lnk', 'lnk/ lnk/a lnk/sub/'],
    ['/lnk/.', '.', './ ./a ./sub/'],
    ['/foo/a', 'a', 'a'],
    ['foo/../foo', 'foo', 'foo/ foo/a foo/sub/'],
    ['/up/foo/a', 'a', 'a'],
  ])('of %s have the names that docker cp expects', async (path, base, names) => {
    expect((await statPath(view, path, 'c1')).name).toBe(base);
    expect(namesIn(await pack(path)).join(' ')).toBe(names);
  });

  it('of what holds the kernel’s own files have them as empty directories', async () => {
    mkdirSync(join(root, 'proc/1'), { recursive: true });
    const running = { ...view, empty: new Set(['/proc']) };
    view = running;
    expect(namesIn(await pack('/')).filter((name) => name.includes('proc'))).toEqual(['/proc/']);
    expect(namesIn(await pack('/proc'))).toEqual(['proc/']);
    expect(namesIn(await pack('/proc/1'))).toEqual(['1/']);
  });

  it('tell what a link leads to, in the container', async () => {
    expect(await statPath(view, '/lnk', 'c1')).toMatchObject({ linkTarget: '/foo', mode: 134218239, size: 3 });
    expect(await statPath(view, '/flnk', 'c1')).toMatchObject({ linkTarget: '/foo/a' });
    expect(await statPath(view, '/foo', 'c1')).toMatchObject({ linkTarget: '', mode: 2147484141 });
    await expect(statPath(view, '/nope/x', 'c1')).rejects.toThrow('Could not find the file /nope/x in container c1');
    await expect(statPath(view, '/foo/a/', 'c1')).rejects.toThrow('Could not find the file /foo/a/ in container c1');
  });

  it('are unpacked packed or not, and what is there is replaced, never written through', async () => {
    writeFileSync(join(directory, 'outside'), 'theirs');
    symlinkSync(join(directory, 'outside'), join(root, 'tmp/file'));
    await unpack('/tmp', tar([entry({ path: 'file' }, 'ours')]));
    expect(readFileSync(join(directory, 'outside'), 'utf8')).toBe('theirs');
    expect(readFileSync(join(root, 'tmp/file'), 'utf8')).toBe('ours');
    await unpack('/lnk', gzipSync(tar([entry({ path: 'new', uid: 7 }, 'x'.repeat(300_000))])));
    expect(statSync(join(root, 'foo/new'))).toMatchObject({ size: 300_000, uid: 7 });
    await unpack('/tmp', tar([entry({ path: 'mine', uid: 7 }, '')]), { owner: { uid: 1000, gid: 1001 } });
    expect(statSync(join(root, 'tmp/mine'))).toMatchObject({ uid: 1000, gid: 1001 });
  });

  it('are refused where nothing may be written, where no directory is, and where kinds differ', async () => {
    const one = tar([entry({ path: 'a' }, '')]);
    await expect(unpack('/foo/a', one)).rejects.toThrow('extraction point is not a directory');
    await expect(unpack('/nope', one)).rejects.toThrow('Could not find the file /nope in container c1');
    view.readonlyAt = () => 'root';
    await expect(unpack('/tmp', one)).rejects.toThrow('container rootfs is marked read-only');
    view.readonlyAt = () => 'volume';
    await expect(unpack('/tmp', one)).rejects.toThrow('mounted volume is marked read-only');
    view.readonlyAt = () => undefined;
    await expect(unpack('/', tar([entry({ path: 'foo' }, '')]), { keepKinds: true })).rejects.toThrow(
      'cannot overwrite directory "foo" with non-directory',
    );
    await expect(unpack('/foo', tar([entry({ path: 'a', type: 'dir' })]), { keepKinds: true })).rejects.toThrow(
      'cannot overwrite non-directory "a" with directory',
    );
    await expect(unpack('/tmp', Buffer.from('BZh91AY&SY'))).rejects.toThrow('packed with bzip2');
  });

  it('do not lead out of the directory they go to, by names or by links of their own', async () => {
    await expect(unpack('/tmp', tar([entry({ path: '../../evil' }, 'x')]))).rejects.toThrow(/evil/);
    const link = entry({ path: 'l', type: 'symlink', linkTarget: directory });
    await unpack('/tmp', tar([link, entry({ path: 'l/evil' }, 'x')]));
    expect(readdirSync(directory)).toEqual(['root']);
    expect(readFileSync(join(root, directory, 'evil'), 'utf8')).toBe('x'); // the link's target, inside the container
    await expect(
      unpack('/tmp', tar([entry({ path: 'h', type: 'hardlink', linkTarget: '../../../../../etc/passwd' })])),
    ).rejects.toThrow();
  });

  it('keep what is mounted over a stopped container’s root in its place', async () => {
    const volume = join(directory, 'volume');
    mkdirSync(volume);
    writeFileSync(join(volume, 'kept'), 'in the volume');
    view = {
      ...view,
      over: new Map([
        ['/foo/sub', volume],
        ['/new', volume],
      ]),
    };
    expect(namesIn(await pack('/'))).toEqual(
      expect.arrayContaining(['/foo/sub/', '/foo/sub/kept', '/new/', '/new/kept']),
    );
    await unpack('/foo', tar([entry({ path: 'sub', type: 'dir' }), entry({ path: 'sub/added' }, 'x')]));
    expect(readdirSync(volume).sort()).toEqual(['added', 'kept']);
    expect(readdirSync(join(root, 'foo/sub'))).toEqual([]);
  });

  it('show and touch nothing outside while a container swaps a directory for a link', async () => {
    const outside = join(directory, 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'secret'), 'SECRET');
    mkdirSync(join(root, 'swap/inner'), { recursive: true });
    writeFileSync(join(root, 'swap/inner/secret'), 'public');
    const racer = swapForever(join(root, 'swap/inner'), outside);
    const ended = new Promise((resolve) => racer.once('close', resolve));
    try {
      const archive = tar([entry({ path: 'inner/planted' }, 'x')]);
      // The racer takes a processor for itself: where there is little left of the others, fewer tries have to do.
      const enoughMs = performance.now() + ENOUGH_MS;
      for (let i = 0; i < 300 && performance.now() < enoughMs; i++) {
        expect((await pack('/swap')).includes('SECRET')).toBe(false);
        const direct = await pack('/swap/inner/secret').catch(() => Buffer.alloc(0));
        expect(direct.includes('SECRET')).toBe(false);
        await unpack('/swap', archive).catch(() => undefined); // a name may be gone at that moment: no matter
        expect(readdirSync(outside)).toEqual(['secret']);
      }
      expect([racer.exitCode, racer.signalCode]).toEqual([null, null]); // it raced to the end
    } finally {
      racer.kill('SIGKILL');
      await ended;
    }
  });
});

const ENOUGH_MS = 60_000;

/** What is unpacked meanwhile gets in the way of each step, also of clearing it away: the next round finds the directory again. */
function swapForever(path: string, target: string): ChildProcess {
  const script = `
    const fs = require('node:fs');
    const [path, target] = process.argv.slice(1);
    const tried = (step) => { try { step(); return true; } catch { return false; } };
    for (const parent = process.ppid; process.ppid === parent; ) {
      tried(() => fs.renameSync(path, path + '.aside'));
      tried(() => fs.symlinkSync(target, path));
      tried(() => fs.unlinkSync(path));
      if (!tried(() => fs.renameSync(path + '.aside', path))) tried(() => fs.rmSync(path, { recursive: true, force: true }));
    }`;
  return spawn(process.execPath, ['-e', script, path, target], { stdio: 'ignore' });
}

function entry(fields: Partial<TarEntry> & { path: string }, content = ''): { entry: TarEntry; content: Buffer } {
  const bytes = Buffer.from(content);
  return {
    entry: entryWith({
      mode: fields.type === 'dir' ? 0o755 : 0o644,
      mtimeSec: 1_700_000_000,
      size: bytes.length,
      ...fields,
    }),
    content: bytes,
  };
}

function tar(members: { entry: TarEntry; content: Buffer }[]): Buffer {
  return Buffer.concat([
    ...members.flatMap(({ entry: e, content }) => [header(e), content, padding(content.length)]),
    endOfArchive(),
  ]);
}

/** As they stand in the archive: our own reader would tidy them up. */
function namesIn(archive: Buffer): string[] {
  const names: string[] = [];
  for (let at = 0; at < archive.length && archive[at] !== 0; ) {
    const name = archive.toString('latin1', at, at + 100).replace(/\0.*$/s, '');
    const size = Number.parseInt(archive.toString('latin1', at + 124, at + 135), 8);
    names.push(name === '/./' ? '/' : name);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  new TarReader('archive', { entry: () => undefined, data: () => undefined, end: () => undefined }).push(archive);
  return names;
}
