import { posix } from 'node:path';
import type { CopyItem, HistoryLine, PlannedMount, PlannedStage, StepDetail, StepId } from '#build/graph.ts';
import type { Planner, StageBase } from '#build/plan.ts';
import type { Scope } from '#build/scope.ts';
import {
  DEFAULT_PATH,
  DEFAULT_SHELL,
  exposedPorts,
  healthcheckSetting,
  type ImageSettings,
  withEnv,
} from '#build/settings.ts';
import { ExpansionFailed, expandWord, expandWords } from '#spec/dockerfile/expand.ts';
import type { At, Command, CopyOptions, Instruction, Stage } from '#spec/dockerfile/instructions.ts';
import { parseMount } from '#spec/dockerfile/mount.ts';
import type { SyntaxNode } from '#spec/dockerfile/syntax.ts';

type Of<K extends Instruction['do']> = Extract<Instruction, { do: K }>;

/** Carries one stage from its base to its end: settings, variables and root change line by line. */
export class StageBuilder {
  root: StepId | undefined;
  settings: ImageSettings;
  /** MAINTAINER: it stands beside an image's settings. */
  author: string | undefined;
  readonly history: HistoryLine[] = [];
  readonly instructions: PlannedStage['instructions'];
  readonly #planner: Planner;
  readonly #stage: Stage;
  readonly #scope: Scope;
  #cmdIsOurs = false;
  #at = 0;
  #count = 0;

  constructor(planner: Planner, stage: Stage, base: StageBase, scope: Scope) {
    this.#planner = planner;
    this.#stage = stage;
    this.#scope = scope;
    this.root = base.root;
    this.instructions = [{ text: stage.node.text.trim(), ...(base.root === undefined ? {} : { step: base.root }) }];
    this.settings = { ...base.settings };
    this.author = base.author;
    // Images without a PATH (scratch, imported trees) still expect to find their programs.
    if (!this.settings.Env?.some((entry) => entry.startsWith('PATH='))) {
      this.settings.Env = withEnv(this.settings.Env ?? [], 'PATH', DEFAULT_PATH);
      scope.setEnv(this.settings.Env);
    }
  }

  /** False when an image has to be resolved before the stage can be planned to its end. */
  run(instructions: readonly At<Instruction>[]): boolean {
    this.#count = instructions.length + 1;
    this.#at = 1;
    return instructions.every((instruction) => {
      this.#at++;
      const told = this.history.length;
      if (!this.#apply(instruction, instruction.node)) return false;
      const step = this.history.slice(told).at(-1)?.step;
      this.instructions.push({ text: instruction.node.text.trim(), ...(step === undefined ? {} : { step }) });
      return true;
    });
  }

  #apply(i: Instruction, node: SyntaxNode): boolean {
    switch (i.do) {
      case 'arg':
        this.#arg(i, node);
        return true;
      case 'env':
        this.#env(i, node);
        return true;
      case 'label':
        return this.#set(
          { Labels: { ...this.settings.Labels, ...Object.fromEntries(this.#pairs(i.pairs, node)) } },
          node,
        );
      case 'run':
        return this.#run(i, node);
      case 'copy':
        return this.#copy(i, node);
      case 'add':
        return this.#add(i, node);
      case 'workdir':
        return this.#workdir(i, node);
      case 'cmd':
        this.#cmdIsOurs = true;
        return this.#set({ Cmd: this.#argv(i.command) }, node);
      case 'entrypoint':
        // A CMD inherited from the base belonged to the base's entry point.
        if (!this.#cmdIsOurs) this.#unset('Cmd');
        return this.#set({ Entrypoint: this.#argv(i.command) }, node);
      case 'shell':
        return this.#set({ Shell: i.argv }, node);
      case 'healthcheck':
        return this.#set({ Healthcheck: healthcheckSetting(i.healthcheck) }, node);
      case 'expose':
        return this.#expose(i, node);
      case 'volume': {
        const paths = i.paths.map((p) => this.#expand(p, node));
        return this.#set(
          { Volumes: { ...this.settings.Volumes, ...Object.fromEntries(paths.map((p) => [p, {}])) } },
          node,
        );
      }
      case 'user':
        return this.#set({ User: this.#expand(i.user, node) }, node);
      case 'stopsignal':
        return this.#set({ StopSignal: this.#signal(this.#expand(i.signal, node), node) }, node);
      case 'maintainer':
        this.author = this.#expand(i.name, node);
        return this.#set({}, node);
      case 'onbuild':
        return this.#set({ OnBuild: [...(this.settings.OnBuild ?? []), i.trigger] }, node);
    }
  }

  #arg(i: Of<'arg'>, node: SyntaxNode): void {
    for (const { name, value } of i.args) {
      this.#scope.declare(name, value === undefined ? undefined : this.#expand(value, node));
    }
    this.history.push({ createdBy: node.text.trim() });
  }

  #env(i: Of<'env'>, node: SyntaxNode): void {
    // All values of one line see the variables as they were before it.
    let env = this.settings.Env ?? [];
    for (const [key, value] of this.#pairs(i.pairs, node)) env = withEnv(env, key, value);
    this.#set({ Env: env }, node);
    this.#scope.setEnv(env);
  }

  #run(i: Of<'run'>, node: SyntaxNode): boolean {
    const mounts: PlannedMount[] = [];
    for (const text of i.mounts) {
      const agents = mounts.filter((known) => known.type === 'ssh').length;
      const mount = this.#mount(text, agents, node);
      if (!mount) return false;
      mounts.push(mount);
    }
    const args = this.#scope.args().map(([name, value]) => `${name}=${value}`);
    const argv = this.#argv(i.command);
    this.#step(
      {
        do: 'run',
        root: this.root,
        argv,
        env: [...(this.settings.Env ?? []), ...args],
        cwd: this.settings.WorkingDir || '/',
        user: this.settings.User ?? '',
        mounts,
        network: i.network,
        security: i.security,
      },
      node,
      `RUN ${args.length > 0 ? `|${args.length} ${args.join(' ')} ` : ''}${argv.join(' ')}`,
    );
    return true;
  }

  /** `agents`: how many of the command's mounts before this one lead to an ssh agent. */
  #mount(text: string, agents: number, node: SyntaxNode): PlannedMount | undefined {
    const mount = parseMount(this.#expand(text, node), (problem, rule) =>
      this.#fail(node, `--mount: ${problem}`, rule),
    );
    const below = (path: string): string => posix.resolve(this.settings.WorkingDir || '/', path);
    switch (mount.type) {
      case 'tmpfs':
        return { ...mount, target: below(mount.target) };
      case 'secret': {
        const { target, ...rest } = mount;
        // A secret that is only an environment variable gets no file.
        if (target === undefined && mount.env !== undefined) return rest;
        return { ...rest, target: below(target ?? `/run/secrets/${mount.id}`) };
      }
      case 'ssh':
        return { ...mount, target: below(mount.target ?? `/run/buildkit/ssh_agent.${agents}`) };
      case 'cache': {
        const { from, ...rest } = mount;
        const source = from === undefined ? undefined : this.#planner.source(from, this.#stage, node.lines);
        if (from !== undefined && !source) return undefined;
        const target = below(mount.target);
        return { ...rest, id: mount.id ?? target, target, ...(source ? { from: source.root } : {}) };
      }
      case 'bind': {
        const source =
          mount.from === undefined
            ? { root: this.#context() }
            : this.#planner.source(mount.from, this.#stage, node.lines);
        if (!source) return undefined;
        return {
          type: 'bind',
          from: source.root,
          source: posix.resolve('/', mount.source),
          target: below(mount.target),
          readonly: mount.readonly,
        };
      }
    }
  }

  #copy(i: Of<'copy'>, node: SyntaxNode): boolean {
    const from =
      i.from === undefined ? undefined : this.#planner.source(this.#expand(i.from, node), this.#stage, node.lines);
    if (i.from !== undefined && !from) return false;
    const items = i.sources.map(
      (path): CopyItem => ({ from: from ? from.root : this.#context(), path: this.#expand(path, node), unpack: false }),
    );
    this.#copyStep(i, items, i.parents, node);
    return true;
  }

  #add(i: Of<'add'>, node: SyntaxNode): boolean {
    const items = i.sources.map((written): CopyItem => {
      const path = this.#expand(written, node);
      if (isGit(path)) {
        return {
          remote: this.#planner.add({ do: 'git', url: path, keepGitDir: i.keepGitDir }, `git ${path}`),
          name: '',
          unpack: false,
        };
      }
      if (/^https?:\/\//i.test(path)) {
        const checksum =
          i.checksum === undefined ? {} : { checksum: this.#checksum(this.#expand(i.checksum, node), node) };
        const name = posix.basename(new URL(path).pathname);
        return {
          remote: this.#planner.add({ do: 'fetch', url: path, ...checksum }, `ADD ${path}`),
          name,
          unpack: i.unpack ?? false,
        };
      }
      return { from: this.#context(), path, unpack: i.unpack ?? true };
    });
    if (i.checksum !== undefined && items.some((item) => !('remote' in item))) {
      this.#fail(node, 'ADD --checksum with a local source', 'a checksum is for what comes from the network');
    }
    this.#copyStep(i, items, false, node);
    return true;
  }

  #copyStep(i: CopyOptions, items: CopyItem[], parents: boolean, node: SyntaxNode): void {
    const inline = i.inline.map((file): CopyItem => {
      const text = file.expand ? this.#expand(file.text, node, 'keep') : file.text;
      return { inline: { name: file.name, text } };
    });
    const all = [...items, ...inline];
    const written = this.#expand(i.destination, node);
    if (all.length > 1 && !written.endsWith('/')) {
      this.#fail(
        node,
        `several sources, and ${written} does not end with /`,
        'several files go into a directory: write it with a / at its end',
      );
    }
    const chown = i.chown === undefined ? {} : { chown: this.#expand(i.chown, node) };
    const chmod = i.chmod === undefined ? {} : { chmod: this.#expand(i.chmod, node) };
    const directory = written.endsWith('/') || written === '.' || written.endsWith('/.');
    const path = posix.resolve(this.settings.WorkingDir || '/', written);
    this.#step(
      {
        do: 'copy',
        root: this.root,
        items: all,
        destination: directory && path !== '/' ? `${path}/` : path,
        ...chown,
        ...chmod,
        link: i.link,
        parents,
        excludes: i.excludes.map((e) => this.#expand(e, node)),
      },
      node,
      node.text.trim(),
    );
  }

  #workdir(i: Of<'workdir'>, node: SyntaxNode): boolean {
    const path = this.#expand(i.path, node);
    if (path === '') this.#fail(node, `${i.path} is empty once expanded`, 'WORKDIR takes a path');
    if (!path.startsWith('/') && this.settings.WorkingDir === undefined) {
      this.#planner.warn(
        'WorkdirRelativePath',
        node.lines,
        `WORKDIR ${path} is relative, and the base image sets none: it means /${path}`,
      );
    }
    const absolute = posix.resolve(this.settings.WorkingDir || '/', path);
    this.settings = { ...this.settings, WorkingDir: absolute };
    this.#step(
      { do: 'workdir', root: this.root, path: absolute, user: this.settings.User ?? '' },
      node,
      `WORKDIR ${absolute}`,
    );
    return true;
  }

  #expose(i: Of<'expose'>, node: SyntaxNode): boolean {
    const ports: Record<string, object> = { ...this.settings.ExposedPorts };
    for (const word of i.ports.flatMap((p) => expandWords(p, this.#scope, this.#options(node)))) {
      const expanded = exposedPorts(word);
      if (!expanded)
        return this.#fail(
          node,
          `${word} is no port`,
          'EXPOSE takes 80, 53/udp or 8000-8010; publishing is for docker run -p',
        );
      for (const port of expanded) ports[port] = {};
    }
    return this.#set({ ExposedPorts: ports }, node);
  }

  #signal(signal: string, node: SyntaxNode): string {
    return /^(SIG)?[A-Z][A-Z0-9+-]*$|^\d{1,2}$/i.test(signal)
      ? signal
      : this.#fail(node, `${signal} is no signal`, 'write SIGTERM or 15');
  }

  #checksum(text: string, node: SyntaxNode): string {
    return /^sha256:[0-9a-f]{64}$|^sha(384|512):[0-9a-f]{96,128}$/.test(text)
      ? text
      : this.#fail(node, `${text} is no digest`, 'write --checksum=sha256:… with 64 hex digits');
  }

  #argv(command: Command): string[] {
    return command.form === 'exec' ? command.argv : [...(this.settings.Shell ?? DEFAULT_SHELL), command.line];
  }

  #pairs(pairs: readonly { key: string; value: string }[], node: SyntaxNode): [string, string][] {
    return pairs.map(({ key, value }) => [this.#expand(key, node), this.#expand(value, node)]);
  }

  #context(): StepId {
    return this.#planner.add({ do: 'context', name: '' }, 'load build context');
  }

  #set(change: Partial<ImageSettings>, node: SyntaxNode): true {
    this.settings = { ...this.settings, ...change };
    this.history.push({ createdBy: node.text.trim() });
    return true;
  }

  #unset(key: keyof ImageSettings): void {
    const { [key]: _gone, ...rest } = this.settings;
    this.settings = rest;
  }

  #step(detail: StepDetail, node: SyntaxNode, createdBy: string): void {
    const title = `${this.#stage.name ?? `stage ${this.#stage.index}`} ${this.#at}/${this.#count} ${node.text.trim().split('\n')[0]}`;
    this.root = this.#planner.add(detail, title, node.lines, this.#planner.isUncached(this.#stage));
    this.history.push({ createdBy, step: this.root });
  }

  #expand(word: string, node: SyntaxNode, quotes: 'strip' | 'keep' = 'strip'): string {
    try {
      return expandWord(word, this.#scope, { ...this.#options(node), quotes });
    } catch (error) {
      if (error instanceof ExpansionFailed)
        this.#fail(node, error.message, 'see "Environment replacement" in the Dockerfile reference');
      throw error;
    }
  }

  #options(node: SyntaxNode): { escape: '\\' | '`'; onUnset: (name: string) => void } {
    return {
      escape: this.#planner.file.directives.escape,
      onUnset: (name) => {
        if (!this.#scope.isDeclared(name))
          this.#planner.warn('UndefinedVar', node.lines, `$${name} is used, and nothing declares it`);
      },
    };
  }

  #fail(node: SyntaxNode, problem: string, rule: string): never {
    return this.#planner.fail(node.lines, problem, rule);
  }
}

function isGit(source: string): boolean {
  return /^(git@|git:\/\/|ssh:\/\/)/.test(source) || /^https?:\/\/[^#]+\.git(#.*)?$/.test(source);
}
