import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lockDirectory } from './lock.ts';

const room = mkdtempSync(join(tmpdir(), 'estiba-lock-'));
afterAll(() => rmSync(room, { recursive: true, force: true }));

describe('the lock of a directory', () => {
  it('is held by one process, which an error names, until it lets go', () => {
    const path = join(room, 'held');
    const unlock = lockDirectory(path);
    expect(() => lockDirectory(path)).toThrow(`in use by process ${process.pid}`);
    unlock();
    lockDirectory(path)();
  });

  it('is not held by a pid that belongs to another process by now', () => {
    const path = join(room, 'stale');
    writeFileSync(path, `${process.pid} 1\n`);
    lockDirectory(path)();
  });

  it('is not held by a zombie', async () => {
    // The second sleep takes the shell's place and never asks for its child.
    const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const [chunk] = (await once(parent.stdout, 'data')) as [Buffer];
      const zombie = Number(chunk.toString());
      const stat = (): string[] => readFileSync(`/proc/${zombie}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      await expect.poll(() => stat()[0], { timeout: 10_000 }).toBe('Z');
      const path = join(room, 'zombie');
      writeFileSync(path, `${zombie} ${stat()[19]}\n`);
      lockDirectory(path)();
    } finally {
      parent.kill('SIGKILL');
    }
  });
});
