import type { LoadOptions } from '#spec/compose/load.ts';

/** What a file of the corpus takes from other files and from the environment. */
export function optionsFor(path: string, text: string): LoadOptions {
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
