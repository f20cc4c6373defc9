import { spawn } from 'node:child_process';
import { createWriteStream, existsSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';
import { heedOther, LIMIT_OPTIONS, limitsOf, OTHER_OPTIONS } from '#cli/build-limits.ts';
import { failureText, LiveProgress, PlainProgress, type ProgressView, seconds } from '#cli/build-progress.ts';
import { registryAuth } from '#cli/registry-auth.ts';
import {
  type BuildCall,
  BuildError,
  type BuildResult,
  type ContextWish,
  exportBuild,
  runBuild,
} from '#engine/client/build.ts';
import { addressOf, DaemonConnection } from '#engine/client/connection.ts';
import { IGNORE_NOTHING, type Ignore, parseIgnore } from '#spec/dockerfile/ignore.ts';
import type { ExportType } from '#spec/estiba/build.ts';

export const BUILD_HELP = `estiba build [options] DIRECTORY | URL | -

  -t, --tag NAME                name of the result; again for more
  -f, --file FILE               the Dockerfile (DIRECTORY/Dockerfile); - reads it from standard input
  --target STAGE                build this stage, and what it needs
  --build-arg NAME[=VALUE]      value of an ARG; without =VALUE, of this shell's variable
  --build-context NAME=SOURCE   a further context: a directory, docker-image://NAME, or a URL
  --secret id=ID[,src=FILE|,env=NAME]
  --ssh default|ID[=SOCKET]     an ssh agent for RUN --mount=type=ssh
  --label KEY=VALUE   --platform OS/ARCH   --add-host NAME:ADDRESS   --network NETWORK
  --no-cache   --no-cache-filter STAGE     run steps again, all or those of a stage
  --pull                        look for newer base images
  --allow network.host          what RUN may ask for
  --squash                      what is added to the base becomes one layer
  -m, --memory SIZE   --memory-swap SIZE   --shm-size SIZE   --ulimit NAME=SOFT[:HARD]
  -c, --cpu-shares N   --cpu-period US   --cpu-quota US   --cpuset-cpus LIST   --cpuset-mems LIST   --cgroup-parent PATH
  --check                       tell what the build checks find, and build nothing
  -o, --output WHERE            type=image|oci|docker|tar|local[,dest=PATH]; DIRECTORY is local, - a tar to standard output
  --progress auto|plain|quiet   -q, --quiet   --iidfile FILE   --metadata-file FILE
  -H, --host ADDRESS            --run-root R
`;

const Usage = defineError('USAGE', (d: { why: string }) => ({ message: d.why, hint: BUILD_HELP }));

const OPTIONS = {
  tag: { type: 'string', short: 't', multiple: true },
  file: { type: 'string', short: 'f' },
  target: { type: 'string' },
  'build-arg': { type: 'string', multiple: true },
  'build-context': { type: 'string', multiple: true },
  secret: { type: 'string', multiple: true },
  ssh: { type: 'string', multiple: true },
  label: { type: 'string', multiple: true },
  platform: { type: 'string' },
  'add-host': { type: 'string', multiple: true },
  network: { type: 'string' },
  'no-cache': { type: 'boolean' },
  'no-cache-filter': { type: 'string', multiple: true },
  pull: { type: 'boolean' },
  allow: { type: 'string', multiple: true },
  squash: { type: 'boolean' },
  ...LIMIT_OPTIONS,
  ...OTHER_OPTIONS,
  check: { type: 'boolean' },
  output: { type: 'string', short: 'o' },
  progress: { type: 'string' },
  quiet: { type: 'boolean', short: 'q' },
  iidfile: { type: 'string' },
  'metadata-file': { type: 'string' },
  host: { type: 'string', short: 'H' },
  'run-root': { type: 'string' },
  help: { type: 'boolean' },
} as const;

export interface World {
  env: Readonly<Record<string, string | undefined>>;
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable;
  stderr: Writable & { isTTY?: boolean; columns?: number };
  signal: AbortSignal;
}

/** Answers the exit code. */
export async function buildCommand(args: string[], world: World): Promise<number> {
  const { values, positionals } = read(args);
  if (values.help) {
    world.stdout.write(BUILD_HELP);
    return 0;
  }
  const [source] = positionals;
  if (source === undefined || positionals.length > 1)
    throw new Usage({ why: 'estiba build takes one context: a directory, a URL, or -' });
  const output = outputOf(values.output);
  for (const note of heedOther(values)) if (!values.quiet) world.stderr.write(note);
  const call = await callOf(values, source, world);
  const daemon = new DaemonConnection(addressOf({ host: values.host, runRoot: values['run-root'], env: world.env }));
  const view = viewOf(values, world);
  let checked: { warnings: number; failed: boolean } | undefined;
  let result: BuildResult | undefined;
  try {
    result = await runBuild(
      daemon,
      call,
      (line) => {
        if (line.at === 'checked') checked = line;
        view?.take(line);
      },
      world.signal,
    );
    view?.close();
  } catch (error) {
    view?.close();
    if (!(error instanceof BuildError)) throw error;
    world.stderr.write(failureText(error.failure));
    return error.failure.exitCode ?? 1;
  }
  if (checked) return tellChecks(checked, world);
  if (!result) return 1;
  await deliver(daemon, result, output, world);
  await tellResult(result, values, output, world);
  return 0;
}

type Values = ReturnType<typeof read>['values'];

function read(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (cause) {
    throw new Usage({ why: messageOf(cause) }, { cause });
  }
}

// -- what is wished

async function callOf(values: Values, source: string, world: World): Promise<BuildCall> {
  const { contexts, dockerfile, ignoreText } = await sourcesOf(values, source, world);
  for (const text of values['build-context'] ?? []) {
    const [name, where] = pair(text, '--build-context');
    contexts[name] = await contextOf(where);
  }
  return {
    contexts,
    dockerfile,
    tags: values.tag ?? [],
    ...(values.target === undefined ? {} : { target: values.target }),
    buildArgs: argsOf(values['build-arg'] ?? [], world.env),
    labels: Object.fromEntries(
      (values.label ?? []).map((text) => (text.includes('=') ? pair(text, '--label') : [text, ''])),
    ),
    ...(values.platform === undefined ? {} : { platform: values.platform }),
    noCache: values['no-cache'] ?? false,
    noCacheFilter: (values['no-cache-filter'] ?? []).flatMap((text) => text.split(',')),
    pull: values.pull ?? false,
    check: values.check ?? false,
    secrets: Object.fromEntries(await Promise.all((values.secret ?? []).map((text) => secretOf(text, world.env)))),
    ssh: Object.fromEntries((values.ssh ?? []).map((text) => agentOf(text, world.env))),
    allow: (values.allow ?? []).map(entitlement),
    network: values.network ?? 'default',
    addHosts: values['add-host'] ?? [],
    limits: limitsOf(values),
    squash: values.squash ?? false,
    ...(ignoreText === undefined ? {} : { ignore: ignoreText }),
    ...registryAuth(world),
  };
}

interface Sources {
  contexts: Record<string, ContextWish>;
  dockerfile: BuildCall['dockerfile'];
  ignoreText?: string;
}

async function sourcesOf(values: Values, source: string, world: World): Promise<Sources> {
  if (source === '-') return fromStdin(values, world);
  const fileText = values.file === '-' ? (await readAll(world.stdin)).toString() : undefined;
  if (isRemote(source)) {
    const name = values.file === undefined || values.file === '-' ? 'Dockerfile' : values.file;
    return {
      contexts: { '': { url: source } },
      dockerfile: { name, ...(fileText === undefined ? {} : { text: fileText }) },
    };
  }
  const directory = resolve(source);
  if (!(await isDirectory(directory))) throw new Usage({ why: `${source} is no directory` });
  const path = values.file === undefined || values.file === '-' ? join(directory, 'Dockerfile') : resolve(values.file);
  const text = fileText ?? (await readDockerfile(path));
  const name = relative(directory, path);
  const { ignore, ignoreText } = await ignoreOf(directory, path);
  return {
    contexts: { '': { directory, ignore } },
    dockerfile: { name: name.startsWith('..') ? basename(path) : name, text },
    ...(ignoreText === undefined ? {} : { ignoreText }),
  };
}

/** A tar is the context; text is the Dockerfile, and there is no context. */
async function fromStdin(values: Values, world: World): Promise<Sources> {
  const name = values.file ?? 'Dockerfile';
  const bytes = await readAll(world.stdin);
  const isText =
    !bytes.subarray(0, 512).includes(0) && !PACKED.some((magic) => bytes.subarray(0, magic.length).equals(magic));
  if (isText) return { contexts: {}, dockerfile: { name, text: bytes.toString() } };
  return { contexts: { '': { tar: Readable.from([bytes], { objectMode: false }) } }, dockerfile: { name } };
}

const PACKED = [
  Buffer.from([0x1f, 0x8b]),
  Buffer.from([0x28, 0xb5, 0x2f, 0xfd]),
  Buffer.from('BZh'),
  Buffer.from([0xfd, 0x37, 0x7a]),
];

async function contextOf(where: string): Promise<ContextWish> {
  const image = /^docker-image:\/\/(.+)$/.exec(where)?.[1];
  if (image) return { image };
  if (isRemote(where)) return { url: where };
  const directory = resolve(where);
  if (!(await isDirectory(directory))) throw new Usage({ why: `--build-context: ${where} is no directory` });
  const { ignore } = await ignoreOf(directory, join(directory, 'Dockerfile'));
  return { directory, ignore };
}

/** `<Dockerfile>.dockerignore` beside the Dockerfile wins over the context's own. */
export async function ignoreOf(
  directory: string,
  dockerfile: string,
): Promise<{ ignore: Ignore; ignoreText?: string }> {
  for (const path of [`${dockerfile}.dockerignore`, join(directory, '.dockerignore')]) {
    const text = await readFile(path, 'utf8').catch(missing);
    if (text !== undefined) return { ignore: parseIgnore(text, path), ignoreText: text };
  }
  return { ignore: IGNORE_NOTHING };
}

async function readDockerfile(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(missing);
  if (text === undefined) throw new Usage({ why: `there is no ${path}; -f names another Dockerfile` });
  return text;
}

function isRemote(text: string): boolean {
  return /^(https?:\/\/|git@|git:\/\/|ssh:\/\/|github\.com\/)/.test(text);
}

function argsOf(texts: readonly string[], env: World['env']): Record<string, string> {
  const args: Record<string, string> = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    const value = at < 0 ? env[text] : text.slice(at + 1);
    if (value !== undefined) args[at < 0 ? text : text.slice(0, at)] = value;
  }
  return args;
}

async function secretOf(text: string, env: World['env']): Promise<[string, string]> {
  const fields = new Map(text.split(',').map((field) => pair(field, '--secret')));
  const id = fields.get('id');
  if (id === undefined) throw new Usage({ why: `--secret ${text} has no id` });
  const file = fields.get('src') ?? fields.get('source');
  const name = fields.get('env') ?? (file === undefined && env[id] !== undefined ? id : undefined);
  if (name !== undefined) {
    const value = env[name];
    if (value === undefined) throw new Usage({ why: `--secret ${text}: there is no variable ${name}` });
    return [id, Buffer.from(value).toString('base64')];
  }
  const bytes = await readFile(file ?? id).catch((cause: unknown) => {
    throw new Usage({ why: `--secret ${text}: ${messageOf(cause)}` }, { cause });
  });
  return [id, bytes.toString('base64')];
}

function agentOf(text: string, env: World['env']): [string, string] {
  const [id, path] = text.includes('=') ? pair(text, '--ssh') : [text, env['SSH_AUTH_SOCK'] ?? ''];
  if (path === '' || !existsSync(path))
    throw new Usage({ why: `--ssh ${text}: no agent answers: SSH_AUTH_SOCK is not set` });
  return [id, path];
}

function entitlement(text: string): 'network.host' {
  if (text === 'network.host') return text;
  if (text !== 'security.insecure')
    throw new Usage({ why: `--allow ${text} is unknown: network.host is all there is` });
  const rule = 'a command of a build has no power that a plain container would not have';
  throw new Usage({ why: `--allow security.insecure: ${rule}; what needs more is done by estiba run --privileged` });
}

function pair(text: string, flag: string): [string, string] {
  const at = text.indexOf('=');
  if (at <= 0) throw new Usage({ why: `${flag} ${text} is not NAME=VALUE` });
  return [text.slice(0, at), text.slice(at + 1)];
}

// -- what comes out

type Output = { type: 'image' } | { type: ExportType; dest: string } | { type: 'local'; dest: string };

function outputOf(text: string | undefined): Output {
  if (text === undefined) return { type: 'image' };
  if (!text.includes('=')) return text === '-' ? { type: 'tar', dest: '-' } : { type: 'local', dest: text };
  const fields = new Map(text.split(',').map((field) => pair(field, '--output')));
  const type = fields.get('type') ?? 'image';
  if (type === 'image') return { type };
  if (type !== 'local' && type !== 'tar' && type !== 'oci' && type !== 'docker')
    throw new Usage({ why: `--output type=${type} is unknown: image, oci, docker, tar or local` });
  const dest = fields.get('dest') ?? (type === 'local' ? undefined : '-');
  if (dest === undefined) throw new Usage({ why: '--output type=local needs dest=DIRECTORY' });
  return { type, dest };
}

async function deliver(daemon: DaemonConnection, result: BuildResult, output: Output, world: World): Promise<void> {
  if (output.type === 'image') return;
  const body = await exportBuild(daemon, result.imageId, output.type === 'local' ? 'tar' : output.type, world.signal);
  if (output.type === 'local') return unpackInto(output.dest, body);
  if (output.dest === '-') await pipeline(body, world.stdout, { end: false });
  else await pipeline(body, createWriteStream(output.dest));
}

/** Who may not give files away (anybody but root) gets them as his own. */
async function unpackInto(dest: string, body: AsyncIterable<Buffer>): Promise<void> {
  await mkdir(dest, { recursive: true });
  const tar = spawn('tar', ['-x', '-C', dest, '--no-same-owner', '-f', '-'], { stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  tar.stderr.on('data', (part: Buffer) => {
    said = (said + part.toString()).slice(-500);
  });
  const ended = new Promise<number | null>((done, failed) => {
    tar.once('error', failed);
    tar.once('close', done);
  });
  await pipeline(body, tar.stdin);
  if ((await ended) !== 0) throw new Usage({ why: `tar could not unpack into ${dest}: ${said.trim()}` });
}

async function tellResult(result: BuildResult, values: Values, output: Output, world: World): Promise<void> {
  if (values.iidfile !== undefined) await writeTo(values.iidfile, result.imageId);
  if (values['metadata-file'] !== undefined) {
    const metadata = {
      'containerimage.config.digest': result.imageId,
      'containerimage.digest': result.digest,
      'image.name': result.tags.join(','),
    };
    await writeTo(values['metadata-file'], `${JSON.stringify(metadata, null, 2)}\n`);
  }
  if (values.quiet) world.stdout.write(`${result.imageId}\n`);
  else if (output.type === 'image') {
    const names = result.tags.length > 0 ? ` ${result.tags.join(' ')}` : '';
    world.stderr.write(`built ${result.imageId.slice(7, 19)}${names} in ${seconds(result.tookMs)}\n`);
  }
}

function tellChecks({ warnings, failed }: { warnings: number; failed: boolean }, world: World): number {
  world.stderr.write(
    warnings === 0
      ? 'Check complete, no warnings found.\n'
      : `Check complete, ${warnings} warning${warnings === 1 ? ' has' : 's have'} been found!\n`,
  );
  return failed || warnings > 0 ? 1 : 0;
}

function viewOf(values: Values, { stderr }: World): ProgressView | undefined {
  const wish = values.quiet ? 'quiet' : (values.progress ?? 'auto');
  if (wish === 'quiet') return undefined;
  if (wish !== 'auto' && wish !== 'plain')
    throw new Usage({ why: `--progress ${wish} is unknown: auto, plain or quiet` });
  const screen = {
    write: (text: string) => void stderr.write(text),
    columns: stderr.columns ?? 80,
    now: () => performance.now(),
  };
  return wish === 'auto' && stderr.isTTY ? new LiveProgress(screen) : new PlainProgress(screen);
}

async function writeTo(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(missing))?.isDirectory() ?? false;
}

async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function missing(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
  throw error;
}
