import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Shim } from '#shim/shim.ts';

it('a shim that ends between our connecting and our listening is waited for by its exit file', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'estiba-shim-'));
  const server = createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve) => server.listen(join(dir, 'shim.sock'), resolve));
    writeFileSync(join(dir, 'exit'), `${7 << 8} 0 1000000\n`);
    const shim = await Shim.connect(dir); // which reads the directory first: the other side has closed by then
    expect(await shim.wait()).toMatchObject({ code: 7, oomKilled: false, atMs: 1 });
  } finally {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  }
});
