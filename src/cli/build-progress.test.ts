import { describe, expect, it } from 'vitest';
import { failureText, LiveProgress, PlainProgress, type Screen } from '#cli/build-progress.ts';
import type { BuildLine } from '#spec/estiba/build.ts';

function screen(): Screen & { text: string } {
  return {
    text: '',
    columns: 40,
    now: () => 1500,
    write(text) {
      this.text += text;
    },
  };
}

const LINES: BuildLine[] = [
  { at: 'steps', titles: ['FROM a', 'one 2/3 RUN x', 'one 3/3 RUN y'] },
  { at: 'cached', step: 1 },
  { at: 'start', step: 2 },
  { at: 'output', step: 2, stream: 'stdout', text: 'half a ' },
  { at: 'output', step: 2, stream: 'stdout', text: 'line\r\nand \u001b[31mthe rest' },
  { at: 'done', step: 2, tookMs: 2340 },
];

describe('PlainProgress', () => {
  it('is a line an event, output cut at its own lines', () => {
    const plain = screen();
    const view = new PlainProgress(plain);
    for (const line of LINES) view.take(line);
    view.close();
    expect(plain.text).toBe(
      '#1 one 2/3 RUN x\n#1 CACHED\n\n#2 one 3/3 RUN y\n#2 0.0s half a line\n#2 and \u001b[31mthe rest\n#2 DONE 2.3s\n\n',
    );
  });
});

describe('LiveProgress', () => {
  it('keeps what is done, and lets no output steer the terminal', () => {
    const live = screen();
    const view = new LiveProgress(live);
    for (const line of LINES) view.take(line);
    view.close();
    expect(live.text).toMatch(/^one 2\/3 RUN x +CACHED\n/);
    expect(live.text).toMatch(/one 3\/3 RUN y +2\.3s\n$/);
    expect(live.text).not.toContain('\u001b[31m');
  });
});

describe('failureText', () => {
  it('says where, why, what was said last, and what to do', () => {
    const failure = {
      code: 'X',
      message: 'it ended with 3',
      file: 'Dockerfile',
      line: 2,
      excerpt: '2 | >>> RUN x',
      tail: 'oops\n',
      exitCode: 3,
    };
    expect(failureText(failure)).toBe(
      'Dockerfile:2: it ended with 3\n------\noops\n------\n2 | >>> RUN x\nestiba debug-build looks into the file system as the command left it\n',
    );
  });
});
