import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadCompose } from '#spec/compose/load.ts';
import { optionsFor } from './compose-options.ts';

// Compose files of real applications; each is valid. What they take from other files or from the environment is given here.
const CORPUS = resolve(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/compose');

/** Files that only make sense laid upon another one, and what is refused when they stand alone. */
const OVERLAYS: Record<string, string> = {
  'zipkin-docker-examples-docker-compose-prometheus.yaml': 'there is no service zipkin',
};

describe('Compose files of real applications', () => {
  const files = existsSync(CORPUS) ? readdirSync(CORPUS).filter((f) => f.endsWith('.yaml')) : [];

  it('are there', () => {
    expect(files.length, `ESTIBA_SHARED must name the shared folder; ${CORPUS} has none`).toBeGreaterThanOrEqual(34);
  });

  it.each(files)('%s', async (file) => {
    const path = join(CORPUS, file);
    const text = readFileSync(path, 'utf8');
    const overlay = OVERLAYS[file];
    if (overlay) {
      await expect(loadCompose(optionsFor(path, text))).rejects.toThrow(overlay);
      return;
    }
    const project = await loadCompose(optionsFor(path, text));
    expect(Object.keys(project.services).length).toBeGreaterThan(0);
    for (const service of Object.values(project.services)) expect(service.image ?? service.build).toBeDefined();
  });
});
