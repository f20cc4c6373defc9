import { describeChain, EstibaError } from '#base/errors.ts';
import { RunFailed, StepFailed } from '#build/errors.ts';
import type { BuildStep } from '#build/graph.ts';
import type { LineRange } from '#spec/dockerfile/errors.ts';
import type { BuildFailure } from '#spec/estiba/build.ts';

/** An error of a build in the words that every client shows: what, where in the Dockerfile, what the command said last. */
export function describeFailure(error: unknown): BuildFailure {
  if (!(error instanceof EstibaError)) return { code: 'INTERNAL', message: describeChain(error) };
  const { code, hint, data, cause } = error;
  const lines = data['lines'] as LineRange | undefined;
  const run = error instanceof StepFailed && cause instanceof RunFailed ? cause.data : undefined;
  return {
    code: error instanceof StepFailed && cause instanceof EstibaError ? cause.code : code,
    message: error instanceof StepFailed ? error.message : describeChain(error),
    ...(hint === undefined ? {} : { hint }),
    ...(typeof data['file'] === 'string' ? { file: data['file'] } : {}),
    ...(lines === undefined ? {} : { line: lines.start }),
    ...(typeof data['excerpt'] === 'string' ? { excerpt: data['excerpt'] } : {}),
    ...(run ? { tail: String(run['tail']), exitCode: Number(run['code']) } : {}),
  };
}

/** A step's error with its place in the Dockerfile. */
export function stepFailed(file: { name: string; text: string }, step: BuildStep, error: unknown): EstibaError {
  return new StepFailed(
    {
      file: file.name,
      ...(step.lines ? { lines: step.lines } : {}),
      title: step.title,
      excerpt: step.lines ? excerptOf(file.text, step.lines) : '',
      reason: describeChain(error),
      ...(error instanceof EstibaError && error.hint !== undefined ? { hint: error.hint } : {}),
    },
    { cause: error },
  );
}

const CONTEXT_LINES = 2;

/** Lines of the Dockerfile around a step, those of the step marked. */
export function excerptOf(text: string, lines: LineRange): string {
  const all = text.split('\n');
  const from = Math.max(1, lines.start - CONTEXT_LINES);
  const to = Math.min(all.length, lines.end + CONTEXT_LINES);
  const width = String(to).length;
  const shown: string[] = [];
  for (let n = from; n <= to; n++) {
    const mark = n >= lines.start && n <= lines.end ? '>>>' : '   ';
    shown.push(`${String(n).padStart(width)} | ${mark} ${all[n - 1] ?? ''}`.trimEnd());
  }
  return shown.join('\n');
}
