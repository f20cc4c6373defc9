import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { EstibaError, messageOf } from '#base/errors.ts';
import { checkDockerfile } from '#build/checks.ts';
import { printGraph } from '#build/graph.ts';
import { imageKey, planBuild, type ResolvedImage } from '#build/plan.ts';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';

// Dockerfile examples printed in documentation: each gives its reviewed graph with what the build checks say, or, where it is bad on
// purpose or holds a placeholder, its reviewed error. The graphs stand in build/corpus, what a reader found in each in reviewed.md there.
const corpus = join(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/dockerfiles/docs');
const graphs = join(import.meta.dirname, 'build/corpus');

describe('the Dockerfile corpus', () => {
  if (!existsSync(corpus)) throw new Error(`ESTIBA_SHARED must name the shared folder; there is no ${corpus}`);
  it('has been read: reviewed.md has a line for each file, and for no other', () => {
    const rows = readFileSync(join(graphs, 'reviewed.md'), 'utf8').matchAll(/^\| `([^`]+)` \| .+ \|$/gm);
    const read = [...rows].map((row) => `${row[1]}.Dockerfile`).sort();
    expect(read).toEqual(readdirSync(corpus).sort());
  });

  for (const name of readdirSync(corpus)) {
    it(`${name} gives its reviewed graph or error`, async () => {
      await expect(outcome(readFileSync(join(corpus, name), 'utf8'))).toMatchFileSnapshot(
        join(graphs, name.replace(/\.Dockerfile$/, '.txt')),
      );
    });
  }
});

function outcome(source: string): string {
  try {
    const file = parseDockerfile(source);
    const images = new Map<string, ResolvedImage>();
    for (;;) {
      const plan = planBuild(
        file,
        {
          args: new Map(),
          targetPlatform: 'linux/amd64',
          buildPlatform: 'linux/amd64',
          contexts: new Set(),
          labels: {},
          noCache: false,
        },
        images,
      );
      if (plan.done) {
        const warnings = [...checkDockerfile(file), ...plan.warnings].map(
          (w) => `warning ${w.check}, line ${w.lines.start}: ${w.message}\n`,
        );
        return printGraph(plan.graph) + warnings.join('');
      }
      for (const wanted of plan.wanted)
        images.set(imageKey(wanted), { digest: `digest of ${wanted.reference}`, settings: {} });
    }
  } catch (error) {
    return `error ${messageOf(error)}\n${error instanceof EstibaError && error.hint ? `rule ${error.hint}\n` : ''}`;
  }
}
