import { parseDurationNs } from '#base/units.ts';
import { DockerfileError, type LineRange } from '#spec/dockerfile/errors.ts';
import { type FlagKind, type Flags, parseFlags } from '#spec/dockerfile/flags.ts';
import { parseHeredocHead } from '#spec/dockerfile/heredoc.ts';
import { type Directives, type Heredoc, heredocText } from '#spec/dockerfile/lines.ts';
import { type Args, parseSyntax, type SyntaxNode } from '#spec/dockerfile/syntax.ts';

/**
 * The third reading: syntax → stages of typed instructions. Words are still unexpanded (variables depend on what comes
 * before); everything that can be known without them is checked here.
 */
export interface Dockerfile {
  file: string;
  directives: Directives;
  /** ARG lines before the first FROM: visible to FROM lines, and to stages that declare them again. */
  metaArgs: At<ArgInstruction>[];
  stages: Stage[];
}

export interface Stage {
  index: number;
  /** Lower case, or undefined. */
  name?: string;
  /** As written: an image, or the name of an earlier stage. */
  base: string;
  platform?: string;
  instructions: At<Instruction>[];
  lines: LineRange;
  node: SyntaxNode;
}

export type At<T> = T & { node: SyntaxNode };

export interface Pair {
  key: string;
  value: string;
}

export type ArgInstruction = { do: 'arg'; args: { name: string; value?: string }[] };

/** The command of RUN, CMD or ENTRYPOINT: a shell line (handed to SHELL) or an argument list. */
export type Command = { form: 'shell'; line: string } | { form: 'exec'; argv: string[] };

/** A file whose content stands in the Dockerfile (`COPY <<EOF /path`). */
export interface InlineFile {
  name: string;
  text: string;
  expand: boolean;
}

export interface CopyOptions {
  sources: string[];
  inline: InlineFile[];
  destination: string;
  chown?: string;
  chmod?: string;
  link: boolean;
  excludes: string[];
}

export interface Healthcheck {
  /** `['NONE']`, `['CMD', …]` or `['CMD-SHELL', line]`. */
  test: string[];
  intervalNs?: number;
  timeoutNs?: number;
  startPeriodNs?: number;
  startIntervalNs?: number;
  retries?: number;
}

export type Instruction =
  | ArgInstruction
  | { do: 'env'; pairs: Pair[] }
  | { do: 'label'; pairs: Pair[] }
  | {
      do: 'run';
      command: Command;
      mounts: string[];
      network: 'default' | 'none' | 'host';
      security: 'sandbox' | 'insecure';
    }
  | ({ do: 'copy'; from?: string; parents: boolean } & CopyOptions)
  | ({ do: 'add'; keepGitDir: boolean; checksum?: string; unpack?: boolean } & CopyOptions)
  | { do: 'cmd' | 'entrypoint'; command: Command }
  | { do: 'shell'; argv: string[] }
  | { do: 'healthcheck'; healthcheck: Healthcheck }
  | { do: 'expose'; ports: string[] }
  | { do: 'volume'; paths: string[] }
  | { do: 'user'; user: string }
  | { do: 'workdir'; path: string }
  | { do: 'stopsignal'; signal: string }
  | { do: 'maintainer'; name: string }
  | { do: 'onbuild'; trigger: string };

const MAX_STAGES = 1_000;
const STAGE_NAME = /^[a-z][a-z0-9_.-]*$/;

/** Reads a whole Dockerfile; `file` is the name errors show. */
export function parseDockerfile(source: string, file = 'Dockerfile'): Dockerfile {
  const { directives, nodes } = parseSyntax(source, file);
  const metaArgs: At<ArgInstruction>[] = [];
  const stages: Stage[] = [];
  for (const node of nodes) {
    const reader = new Reader(node, file);
    if (node.keyword === 'from') {
      if (stages.length >= MAX_STAGES) reader.fail(`more than ${MAX_STAGES} stages`, 'split the file');
      stages.push(reader.stage(stages.length));
      continue;
    }
    const stage = stages.at(-1);
    const instruction = reader.instruction();
    if (stage) {
      stage.instructions.push({ ...instruction, node });
      stage.lines.end = node.lines.end;
    } else if (instruction.do === 'arg') metaArgs.push({ ...instruction, node });
    else
      reader.fail(
        `${node.name.toUpperCase()} stands before the first FROM`,
        'a Dockerfile starts with FROM; only ARG may stand before it',
      );
  }
  if (stages.length === 0)
    new Reader(nodes.at(-1) as SyntaxNode, file).fail(
      'there is no FROM',
      'every build starts from an image, or from scratch',
    );
  return { file, directives, metaArgs, stages };
}

/** Triggers of a base image come as text: each is read as if it stood after FROM. */
export function parseTrigger(text: string, image: string): At<Instruction>[] {
  const { nodes } = parseSyntax(text, `ONBUILD of ${image}`);
  return nodes.map((node) => ({ ...new Reader(node, `ONBUILD of ${image}`).instruction(), node }));
}

const COPY_FLAGS = { chown: 'text', chmod: 'text', link: 'switch', exclude: 'list' } as const;
const HEALTH_FLAGS = {
  interval: 'text',
  timeout: 'text',
  'start-period': 'text',
  'start-interval': 'text',
  retries: 'text',
} as const;

/** Reads one syntax node as the instruction its keyword names. */
class Reader {
  readonly #node: SyntaxNode;
  readonly #file: string;
  readonly #name: string;

  constructor(node: SyntaxNode, file: string) {
    this.#node = node;
    this.#file = file;
    this.#name = node.keyword.toUpperCase();
  }

  fail(problem: string, rule: string): never {
    throw new DockerfileError({ file: this.#file, lines: this.#node.lines, problem, rule });
  }

  stage(index: number): Stage {
    const flags = this.#flags({ platform: 'text' });
    const [base = '', as, name, ...more] = this.#words();
    if (base === '' || more.length > 0 || (as !== undefined && (as.toLowerCase() !== 'as' || name === undefined))) {
      return this.fail(
        `FROM takes one image, and a name after AS; not ${JSON.stringify(this.#words().join(' '))}`,
        'FROM [--platform=P] IMAGE [AS NAME]',
      );
    }
    const stageName = name?.toLowerCase();
    if (stageName !== undefined && !STAGE_NAME.test(stageName)) {
      return this.fail(
        `${name} cannot name a stage`,
        'a stage name starts with a letter and holds letters, digits, _, - and .',
      );
    }
    const platform = flags.text('platform');
    return {
      index,
      base,
      ...(stageName === undefined ? {} : { name: stageName }),
      ...(platform === undefined ? {} : { platform }),
      instructions: [],
      lines: { ...this.#node.lines },
      node: this.#node,
    };
  }

  instruction(): Instruction {
    switch (this.#node.keyword) {
      case 'arg':
        return this.#arg();
      case 'env':
      case 'label':
        return this.#pairs(this.#node.keyword);
      case 'run':
        return this.#run();
      case 'copy':
        return this.#copy();
      case 'add':
        return this.#add();
      case 'cmd':
      case 'entrypoint':
        this.#flags({});
        return { do: this.#node.keyword, command: this.#command(this.#node.args) };
      case 'shell':
        this.#flags({});
        return { do: 'shell', argv: this.#jsonList() };
      case 'healthcheck':
        return this.#healthcheck();
      case 'expose':
        this.#flags({});
        return { do: 'expose', ports: this.#atLeastOne() };
      case 'volume':
        return this.#volume();
      case 'user':
        return { do: 'user', user: this.#oneString() };
      case 'workdir':
        return { do: 'workdir', path: this.#oneString() };
      case 'stopsignal':
        return { do: 'stopsignal', signal: this.#oneString() };
      case 'maintainer':
        return { do: 'maintainer', name: this.#oneString() };
      case 'onbuild':
        return this.#onbuild();
      default:
        return this.fail(`${this.#name} cannot stand here`, 'see the Dockerfile reference');
    }
  }

  #arg(): ArgInstruction {
    this.#flags({});
    const args = this.#atLeastOne().map((word) => {
      const at = word.indexOf('=');
      const name = at < 0 ? word : word.slice(0, at);
      if (name === '') this.fail(`ARG ${word} has no name`, 'write ARG name or ARG name=default');
      return at < 0 ? { name } : { name, value: word.slice(at + 1) };
    });
    return { do: 'arg', args };
  }

  #pairs(keyword: 'env' | 'label'): Instruction {
    this.#flags({});
    const pairs = this.#node.args.form === 'pairs' ? this.#node.args.pairs : [];
    if (pairs.length === 0) this.fail(`${this.#name} has no arguments`, `${this.#name} takes key=value`);
    if (pairs.some((p) => p.key === ''))
      this.fail(`${this.#name} has a name that is empty`, `${this.#name} takes key=value`);
    return { do: keyword, pairs: pairs.map(({ key, value }) => ({ key, value })) };
  }

  #run(): Instruction {
    const flags = this.#flags({ mount: 'list', network: 'text', security: 'text' });
    const network = flags.text('network') ?? 'default';
    const security = flags.text('security') ?? 'sandbox';
    if (network !== 'default' && network !== 'none' && network !== 'host') {
      return this.fail(`--network=${network} is unknown`, '--network is default, none or host');
    }
    if (security !== 'sandbox' && security !== 'insecure') {
      return this.fail(`--security=${security} is unknown`, '--security is sandbox or insecure');
    }
    return {
      do: 'run',
      command: this.#command(this.#node.args, this.#node.heredocs),
      mounts: flags.list('mount'),
      network,
      security,
    };
  }

  #copy(): Instruction {
    const flags = this.#flags({ ...COPY_FLAGS, from: 'text', parents: 'switch' });
    const from = flags.text('from');
    const options = this.#copyOptions(flags);
    if (from !== undefined && options.inline.length > 0)
      this.fail('COPY --from with a here-document', 'a here-document has no stage; write two COPY lines');
    return { do: 'copy', ...(from === undefined ? {} : { from }), parents: flags.on('parents'), ...options };
  }

  #add(): Instruction {
    const flags = this.#flags({ ...COPY_FLAGS, 'keep-git-dir': 'switch', checksum: 'text', unpack: 'switch' });
    const checksum = flags.text('checksum');
    const unpack = flags.text('unpack');
    return {
      do: 'add',
      keepGitDir: flags.on('keep-git-dir'),
      ...(checksum === undefined ? {} : { checksum }),
      ...(unpack === undefined ? {} : { unpack: unpack === 'true' }),
      ...this.#copyOptions(flags),
    };
  }

  #copyOptions(flags: Flags): CopyOptions {
    const words = this.#words();
    const destination = words.at(-1);
    if (destination === undefined || words.length < 2) {
      return this.fail(`${this.#name} needs a source and a destination`, `${this.#name} SOURCE… DESTINATION`);
    }
    if (parseHeredocHead(destination))
      this.fail('a here-document cannot be the destination', `${this.#name} <<EOF /path`);
    const heredocs = new Map(this.#node.heredocs.map((h) => [h.name, h]));
    const isJson = this.#node.args.form === 'words' && this.#node.args.json;
    const sources: string[] = [];
    const inline: InlineFile[] = [];
    for (const word of words.slice(0, -1)) {
      const heredoc = isJson ? undefined : heredocs.get(parseHeredocHead(word)?.name ?? '');
      if (heredoc) inline.push({ name: heredoc.name, text: heredocText(heredoc), expand: heredoc.expand });
      else sources.push(word);
    }
    const chown = flags.text('chown');
    const chmod = flags.text('chmod');
    return {
      sources,
      inline,
      destination,
      ...(chown === undefined ? {} : { chown }),
      ...(chmod === undefined ? {} : { chmod }),
      link: flags.on('link'),
      excludes: flags.list('exclude'),
    };
  }

  #healthcheck(): Instruction {
    const flags = this.#flags(HEALTH_FLAGS);
    const args = this.#node.args;
    if (args.form !== 'typed')
      return this.fail('HEALTHCHECK has no arguments', 'HEALTHCHECK [options] CMD command, or HEALTHCHECK NONE');
    const type = args.type.toUpperCase();
    const empty = args.command.form === 'words' && args.command.words.length === 0;
    if (type === 'NONE') {
      if (!empty) this.fail('HEALTHCHECK NONE takes no arguments', 'NONE switches off the check of the base image');
      return { do: 'healthcheck', healthcheck: { test: ['NONE'] } };
    }
    if (type !== 'CMD')
      return this.fail(`HEALTHCHECK ${args.type} is unknown`, 'HEALTHCHECK [options] CMD command, or HEALTHCHECK NONE');
    if (empty) this.fail('HEALTHCHECK CMD has no command', 'write the command that tells health by its exit code');
    const command = this.#command(args.command);
    const test = command.form === 'exec' ? ['CMD', ...command.argv] : ['CMD-SHELL', command.line];
    const healthcheck: Healthcheck = { test };
    for (const [flag, key] of HEALTH_TIMES) {
      const ns = this.#duration(flag, flags.text(flag));
      if (ns !== undefined) healthcheck[key] = ns;
    }
    const retries = flags.text('retries');
    if (retries !== undefined) {
      if (!/^\d{1,9}$/.test(retries))
        this.fail(`--retries=${retries} is no whole number`, '--retries counts failures in a row');
      healthcheck.retries = Number(retries);
    }
    return { do: 'healthcheck', healthcheck };
  }

  #duration(flag: string, text: string | undefined): number | undefined {
    if (text === undefined) return undefined;
    const ns = parseDurationNs(text);
    if (ns === undefined) return this.fail(`--${flag}=${text} is no duration`, 'write 30s, 1m30s or 500ms');
    if (ns !== 0 && ns < 1_000_000)
      this.fail(`--${flag}=${text} is less than a millisecond`, 'the shortest is 1ms; 0 means the default');
    return ns;
  }

  #volume(): Instruction {
    this.#flags({});
    const paths = this.#atLeastOne();
    if (paths.some((p) => p === '')) this.fail('VOLUME with an empty path', 'name the directory');
    return { do: 'volume', paths };
  }

  #onbuild(): Instruction {
    this.#flags({});
    if (this.#node.args.form !== 'nested')
      return this.fail('ONBUILD has no instruction', 'ONBUILD INSTRUCTION arguments');
    const inner = this.#node.args.node;
    if (inner.keyword === 'onbuild') this.fail('ONBUILD ONBUILD', 'a trigger cannot set a trigger');
    if (inner.keyword === 'from' || inner.keyword === 'maintainer')
      this.fail(`ONBUILD ${inner.name.toUpperCase()}`, 'FROM and MAINTAINER cannot be triggers');
    new Reader(inner, this.#file).instruction(); // checked now, run in another build
    const documents = this.#node.heredocs.map((h) => `\n${h.content}${h.name}`).join('');
    return { do: 'onbuild', trigger: inner.text.trim() + documents };
  }

  /** A here-document makes the whole text the script: `RUN <<EOF`, or input of a command: `RUN python3 <<EOF`. */
  #command(args: Args, heredocs: readonly Heredoc[] = []): Command {
    if (args.form === 'words') {
      if (args.words.length === 0 && this.#node.keyword === 'run')
        this.fail('RUN has no command', 'RUN command, or RUN ["program", "argument"]');
      return { form: 'exec', argv: args.words };
    }
    const line = args.form === 'line' ? args.line : '';
    if (heredocs.length === 0) return { form: 'shell', line };
    const [first] = heredocs;
    if (heredocs.length === 1 && first && parseHeredocHead(line.replace(/\s+/g, ''))?.name === first.name) {
      return { form: 'shell', line: heredocText(first) };
    }
    return { form: 'shell', line: `${line}\n${heredocs.map((h) => `${h.content}${h.name}`).join('\n')}` };
  }

  #jsonList(): string[] {
    const args = this.#node.args;
    if (args.form !== 'words' || !args.json || args.words.length === 0)
      return this.fail(`${this.#name} takes the JSON form`, `${this.#name} ["program", "argument"]`);
    return args.words;
  }

  #words(): string[] {
    return this.#node.args.form === 'words' ? this.#node.args.words : [];
  }

  #atLeastOne(): string[] {
    const words = this.#words();
    return words.length > 0 ? words : this.fail(`${this.#name} has no arguments`, `${this.#name} takes at least one`);
  }

  #oneString(): string {
    this.#flags({});
    return this.#node.args.form === 'line'
      ? this.#node.args.line
      : this.fail(`${this.#name} has no argument`, `${this.#name} takes exactly one`);
  }

  #flags(known: Readonly<Record<string, FlagKind>>): Flags {
    return parseFlags(this.#node.flags, known, (problem, rule) => this.fail(`${this.#name}: ${problem}`, rule));
  }
}

const HEALTH_TIMES = [
  ['interval', 'intervalNs'],
  ['timeout', 'timeoutNs'],
  ['start-period', 'startPeriodNs'],
  ['start-interval', 'startIntervalNs'],
] as const;
