import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
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
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import { memoryStore } from '#storage/memory.ts';
import type { Store } from '#storage/store.ts';
import { Volumes, type VolumeUse } from '#volume/volumes.ts';

const MIB = 1024 * 1024;

describe('volumes on this host', () => {
  let directory: string;
  let store: Store;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'estiba-volume-'));
    store = memoryStore(systemClock);
  });
  afterEach(() => {
    expect(mountsBelow(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  const open = (uses: VolumeUse[] = []): Promise<Volumes> =>
    Volumes.open(
      {
        dataRoot: join(directory, 'data'),
        runRoot: join(directory, 'run'),
        store,
        runPlan,
        lookup: async () => '127.0.0.1',
        clock: systemClock,
        random: systemRandom,
        log: logger('volume', silentSink),
      },
      uses,
    );

  it('are directories that outlive containers and daemons, until they are removed', async () => {
    const volumes = await open();
    const { volume, made } = await volumes.create({ name: 'plain', options: { uid: '33', gid: '34', mode: '750' } });
    expect(made).toBe(true);
    expect((await volumes.create({ name: 'plain' })).made).toBe(false);
    const { uid, gid, mode } = statSync(volume.path);
    expect([uid, gid, mode & 0o7777]).toEqual([33, 34, 0o750]);
    expect(await volumes.mount('plain', 'c1')).toBe(volume.path);
    writeFileSync(join(volume.path, 'file'), 'kept');
    await volumes.unmountAll('c1');
    const after = await open();
    expect(readFileSync(join(after.find('plain').path, 'file'), 'utf8')).toBe('kept');
    after.take('plain', 'c2');
    await expect(after.remove('plain')).rejects.toThrow('remove plain: volume is in use - [c2]');
    after.give('plain', 'c2');
    await after.remove('plain');
    expect(readdirSync(join(directory, 'data/volumes'))).toEqual([]);
    expect(() => after.find('plain')).toThrow('get plain: no such volume');
  });

  it('of memory live from the first container that runs with them to the last', async () => {
    const volumes = await open();
    const { volume } = await volumes.create({
      name: 'memory',
      options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,uid=7' },
    });
    await volumes.mount('memory', 'c1');
    await volumes.mount('memory', 'c2');
    writeFileSync(join(volume.path, 'file'), 'here');
    expect(statSync(volume.path).uid).toBe(7);
    await volumes.unmountAll('c1');
    expect(existsSync(join(volume.path, 'file'))).toBe(true);
    await volumes.unmountAll('c2');
    expect(readdirSync(volume.path)).toEqual([]);
    await volumes.remove('memory');
  });

  it('with a size hold so much and no more, and the host does not notice', async () => {
    const volumes = await open();
    const { volume } = await volumes.create({ name: 'sized', options: { size: '16M' } });
    await volumes.mount('sized', 'c1');
    expect(readdirSync(volume.path)).toEqual([]);
    expect(() => writeFileSync(join(volume.path, 'large'), Buffer.alloc(32 * MIB, 1))).toThrow('ENOSPC');
    rmSync(join(volume.path, 'large'));
    writeFileSync(join(volume.path, 'small'), 'kept');
    await volumes.unmountAll('c1');
    await volumes.mount('sized', 'c2');
    expect(readFileSync(join(volume.path, 'small'), 'utf8')).toBe('kept');
    await volumes.unmountAll('c2');
    await volumes.remove('sized');
    expect(execFileSync('losetup', ['-a'], { encoding: 'utf8' })).not.toContain(directory);
  });

  it('that bind a directory of the host leave it as it is when they go', async () => {
    const source = join(directory, 'source');
    mkdirSync(source);
    writeFileSync(join(source, 'theirs'), 'x');
    const volumes = await open();
    const { volume } = await volumes.create({ name: 'bound', options: { type: 'none', o: 'bind,ro', device: source } });
    await volumes.mount('bound', 'c1');
    expect(readdirSync(volume.path)).toEqual(['theirs']);
    expect(() => writeFileSync(join(volume.path, 'new'), '')).toThrow('EROFS');
    await volumes.unmountAll('c1');
    await volumes.remove('bound');
    expect(readdirSync(source)).toEqual(['theirs']);
  });

  it('say what the kernel lacks for them, and stay unmounted', async () => {
    const volumes = await open();
    await volumes.create({ name: 'remote', options: { type: 'nfs', device: ':/x', o: 'addr=storage.lan,ro' } });
    await expect(volumes.mount('remote', 'c1')).rejects.toMatchObject({
      code: 'VOLUME_MOUNT_FAILED',
      message: 'failed to mount local volume remote: mount -t nfs :/x: no such device',
      hint: 'this kernel has no file system nfs: load its module, or see /proc/filesystems',
    });
    await volumes.create({ name: 'nowhere', options: { type: 'none', o: 'bind', device: '/no/such/place' } });
    await expect(volumes.mount('nowhere', 'c1')).rejects.toThrow('no such file or directory');
    await volumes.unmountAll('c1');
    await volumes.remove('remote');
  });

  it('stay mounted over a restart of the daemon while their container runs, and not a moment longer', async () => {
    const first = await open();
    const { volume } = await first.create({ name: 'busy', options: { type: 'tmpfs', device: 'tmpfs' } });
    await first.create({ name: 'idle', options: { type: 'tmpfs', device: 'tmpfs' } });
    await first.mount('busy', 'runs');
    await first.mount('idle', 'ended-unseen');
    writeFileSync(join(volume.path, 'file'), 'here');
    const second = await open([{ name: 'busy', container: 'runs', active: true }]);
    expect(mountsBelow(directory)).toEqual([volume.path]);
    await second.unmountAll('runs');
  });

  it('give out sub-paths, and no link in them leads out of the volume', async () => {
    const volumes = await open();
    const { volume } = await volumes.create({ name: 'parts' });
    mkdirSync(join(volume.path, 'a/b'), { recursive: true });
    writeFileSync(join(volume.path, 'a/b/file'), 'inside');
    writeFileSync(join(directory, 'secret'), 'outside');
    symlinkSync('/a', join(volume.path, 'in'));
    symlinkSync(directory, join(volume.path, 'out'));
    const path = await volumes.bindSubpath('parts', 'c1', 'in/b');
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('inside');
    const file = await volumes.bindSubpath('parts', 'c1', 'a/b/file');
    expect(readFileSync(file, 'utf8')).toBe('inside');
    for (const subpath of ['out/secret', '../x', 'nothing', '/etc'])
      await expect(volumes.bindSubpath('parts', 'c1', subpath), subpath).rejects.toThrow(`sub-path "${subpath}"`);
    await volumes.unmountAll('c1');
    expect(existsSync(join(directory, 'run/subpaths/c1'))).toBe(false);
    expect(lstatSync(join(volume.path, 'a/b/file')).isFile()).toBe(true);
  });

  it('leave a directory alone of which the store knows nothing', async () => {
    await open();
    mkdirSync(join(directory, 'data/volumes/unknown/_data'), { recursive: true });
    await open();
    expect(existsSync(join(directory, 'data/volumes/unknown/_data'))).toBe(true);
  });
});

function mountsBelow(directory: string): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.map((line) => line.split(' ')[4] ?? '').filter((point) => point.startsWith(`${directory}/`));
}
