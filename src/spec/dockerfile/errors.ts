import { defineError } from '#base/errors.ts';

/** Lines count from 1, both ends included. */
export interface LineRange {
  start: number;
  end: number;
}

/** Every complaint about a Dockerfile: which file and line, what is wrong, and the rule that says so. */
export const DockerfileError = defineError(
  'DOCKERFILE_INVALID',
  (d: { file: string; lines: LineRange; problem: string; rule: string }) => ({
    message: `${d.file}:${d.lines.start}: ${d.problem}`,
    hint: d.rule,
  }),
);

/** A construct that is right but might not mean what its author thinks. Names follow the documented build checks. */
export interface BuildWarning {
  check: string;
  lines: LineRange;
  message: string;
}
