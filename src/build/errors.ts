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

export const ContextInvalid = defineError('CONTEXT_INVALID', (d: { path: string; rule: string }) => ({
  message: `the build context: ${d.path} ${d.rule}`,
  hint: 'list in .dockerignore what the build does not need',
}));

/** Bytes that the store of context files had are gone or changed. The client sends them again. */
export const ContextFileLost = defineError('CONTEXT_FILE_LOST', (d: { digest: string }) => ({
  message: `a file of the build context (${d.digest}) is no longer in the cache`,
  hint: 'start the build again: the file is sent anew',
}));

export const NoSuchContext = defineError('NO_SUCH_CONTEXT', (d: { name: string }) => ({
  message: d.name === '' ? 'this build has no context' : `there is no build context ${d.name}`,
  hint: 'a Dockerfile from standard input has no files to copy; give a directory, or --build-context NAME=DIR',
}));

export const DockerfileMissing = defineError('DOCKERFILE_MISSING', (d: { name: string }) => ({
  message: `Cannot locate specified Dockerfile: ${d.name}`,
  hint: 'it is looked for in the build context; .dockerignore may take it away, -f names another',
}));

export const CopySourceMissing = defineError(
  'COPY_SOURCE_MISSING',
  (d: { source: string; where: string; near?: string }) => ({
    message: `${d.source} is not in ${d.where}`,
    hint: d.near === undefined ? 'see .dockerignore, and the path: it starts at the top' : `is ${d.near} meant?`,
  }),
);

export const CopyPatternInvalid = defineError('COPY_PATTERN', (d: { pattern: string }) => ({
  message: `${d.pattern} is no pattern`,
  hint: 'a [ needs its ], a \\ something after it',
}));

export const CopyConflict = defineError('COPY_CONFLICT', (d: { path: string; rule: string }) => ({
  message: `cannot copy to /${d.path}: ${d.rule}`,
  hint: 'copy to another path, or remove what is there first',
}));

export const BadMode = defineError('COPY_MODE', (d: { mode: string }) => ({
  message: `--chmod=${d.mode} is no mode`,
  hint: 'write 0755 or u=rwX,go=rX',
}));

export const TooManyLinks = defineError('BUILD_LINKS', (d: { path: string; where: string }) => ({
  message: `${d.path} goes through too many symbolic links in ${d.where}`,
}));

/** The command of a RUN ended with another code than 0. */
export const RunFailed = defineError('BUILD_RUN_FAILED', (d: { command: string; code: number; tail: string }) => ({
  message: `The command '${d.command}' returned a non-zero code: ${d.code}`,
}));

/** Any failure of a step, with its place in the Dockerfile. */
export const StepFailed = defineError(
  'BUILD_STEP_FAILED',
  (d: { file: string; lines?: LineRange; title: string; excerpt: string; reason: string; hint?: string }) => ({
    message: d.reason,
    ...(d.hint === undefined ? {} : { hint: d.hint }),
  }),
);

export const NotAllowed = defineError('BUILD_NOT_ALLOWED', (d: { what: string; entitlement: string }) => ({
  message: `${d.what} is not allowed in this build`,
  hint: `who starts the build can allow it: --allow ${d.entitlement}`,
}));

/** What no wish can allow. */
export const NeverAllowed = defineError('BUILD_NEVER_ALLOWED', (d: { what: string }) => ({
  message: `${d.what}: a command of a build has no power that a plain container would not have`,
  hint: 'take it out of the Dockerfile; what needs more can be done by docker run --privileged and docker commit',
}));

export const SecretMissing = defineError('BUILD_SECRET', (d: { kind: 'secret' | 'ssh'; id: string }) => ({
  message: `${d.kind} ${d.id} is required and was not given`,
  hint: d.kind === 'secret' ? `estiba build --secret id=${d.id},src=FILE` : `estiba build --ssh ${d.id}`,
}));

export const FetchFailed = defineError('BUILD_FETCH', (d: { url: string; why: string }) => ({
  message: `${d.url}: ${d.why}`,
}));

export const BuildCancelled = defineError('BUILD_CANCELLED', (_: object) => ({ message: 'the build was cancelled' }));

export const BadBuildOption = defineError('BUILD_OPTION', (d: { option: string; value: string; rule: string }) => ({
  message: `${d.option} ${d.value}: ${d.rule}`,
}));

export const ArchiveUnreadable = defineError('BUILD_ARCHIVE', (d: { what: string; why: string }) => ({
  message: `${d.what} cannot be unpacked: ${d.why}`,
}));

export const NoFailedStep = defineError('BUILD_NOT_FAILED', (_: object) => ({
  message: 'no failed build step is kept',
  hint: 'the last ones that failed are kept for a day, until the daemon starts anew',
}));

export const ChecksFailed = defineError('BUILD_CHECKS', (d: { count: number }) => ({
  message: `${d.count} build check${d.count === 1 ? '' : 's'} failed`,
  hint: 'the Dockerfile says check=error=true',
}));

export const TooManyRounds = defineError('BUILD_ROUNDS', (d: { rounds: number }) => ({
  message: `base images name further images more than ${d.rounds} times`,
  hint: 'an ONBUILD line of a base image asks for more each time',
}));
