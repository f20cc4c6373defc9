import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
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

  it('is taken over from the dead by one alone, also when another died as it took it over', async () => {
    const outfile = join(room, 'contender.mjs');
    const contents = `
      import { lockDirectory } from './lock.ts';
      let unlock;
      process.on('message', ({ path, atMs }) => {
        if (!path) return unlock = void unlock?.(), process.send('free');
        while (Date.now() < atMs); // all at once
        try { unlock = lockDirectory(path); process.send('held'); }
        catch (error) { process.send(error.code ?? String(error)); }
      });`;
    await build({
      stdin: { contents, resolveDir: import.meta.dirname, loader: 'ts' },
      bundle: true,
      platform: 'node',
      format: 'esm',
      outfile,
    });
    const contenders = Array.from({ length: 4 }, () => fork(outfile));
    const ask = (order: object): Promise<unknown[]> =>
      Promise.all(
        contenders.map(async (child) => {
          child.send(order);
          return (await once(child, 'message'))[0];
        }),
      );
    try {
      await ask({});
      for (let round = 0; round < 100; round++) {
        const path = join(room, `left-${round}`);
        writeFileSync(path, '4194303 1\n');
        if (round % 2 === 1) writeFileSync(`${path}.after-4194303-1`, '4194302 1\n');
        const answers = await ask({ path, atMs: Date.now() + 5 });
        expect(answers.toSorted()).toEqual(['STORE_LOCKED', 'STORE_LOCKED', 'STORE_LOCKED', 'held']);
        await ask({});
        expect(readdirSync(room).filter((name) => name.startsWith(`left-${round}`))).toEqual([]);
      }
    } finally {
      for (const child of contenders) child.kill();
    }
  }, 60_000);
});
