import { describeChain, EstibaError } from '#base/errors.ts';
import { RunFailed, StepFailed } from '#build/errors.ts';
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
