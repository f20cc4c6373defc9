import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import type { ContentStore } from '#image/content.ts';
import { Registries, type RegistriesOptions } from '#registry/registries.ts';

/** Registries as a machine sees them where nobody has configured any, has logged in or goes through a proxy. For tests and benchmarks. */
export function plainRegistries(content: ContentStore, more: Partial<RegistriesOptions> = {}): Registries {
  return new Registries({
    content,
    table: {},
    clock: systemClock,
    random: systemRandom,
    log: logger('registry', silentSink),
    credentials: async () => undefined,
    env: {},
    certsFolders: [],
    ...more,
  });
}
