import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

// The map of the house: a layer, and what it may import besides `base` and itself. The order is the reading order.
const BELOW_ENGINE = ['spec', 'kernel', 'storage', 'runtime', 'shim', 'network', 'volume', 'image', 'registry'];
const LAYERS: Record<string, readonly string[]> = {
  base: [],
  spec: [],
  kernel: [],
  storage: ['kernel'],
  runtime: ['spec', 'kernel'],
  shim: ['spec', 'kernel', 'runtime'],
  network: ['spec', 'kernel', 'storage'],
  volume: ['spec', 'kernel', 'storage'],
  image: ['spec', 'kernel', 'storage'],
  registry: ['spec', 'storage', 'image'],
  'engine/core': BELOW_ENGINE,
  build: ['spec', 'storage', 'image', 'registry', 'engine/core'],
  'engine/api': ['spec', 'build', 'engine/core'],
  'engine/client': ['spec'],
  cri: ['spec', 'engine/core'],
  'cluster/store': ['storage'],
  'cluster/api': ['spec', 'cluster/store'],
  'cluster/client': ['spec'],
  'cluster/scheduler': ['spec', 'cluster/client'],
  'cluster/controllers': ['spec', 'cluster/client'],
  'cluster/node': ['spec', 'cluster/client', 'engine/core'],
  'cluster/proxy': ['spec', 'cluster/client', 'kernel'],
  'cluster/dns': ['spec', 'cluster/client'],
  'cluster/ingress': ['spec', 'cluster/client'],
  // The simulation runs the real control plane in one process; nothing imports it.
  'cluster/simulation': [
    'spec',
    'cluster/store',
    'cluster/api',
    'cluster/client',
    'cluster/scheduler',
    'cluster/controllers',
    'storage',
  ],
  up: ['spec', 'cluster/client', 'engine/client'],
  cli: ['spec', 'engine/client', 'cluster/client', 'up'],
  web: ['spec', 'engine/core', 'engine/client', 'cluster/client'],
  // Runs in browsers: of the server's files only what both sides say to each other.
  'web/page': ['web'],
  app: ['*'],
};

const SRC = dirname(fileURLToPath(import.meta.url));

describe('layers', () => {
  it('every folder of src is a layer of the map', () => {
    const unknown = sources().filter((file) => !layerOf(file) && file !== 'layers.test.ts');
    expect(unknown).toEqual([]);
  });

  it('a layer imports only what stands below it', () => {
    expect(sources().flatMap(forbiddenImports)).toEqual([]);
  });
});

function forbiddenImports(file: string): string[] {
  const from = layerOf(file);
  if (!from) return [];
  const allowed = LAYERS[from] ?? [];
  if (allowed.includes('*')) return [];
  return importsOf(file).flatMap((target) => {
    const to = layerOf(target);
    const fine = !to || to === 'base' || to === from || allowed.includes(to);
    return fine ? [] : [`${file} (${from}) imports ${target} (${to})`];
  });
}

/** Paths under src that a file imports, types included: `#layer/file.ts` and relative ones. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8');
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((m) => m[1] ?? '');
  return specifiers.flatMap((s) => {
    if (s.startsWith('#')) return [s.slice(1)];
    if (s.startsWith('.')) return [relative(SRC, resolve(SRC, dirname(file), s))];
    return [];
  });
}

function layerOf(path: string): string | undefined {
  const [first = '', second = ''] = path.split('/');
  if (`${first}/${second}` in LAYERS) return `${first}/${second}`;
  return first in LAYERS ? first : undefined;
}

function sources(): string[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((f) => /\.tsx?$/.test(f));
}
