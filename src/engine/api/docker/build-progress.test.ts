import { describe, expect, it } from 'vitest';
import type { BuildEvent } from '#build/events.ts';
import type { BuildGraph } from '#build/graph.ts';
import { type ClassicLine, ClassicProgress } from '#engine/api/docker/build-progress.ts';

const graph = {
  steps: [{ do: 'image' }, { do: 'run' }, { do: 'run' }],
  stages: [
    {
      instructions: [
        { text: 'FROM a AS one', step: 0 },
        { text: 'RUN first', step: 1 },
      ],
    },
    { instructions: [{ text: 'FROM a', step: 0 }, { text: 'ENV X=1' }, { text: 'RUN second \\\n more', step: 2 }] },
  ],
} as unknown as BuildGraph;

function told(...events: BuildEvent[]): string {
  const lines: ClassicLine[] = [];
  const progress = new ClassicProgress((line) => lines.push(line));
  progress.begin(graph);
  for (const event of events) progress.take(event);
  progress.flush();
  return lines.map((line) => ('stream' in line ? line.stream : '')).join('');
}

const output = (step: number, text: string): BuildEvent => ({
  at: 'output',
  step,
  stream: 'stdout',
  text: Buffer.from(text),
});
const done = (step: number): BuildEvent => ({ at: 'done', step, tookMs: 1, layer: `sha256:${'ab'.repeat(32)}` });

describe('ClassicProgress', () => {
  it('tells stages that run at once as one step after the other', () => {
    expect(told(output(2, 'early\n'), output(1, 'one\n'), done(2), output(1, 'more\n'), done(1))).toBe(
      [
        'Step 1/5 : FROM a AS one',
        'Step 2/5 : RUN first',
        'one',
        'more',
        ' ---> abababababab',
        'Step 3/5 : FROM a',
        'Step 4/5 : ENV X=1',
        'Step 5/5 : RUN second \\',
        'early',
        ' ---> abababababab',
        '',
      ].join('\n'),
    );
  });

  it('says what came from the cache', () => {
    expect(told({ at: 'cached', step: 1 }, { at: 'cached', step: 2 })).toContain(
      'Step 5/5 : RUN second \\\n ---> Using cache\n',
    );
  });

  it('stops at the step that failed, and holds nothing of the others back', () => {
    const text = told(output(2, 'of the other\n'), output(1, 'last words\n'), { at: 'failed', step: 1 });
    expect(text).toBe('Step 1/5 : FROM a AS one\nStep 2/5 : RUN first\nlast words\nof the other\n');
  });
});
