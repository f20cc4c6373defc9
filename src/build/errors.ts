import { defineError } from '#base/errors.ts';
import type { LineRange } from '#spec/dockerfile/errors.ts';

/** A Dockerfile that reads well but cannot be built as it stands. */
export const BuildPlanFailed = defineError(
  'BUILD_PLAN',
  (d: { file: string; lines: LineRange; problem: string; rule: string }) => ({
    message: `${d.file}:${d.lines.start}: ${d.problem}`,
    hint: d.rule,
  }),
);

export const UnknownTarget = defineError('BUILD_TARGET', (d: { target: string; known: string[] }) => ({
  message: `there is no stage ${d.target}`,
  hint: d.known.length === 0 ? 'no stage of this Dockerfile has a name' : `the stages are ${d.known.join(', ')}`,
}));
