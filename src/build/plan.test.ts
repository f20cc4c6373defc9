import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inputsOf, printGraph, stepKey } from '#build/graph.ts';
import { type BuildOptions, type BuildPlan, imageKey, planBuild, type ResolvedImage } from '#build/plan.ts';
import type { ImageSettings } from '#build/settings.ts';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';

const cases = join(import.meta.dirname, 'case');

const SETTINGS: Record<string, ImageSettings> = {
  'with-triggers': { OnBuild: ['COPY . /app', 'RUN build'], WorkingDir: '/app' },
  'with-cmd': { Cmd: ['base-cmd'], Env: ['PATH=/bin', 'LANG=C'] },
};

function options(changes: Partial<BuildOptions> = {}): BuildOptions {
  return {
    args: new Map([['NAME', 'ada']]),
    targetPlatform: 'linux/amd64',
    buildPlatform: 'linux/amd64',
    contexts: new Set(),
    labels: {},
    noCache: false,
    ...changes,
  };
}

/** Answers every wish for an image, as a registry would, until the plan is done. */
function plan(source: string, changes: Partial<BuildOptions> = {}): Extract<BuildPlan, { done: true }> {
  const images = new Map<string, ResolvedImage>();
  for (;;) {
    const result = planBuild(parseDockerfile(source), options(changes), images);
    if (result.done) return result;
    for (const wanted of result.wanted) {
      images.set(imageKey(wanted), {
        digest: `sha256:${wanted.reference}`,
        settings: SETTINGS[wanted.reference] ?? {},
      });
    }
  }
}

describe('planBuild', () => {
  for (const name of readdirSync(cases)) {
    it(`${name} gives its reviewed graph`, async () => {
      const { graph, warnings } = plan(readFileSync(join(cases, name, 'Dockerfile'), 'utf8'));
      const text =
        printGraph(graph) + warnings.map((w) => `warning ${w.check} line ${w.lines.start}: ${w.message}\n`).join('');
      await expect(text).toMatchFileSnapshot(join(cases, name, 'graph.txt'));
    });
  }

  it('puts every step after all it reads', () => {
    const { graph } = plan(readFileSync(join(cases, 'multi-stage/Dockerfile'), 'utf8'));
    for (const [id, step] of graph.steps.entries()) expect(inputsOf(step).every((input) => input < id)).toBe(true);
  });

  it('plans a named target and nothing after it', () => {
    const source = 'FROM a AS One\nRUN x\nFROM b AS two\nRUN y';
    expect(plan(source, { target: 'one' }).graph.steps.map((s) => s.do)).toEqual(['image', 'run']);
    expect(() => plan(source, { target: 'three' })).toThrow(
      expect.objectContaining({ hint: 'the stages are one, two' }),
    );
  });

  it('adds --label to the result alone', () => {
    const { graph } = plan('FROM a\nLABEL x=1', { labels: { x: '2', y: '3' } });
    expect(graph.target.settings.Labels).toEqual({ x: '2', y: '3' });
  });

  it('lets a named context stand in for an image and for a stage', () => {
    const { graph } = plan('FROM debian\nCOPY --from=files /a /b', { contexts: new Set(['debian', 'files']) });
    expect(graph.steps.map((s) => [s.do, 'name' in s ? s.name : ''])).toEqual([
      ['context', 'debian'],
      ['context', 'files'],
      ['copy', ''],
    ]);
  });

  it.each([
    ['FROM a AS x\nCOPY --from=x /a /b', 'Dockerfile:2: stage x is this stage itself'],
    ['FROM a\nCOPY --from=y /a /b\nFROM b AS y', 'Dockerfile:2: stage y is built later'],
    ['FROM a\nCOPY --from=7 /a /b', 'Dockerfile:2: there is no stage 7'],
    ['ARG X\nFROM $X', 'Dockerfile:2: $X is empty once expanded'],
    ['FROM a\nCOPY a b /c', 'Dockerfile:2: several sources, and /c does not end with /'],
    ['FROM a\nEXPOSE 8080:80', 'Dockerfile:2: 8080:80 is no port'],
    ['FROM a\nWORKDIR $N', 'Dockerfile:2: $N is empty once expanded'],
    ['FROM a\nUSER ${N:?name it}', 'Dockerfile:2: ${N:?name it}: N: name it'],
    ['FROM a\nADD --checksum=sha256:1 http://127.0.0.1/x /x', 'Dockerfile:2: sha256:1 is no digest'],
    ['FROM a\nSTOPSIGNAL !', 'Dockerfile:2: ! is no signal'],
    ['FROM a\nRUN --mount=type=bind x', 'Dockerfile:2: --mount: the bind mount has no target'],
  ])('%j is refused by line', (source, message) => {
    const target = source.includes('built later') ? undefined : { target: '0' };
    expect(() => plan(source, target)).toThrow(message);
  });
});

describe('stepKey', () => {
  const keys = (source: string, changes: Partial<BuildOptions> = {}): string[] => {
    const { graph } = plan(source, changes);
    const found: string[] = [];
    for (const step of graph.steps) found.push(stepKey(step, (id) => found[id] ?? ''));
    return found;
  };

  it('does not move when comments, names or unused stages change', () => {
    const a = keys('FROM a AS x\nRUN b');
    expect(keys('# hello\nFROM a AS y\n\nRUN \\\n b')).toEqual(a);
  });

  it('moves with the command, the environment, and all that stands above', () => {
    const last = (source: string): string | undefined => keys(source).at(-1);
    const all = [
      'FROM a\nRUN b',
      'FROM a\nRUN c',
      'FROM a\nENV X=1\nRUN b',
      'FROM a\nUSER u\nRUN b',
      'FROM z\nRUN b',
      'FROM a\nRUN 0\nRUN b',
    ].map(last);
    expect(new Set(all).size).toBe(all.length);
  });

  it('moves with the content that a COPY takes', () => {
    const { graph } = plan('FROM scratch\nCOPY a /');
    const copy = graph.steps[1];
    if (!copy) throw new Error('no copy step');
    expect(stepKey(copy, () => '', 'x')).not.toBe(stepKey(copy, () => '', 'y'));
  });
});
