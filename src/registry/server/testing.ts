import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import type { ContentStore } from '#image/content.ts';
import { MemoryContentStore } from '#image/content-memory.ts';
import type { AccessFile } from '#registry/server/access.ts';
import { openRegistry, type Registry, type RegistryOptions } from '#registry/server/open.ts';
import { memoryStore } from '#storage/memory.ts';

export interface TestRegistry extends AsyncDisposable {
  registry: Registry;
  content: ContentStore;
  /** Where `access.json` is. */
  folder: string;
  /** `http://127.0.0.1:port` */
  url: string;
  /** `127.0.0.1:port` */
  host: string;
}

/** A registry in memory on a free port of loopback, for tests of the server and of its clients. */
export async function testRegistry(
  options: Partial<RegistryOptions> & { access?: AccessFile; clock?: Clock } = {},
): Promise<TestRegistry> {
  const clock = options.clock ?? systemClock;
  const folder = await mkdtemp(join(tmpdir(), 'estiba-registry-test-'));
  if (options.access) await writeFile(join(folder, 'access.json'), JSON.stringify(options.access));
  const content = options.content ?? new MemoryContentStore(clock);
  const registry = await openRegistry({
    folder,
    content,
    store: memoryStore(clock),
    clock,
    log: logger('registry', silentSink),
    openWithoutAccounts: true,
    ...options,
  });
  await new Promise<void>((ready) => registry.server.listen(0, '127.0.0.1', () => ready()));
  const { port } = registry.server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;
  return {
    registry,
    content,
    folder,
    host,
    url: `${options.tls ? 'https' : 'http'}://${host}`,
    [Symbol.asyncDispose]: async () => {
      await registry.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
