import { isCode } from '#base/errors.ts';
import { platformArgs } from '#build/scope.ts';
import type { BuildWarning, LineRange } from '#spec/dockerfile/errors.ts';
import { expandWord } from '#spec/dockerfile/expand.ts';
import type { Ignore } from '#spec/dockerfile/ignore.ts';
import type { At, Dockerfile, Instruction, Stage } from '#spec/dockerfile/instructions.ts';
import { nearest, type SyntaxNode } from '#spec/dockerfile/syntax.ts';
import { parseReference } from '#spec/image/reference.ts';

/**
 * The documented build checks that the text alone decides; `UndefinedVar`, `UndefinedArgInFrom` and `WorkdirRelativePath` are told by
 * the plan, which knows the variables. `# check=skip=…;error=true` is heeded by `heedDirective`.
 */
export function checkDockerfile(file: Dockerfile, ignore?: Ignore): BuildWarning[] {
  const warnings: BuildWarning[] = [];
  const warn = (check: string, lines: LineRange, message: string): void => {
    warnings.push({ check, lines, message });
  };
  const nodes = nodesOf(file);
  casing(nodes, warn);
  for (const node of nodes) checkNode(node, warn);
  for (const stage of file.stages) {
    checkFrom(file, stage, warn);
    checkStage(stage, ignore, warn);
  }
  return warnings.sort((a, b) => a.lines.start - b.lines.start);
}

/** What is left of warnings after the file's own `check` directive, and whether they fail the build. */
export function heedDirective(
  directive: string | undefined,
  warnings: readonly BuildWarning[],
): { warnings: BuildWarning[]; fail: boolean } {
  const fields = new Map((directive ?? '').split(';').map((field) => field.trim().split('=', 2) as [string, string]));
  const skipped = (fields.get('skip') ?? '').split(',').map((name) => name.trim());
  const kept = skipped.includes('all') ? [] : warnings.filter((warning) => !skipped.includes(warning.check));
  return { warnings: kept, fail: fields.get('error') === 'true' && kept.length > 0 };
}

type Warn = (check: string, lines: LineRange, message: string) => void;

function nodesOf(file: Dockerfile): SyntaxNode[] {
  return [
    ...file.metaArgs.map((arg) => arg.node),
    ...file.stages.flatMap((stage) => [stage.node, ...stage.instructions.map((instruction) => instruction.node)]),
  ];
}

/** The case that most keywords have is the file's; the others differ. */
function casing(nodes: readonly SyntaxNode[], warn: Warn): void {
  const lower = nodes.filter((node) => node.name === node.name.toLowerCase()).length;
  const upper = nodes.filter((node) => node.name === node.name.toUpperCase()).length;
  const isFine = (name: string): boolean => name === (lower > upper ? name.toLowerCase() : name.toUpperCase());
  for (const node of nodes) {
    if (isFine(node.name)) continue;
    const wanted = lower > upper ? 'lowercase' : 'uppercase';
    warn(
      'ConsistentInstructionCasing',
      node.lines,
      `Command '${node.name}' should match the case of the command majority (${wanted})`,
    );
  }
}

function checkNode(node: SyntaxNode, warn: Warn): void {
  if (node.emptyContinuation)
    warn('NoEmptyContinuation', node.lines, `Empty continuation line found in: ${node.text.trim()}`);
  if (node.keyword === 'maintainer')
    warn('MaintainerDeprecated', node.lines, 'MAINTAINER instruction is deprecated in favor of using label');
  if (node.args.form === 'pairs' && node.args.pairs.some((pair) => pair.separator === ''))
    warn(
      'LegacyKeyValueFormat',
      node.lines,
      `"${node.keyword.toUpperCase()} key=value" should be used instead of legacy "${node.keyword.toUpperCase()} key value" format`,
    );
}

const RESERVED = new Set(['scratch', 'context']);

function checkFrom(file: Dockerfile, stage: Stage, warn: Warn): void {
  const { node, name, base, platform } = stage;
  const { lines } = node;
  const words = node.args.form === 'words' ? node.args.words : [];
  const [, as, written] = words;
  if (as !== undefined && (node.name === node.name.toLowerCase()) !== (as === as.toLowerCase()))
    warn('FromAsCasing', lines, `'${as}' and '${node.name}' keywords' casing do not match`);
  if (written !== undefined && written !== written.toLowerCase())
    warn('StageNameCasing', lines, `Stage name '${written}' should be lowercase`);
  if (name !== undefined && RESERVED.has(name))
    warn('ReservedStageName', lines, `Stage name should not use the same name as reserved stage "${name}"`);
  if (name !== undefined && file.stages.some((other) => other.index < stage.index && other.name === name))
    warn('DuplicateStageName', lines, `Duplicate stage name '${name}', stage names should be unique`);
  if (platform !== undefined && /^\$\{?TARGETPLATFORM\}?$/.test(platform))
    warn(
      'RedundantTargetPlatform',
      lines,
      `Setting platform to predefined ${platform} in FROM is redundant as this is the default behavior`,
    );
  // A stage that is named after its platform means it.
  const [, architecture = ''] = platform?.split('/') ?? [];
  if (platform !== undefined && !platform.includes('$') && !(architecture !== '' && name?.includes(architecture)))
    warn('FromPlatformFlagConstDisallowed', lines, `FROM --platform flag should not use constant value "${platform}"`);
  if (base.includes('$') && !isImage(defaultBase(file, base)))
    warn('InvalidDefaultArgInFrom', lines, `Default value for ARG ${base} results in empty or invalid base image name`);
}

/** The base as it is when nobody gives a build argument. */
function defaultBase(file: Dockerfile, base: string): string {
  const values = platformArgs('linux/amd64', 'linux/amd64', '');
  for (const { args } of file.metaArgs)
    for (const { name, value } of args) if (value !== undefined) values.set(name, expandWord(value, values));
  return expandWord(base, values);
}

function isImage(text: string): boolean {
  try {
    return parseReference(text).repository !== '';
  } catch (error) {
    if (isCode(error, 'REFERENCE_INVALID')) return false;
    throw error;
  }
}

const ONLY_ONCE = ['cmd', 'entrypoint', 'healthcheck'];

function checkStage(stage: Stage, ignore: Ignore | undefined, warn: Warn): void {
  for (const kind of ONLY_ONCE) {
    const all = stage.instructions.filter((instruction) => instruction.do === kind);
    for (const one of all.slice(0, -1))
      warn(
        'MultipleInstructionsDisallowed',
        one.node.lines,
        `Multiple ${kind.toUpperCase()} instructions should not be used in the same stage because only the last one will be used`,
      );
  }
  let shellIsChosen = false;
  for (const instruction of stage.instructions) {
    if (instruction.do === 'shell') shellIsChosen = true;
    if (instruction.do === 'cmd' || instruction.do === 'entrypoint') {
      if (instruction.command.form === 'shell' && instruction.command.line !== '' && !shellIsChosen)
        warn(
          'JSONArgsRecommended',
          instruction.node.lines,
          `JSON arguments recommended for ${instruction.do.toUpperCase()} to prevent unintended behavior related to OS signals`,
        );
    } else checkInstruction(instruction, ignore, warn);
  }
}

function checkInstruction(instruction: At<Instruction>, ignore: Ignore | undefined, warn: Warn): void {
  const { lines } = instruction.node;
  switch (instruction.do) {
    case 'arg':
      for (const { name } of instruction.args) secretName('ARG', name, lines, warn);
      return;
    case 'env':
      for (const { key } of instruction.pairs) secretName('ENV', key, lines, warn);
      return;
    case 'expose':
      for (const port of instruction.ports) checkPort(port, lines, warn);
      return;
    case 'copy':
    case 'add':
      if (!ignore || (instruction.do === 'copy' && instruction.from !== undefined)) return;
      for (const source of instruction.sources) {
        const path = source.replace(/^(\.?\/)+/, '');
        if (path !== '' && !/[$*?[]|^https?:|^git@/.test(path) && ignore.isIgnored(path) && !ignore.mayHoldKept(path))
          warn(
            'CopyIgnoredFile',
            lines,
            `Attempting to ${instruction.do === 'add' ? 'Add' : 'Copy'} file "${source}" that is excluded by .dockerignore`,
          );
      }
      return;
    default:
  }
}

/** Words that name secrets, as a whole part of a name; those that only point to one do not. */
const SECRET_WORDS = /(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)/i;
const NOT_SECRET = /(?:^|_)(?:public|file|path|dir|url|name|algorithm|size|length|version)(?:_|$)/i;

function secretName(instruction: string, name: string, lines: LineRange, warn: Warn): void {
  if (!SECRET_WORDS.test(name) || NOT_SECRET.test(name)) return;
  warn(
    'SecretsUsedInArgOrEnv',
    lines,
    `Do not use ARG or ENV instructions for sensitive data (${instruction} "${name}")`,
  );
}

function checkPort(port: string, lines: LineRange, warn: Warn): void {
  if (/^[^$]*:/.test(port))
    warn(
      'ExposeInvalidFormat',
      lines,
      `EXPOSE instruction should not define an IP address or host-port mapping, found '${port}'`,
    );
  const protocol = port.split('/')[1];
  if (protocol !== undefined && !protocol.includes('$') && protocol !== protocol.toLowerCase())
    warn('ExposeProtoCasing', lines, `Defined protocol '${port}' in EXPOSE instruction should be lowercase`);
}

/** `(did you mean $PATH?)`, or nothing. */
export function meant(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? '' : ` (did you mean $${near}?)`;
}
