import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { ContentStore } from '#image/content.ts';
import { AccessFileInvalid, LiveAccess } from '#registry/server/access-file.ts';
import { collectLinks } from '#registry/server/gc.ts';
import { Repositories } from '#registry/server/repositories.ts';
import { createRegistryServer, type TlsKeys } from '#registry/server/server.ts';
import {
  DEFAULT_LIMITS,
  type ImageNames,
  type Limits,
  noImageNames,
  type Services,
} from '#registry/server/services.ts';
import { Tokens } from '#registry/server/tokens.ts';
import { Uploads } from '#registry/server/uploads.ts';
import { writeFileAtomic } from '#storage/files.ts';
import type { Store } from '#storage/store.ts';

export interface RegistryOptions {
  /** The registry's own folder: `access.json` (read, anew when it changes) and `token.key` (made when absent). */
  folder: string;
  content: ContentStore;
  store: Store;
  clock: Clock;
  log: Logger;
  names?: ImageNames;
  limits?: Partial<Limits>;
  tls?: TlsKeys;
  /** See `Services.sparse`. */
  sparse?: boolean;
  /** Whether everybody may do everything while there is no `access.json`: for loopback, or when somebody asked for it. */
  openWithoutAccounts: boolean;
}

export interface Registry {
  server: Server;
  services: Services;
  /** Once: abandoned uploads and unused links. `graceMs` protects what is being pushed. */
  tidy(rule: { graceMs: number }): Promise<void>;
  close(): Promise<void>;
}

/** A registry over a node's content store; the caller says where it listens. */
export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  const { folder, content, store, clock, log } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const access = await LiveAccess.open(join(folder, 'access.json'), options);
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const uploads = new Uploads(content, clock, limits.blobMaxBytes);
  const repositories = new Repositories(store, clock);
  const names = options.names ?? noImageNames;
  const tokens = new Tokens({
    key: await tokenKey(join(folder, 'token.key')),
    access,
    clock,
    service: 'estiba-registry',
  });
  const sparse = options.sparse ?? false;
  const services: Services = { repositories, content, uploads, access, tokens, names, clock, log, limits, sparse };
  const server = createRegistryServer(services, options.tls);
  return {
    server,
    services,
    tidy: async (rule) => {
      await uploads.sweep(rule.graceMs);
      await collectLinks(services, rule);
    },
    close: async () => {
      await new Promise<void>((done) => {
        server.close(() => done());
        server.closeAllConnections();
      });
      await uploads.close();
    },
  };
}

/** Tokens outlive a restart: the key is kept. */
async function tokenKey(path: string): Promise<Uint8Array> {
  const known = await readFile(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return undefined;
  });
  if (known && known.byteLength !== KEY_BYTES)
    throw new AccessFileInvalid({ path, why: `is not a key of ${KEY_BYTES} bytes; remove it` });
  if (known) return known;
  const key = randomBytes(KEY_BYTES);
  await writeFileAtomic(path, key);
  return key;
}

const KEY_BYTES = 32;
