import { mkdir, readFile } from 'node:fs/promises';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { listenTcp } from '#app/listen.ts';
import type { Node } from '#app/node.ts';
import { systemClock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import { logger } from '#base/log.ts';
import type { Undo } from '#base/undo.ts';
import type { ContentStore } from '#image/content.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import type { ImageStore } from '#image/images.ts';
import { nodeImageNames, registryAuthorities } from '#registry/node-names.ts';
import { openRegistry } from '#registry/server/open.ts';
import type { TlsKeys } from '#registry/server/server.ts';
import type { Platform } from '#spec/image/platform.ts';
import { openEmbedded } from '#storage/embedded.ts';
import type { Store } from '#storage/store.ts';

/** Links and uploads younger than a day may belong to a push that is under way. */
const TIDY_EVERY_MS = 3_600_000;
const TIDY_GRACE_MS = 86_400_000;

/** What the registry stands on: the engine's floors, or a content store and a store of its own. */
export interface RegistryFloors {
  content: ContentStore;
  store: Store;
  /** The engine's images, which follow the registry's tags and are offered under them. */
  images?: { store: ImageStore; platform: Platform };
  /** Told what the registry is called, once it listens. */
  authorities: string[];
  /** Frees the bytes of what the registry has let go. */
  collect(): Promise<unknown>;
}

export function engineFloors({ content, store, platform, ownAuthorities, engine }: Node): RegistryFloors {
  const { images } = engine;
  return {
    content,
    store,
    images: { store: images.store, platform },
    authorities: ownAuthorities,
    collect: () => images.collect(),
  };
}

/** Without an engine. Its images may lie in the same store and only it knows them, so no bytes are removed here. */
export async function ownFloors(dataRoot: string, undo: Undo): Promise<RegistryFloors> {
  await mkdir(dataRoot, { recursive: true, mode: 0o711 });
  const store = await openEmbedded(join(dataRoot, 'store'), { clock: systemClock, log: logger('storage') });
  undo.add('store', () => store.close());
  const content = await DiskContentStore.open(join(dataRoot, 'blobs'), systemClock);
  return { content, store, authorities: [], collect: async () => undefined };
}

/**
 * The daemon's registry, over the engine's own images: what is pushed runs at once, what was built here is pulled at once.
 *
 *     D/registry/access.json          accounts and rights (`estiba registry user add`); without it loopback is open to all
 *     D/registry/tls.crt, tls.key     TLS, where they are
 *
 * Answers the registry's URL.
 */
export async function serveRegistry(
  floors: RegistryFloors,
  wish: { dataRoot: string; listen: { host: string; port: number } },
  undo: Undo,
): Promise<string> {
  const log = logger('registry');
  const folder = join(wish.dataRoot, 'registry');
  const { host } = wish.listen;
  const { content, store, images, authorities } = floors;
  const tls = await tlsKeys(folder);
  const registry = await openRegistry({
    folder,
    content,
    store,
    clock: systemClock,
    log,
    openWithoutAccounts: host === 'localhost' || host === '::1' || host.startsWith('127.'),
    ...(images
      ? {
          names: nodeImageNames({
            images: images.store,
            content,
            platform: images.platform,
            authorities: () => authorities,
            log,
          }),
        }
      : {}),
    ...(tls ? { tls } : {}),
  });
  undo.add('registry', () => registry.close());
  const address = await listenTcp(registry.server, wish.listen, 'name another address with --registry');
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  const others = Object.values(networkInterfaces()).flatMap((list) => list?.map((one) => one.address) ?? []);
  authorities.push(...registryAuthorities(host, port, [hostname(), ...others]));

  const tidy = async (): Promise<void> => {
    await registry.tidy({ graceMs: TIDY_GRACE_MS });
    await floors.collect();
  };
  const timer = setInterval(
    () => void tidy().catch((error) => log.error('tidying failed', { error: describeChain(error) })),
    TIDY_EVERY_MS,
  );
  undo.add('registry tidying', () => clearInterval(timer));
  return `${tls ? 'https' : 'http'}://${address}`;
}

async function tlsKeys(folder: string): Promise<TlsKeys | undefined> {
  try {
    return { cert: await readFile(join(folder, 'tls.crt')), key: await readFile(join(folder, 'tls.key')) };
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return undefined;
  }
}
