import { chmodSync, mkdirSync, mkdtempSync, rmSync, type Stats, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Changed, hidesBottomAlone, withoutMountPoints } from '#engine/core/changes.ts';

describe('what a container changed', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'estiba-changes-'));
    for (const layer of ['upper', 'lower']) mkdirSync(join(directory, layer, 'etc'), { recursive: true, mode: 0o755 });
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const seen = (changes: Changed[]): Promise<string[]> =>
    withoutMountPoints(changes, join(directory, 'upper'), [join(directory, 'lower')]).then((kept) =>
      kept.map((c) => `${c.kind} ${c.path}`),
    );
  const write = (path: string, text: string): void => writeFileSync(join(directory, 'upper', path), text);

  it('is not what the runtime made to mount on, nor a directory that is there for that alone', async () => {
    write('etc/hosts', '');
    mkdirSync(join(directory, 'upper/dev/shm'), { recursive: true });
    const made: Changed[] = [
      { path: '/dev', kind: 'added' },
      { path: '/dev/shm', kind: 'added' },
      { path: '/etc', kind: 'changed' },
      { path: '/etc/hosts', kind: 'added' },
    ];
    expect(await seen(made)).toEqual([]);
    write('etc/motd', 'hi');
    expect(await seen([...made, { path: '/etc/motd', kind: 'added' }])).toEqual(['changed /etc', 'added /etc/motd']);
  });

  it('is such a file with something in it, a directory of another mode, and all that was removed', async () => {
    write('etc/hosts', '10.0.0.1 db\n');
    chmodSync(join(directory, 'upper/etc'), 0o700);
    expect(
      await seen([
        { path: '/etc', kind: 'changed' },
        { path: '/etc/hosts', kind: 'added' },
        { path: '/dev', kind: 'deleted' },
      ]),
    ).toEqual(['deleted /dev', 'changed /etc', 'added /etc/hosts']);
    expect(await seen([{ path: '/etc', kind: 'changed' }])).toEqual(['changed /etc']);
  });

  it('is, in an image of it, no removal of what every root has and its image had not', async () => {
    const whiteout = { isCharacterDevice: () => true, rdev: 0 } as Stats;
    const lower = [join(directory, 'lower')];
    expect(await hidesBottomAlone('/etc/mtab', whiteout, lower)).toBe(true);
    expect(await hidesBottomAlone('/etc/motd', whiteout, lower)).toBe(false);
    writeFileSync(join(directory, 'lower/etc/mtab'), 'old');
    expect(await hidesBottomAlone('/etc/mtab', whiteout, lower)).toBe(false);
  });
});
