import { BuildPlanFailed } from '#build/errors.ts';
import { imageKey, planBuild } from '#build/plan.ts';
import type { ImageSettings } from '#build/settings.ts';
import { type Instruction, parseDockerfile } from '#spec/dockerfile/instructions.ts';

/** Instructions that `--change` of commit and import takes: those that touch no file. */
const ALLOWED: ReadonlySet<Instruction['do']> = new Set([
  'cmd',
  'entrypoint',
  'env',
  'expose',
  'healthcheck',
  'label',
  'onbuild',
  'shell',
  'stopsignal',
  'user',
  'volume',
  'workdir',
]);
const BASE = 'base';
const PLATFORM = 'linux/amd64'; // of no consequence: nothing is run

/** Settings of an image with lines of a Dockerfile applied to them. Errors name the line, as in a Dockerfile. */
export function applyChanges(settings: ImageSettings, lines: readonly string[]): ImageSettings {
  if (lines.length === 0) return settings;
  const file = parseDockerfile([`FROM ${BASE}`, ...lines].join('\n'), '--change');
  for (const { do: kind, node } of file.stages.flatMap((stage) => stage.instructions)) {
    if (ALLOWED.has(kind)) continue;
    const problem = `${node.name.toUpperCase()} is not a valid change command`;
    throw new BuildPlanFailed({
      file: '--change',
      lines: node.lines,
      problem,
      rule: `changes are ${[...ALLOWED].join(', ')}`,
    });
  }
  // ONBUILD lines are handed on here, not run as they would be by a build on the image.
  const { OnBuild: triggers, ...base } = settings;
  const images = new Map([[imageKey({ reference: BASE, platform: PLATFORM }), { digest: BASE, settings: base }]]);
  const plan = planBuild(file, { ...OPTIONS, targetPlatform: PLATFORM, buildPlatform: PLATFORM }, images);
  if (!plan.done)
    throw new BuildPlanFailed({ file: '--change', lines: WHOLE, problem: 'FROM', rule: 'has no place here' });
  const changed = plan.graph.target.settings;
  const onBuild = [...(triggers ?? []), ...(changed.OnBuild ?? [])];
  return { ...withoutNewPath(settings, changed, lines), ...(onBuild.length > 0 ? { OnBuild: onBuild } : {}) };
}

const OPTIONS = { args: new Map<string, string>(), contexts: new Set<string>(), labels: {}, noCache: false };
const WHOLE = { start: 1, end: 1 };

/** A stage has a PATH for its RUN lines; nothing runs here, and an image that had none keeps none. */
function withoutNewPath(before: ImageSettings, after: ImageSettings, lines: readonly string[]): ImageSettings {
  const had = before.Env?.some((entry) => entry.startsWith('PATH='));
  if (had || lines.some((line) => /\bPATH\b/.test(line))) return after;
  const env = (after.Env ?? []).filter((entry) => !entry.startsWith('PATH='));
  const { Env: _, ...rest } = after;
  return env.length > 0 ? { ...rest, Env: env } : rest;
}
