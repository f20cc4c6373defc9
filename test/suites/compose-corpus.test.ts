import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type LoadOptions, loadCompose } from '#spec/compose/load.ts';

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

function optionsFor(path: string, text: string): LoadOptions {
  const read = (wanted: string): Promise<string | undefined> => {
    if (wanted === path) return Promise.resolve(text);
    if (wanted.endsWith('/.env')) return Promise.resolve(undefined);
    return Promise.resolve(/\.ya?ml$/.test(wanted) ? standIn(text) : '');
  };
  // Variables without a default have a value: files may insist on one, and build paths from it.
  const names = [...text.matchAll(/\$\{?([A-Za-z_]\w*)(?!\w|:?-)/g)].map((m) => m[1] ?? '');
  const environment = Object.fromEntries(names.map((name) => [name, /DIR|PATH|USER|ROOT/.test(name) ? '/1' : '1']));
  return { files: [path], read, environment, profiles: ['*'], projectName: 'corpus' };
}

/** A file that is included or extended but not part of the corpus: the services that are asked of it. */
function standIn(text: string): string {
  const own = new Set([...text.matchAll(/^ {2}([\w.-]+):\s*$/gm)].map((m) => m[1]));
  const extended = [...text.matchAll(/^\s+service:\s*([\w.-]+)/gm)].map((m) => m[1]);
  const needed = [...text.matchAll(/depends_on:\s*\n\s+([\w.-]+):/g)].map((m) => m[1]);
  const names = new Set([...extended, ...needed.filter((n) => !own.has(n))]);
  return `services:\n${[...names].map((n) => `  ${n}: {image: stand-in}\n`).join('')}`;
}
