import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSubpath } from '#volume/subpath.ts';

describe('a sub-path of a volume', () => {
  const volume = mkdtempSync(join(tmpdir(), 'estiba-subpath-'));
  afterAll(() => rmSync(volume, { recursive: true }));
  mkdirSync(join(volume, 'a'));
  writeFileSync(join(volume, 'a/file'), 'x');
  symlinkSync('/etc', join(volume, 'out'));
  symlinkSync('a', join(volume, 'in'));

  const found = async (path: string, how?: { make: number }): Promise<string> => {
    const subpath = await openSubpath('v', volume, path, how);
    try {
      return realpathSync(subpath.path).slice(volume.length);
    } finally {
      await subpath.close();
    }
  };

  it('is found by links that stay inside; `/` means the volume', async () => {
    expect([await found('a'), await found('in'), await found('in/file')]).toEqual(['/a', '/a', '/a/file']);
    await expect(found('out')).rejects.toThrow('is not in the volume');
    await expect(found('missing')).rejects.toThrow('is not in the volume');
    for (const path of ['../x', 'a/../../x', '/etc']) await expect(found(path), path).rejects.toThrow('must');
  });

  it('is made when that is wished, inside, however deep', async () => {
    const make = { make: 0o755 };
    expect([await found('b/c/d', make), await found('in/e', make)]).toEqual(['/b/c/d', '/a/e']);
    expect(await found('out/new', make)).toBe('/etc/new');
    expect(await found('in/file', make)).toBe('/a/file');
    expect(readFileSync(join(volume, 'a/file'), 'utf8')).toBe('x');
    await expect(found('a/file/x', make)).rejects.toThrow();
  });
});
