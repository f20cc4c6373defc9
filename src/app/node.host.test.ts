import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openNode } from '#app/node.ts';
import { errnoOf } from '#base/errors.ts';
import { Spawner, spawnerSocket } from '#shim/spawner.ts';
import { lockDirectory } from '#storage/lock.ts';

describe('a node that cannot be opened', () => {
  it('gives back what was opened beside the floor that failed', async () => {
    const root = mkdtempSync(join(tmpdir(), 'estiba-node-'));
    onTestFinished(() => rmSync(root, { recursive: true, force: true }));
    const [dataRoot, runRoot] = [join(root, 'data'), root];
    const store = join(dataRoot, 'store');
    mkdirSync(dataRoot);
    writeFileSync(store, ''); // where a directory has to be: told long before the spawner has started
    const before = openSockets();
    const opening = openNode({
      name: 'est-n',
      dataRoot,
      runRoot,
      registryMirrors: [],
      insecureRegistries: [],
      mtuBytes: 1500,
      bootstrap: false,
      stopGraceMs: 10_000,
    });
    await expect(opening).rejects.toThrow(store);
    const spawner = await Spawner.connect(spawnerSocket(runRoot)); // it was waited for
    await spawner.quit();
    spawner.close();
    expect(openSockets()).toEqual(before);
    lockDirectory(join(runRoot, 'daemon.lock'))();
  });
});

function openSockets(): string[] {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return ''; // the listing's own
      throw error;
    }
  });
  return targets.filter((target) => target.startsWith('socket:')).sort();
}
