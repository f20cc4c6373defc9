import { spawn } from 'node:child_process';
import { lstatSync, mkdirSync, statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf } from '#base/errors.ts';
import { CliUsage, ExitWith } from '#cli/errors.ts';
import type { Command, Flags, Io } from '#cli/verb.ts';
import { type EngineClient, refusedStatus } from '#engine/client/client.ts';

/** `CONTAINER:PATH`, or undefined for a path of ours. */
function inContainer(written: string): { container: string; path: string } | undefined {
  const colon = written.indexOf(':');
  // `./a:b` and `/a:b` are paths that have a colon.
  if (colon <= 0 || /^[./]/.test(written)) return undefined;
  return { container: written.slice(0, colon), path: written.slice(colon + 1) };
}

export const copyCommand: Command = async ({ flags, args, io, engine }) => {
  const [from = '', to = ''] = args;
  const [source, target] = [inContainer(from), inContainer(to)];
  if (source && target) throw new CliUsage({ why: 'copying between containers is not supported' });
  if (!source && !target) throw new CliUsage({ why: 'must specify at least one container source' });
  if (source) await copyOut(engine, source, to, flags, io);
  else if (target) await copyIn(engine, from, target, flags, io);
  return 0;
};

const archiveOf = (container: string): string => `/containers/${encodeURIComponent(container)}/archive`;

async function copyOut(
  engine: EngineClient,
  source: { container: string; path: string },
  to: string,
  flags: Flags,
  io: Io,
): Promise<void> {
  const body = await engine.open({
    path: archiveOf(source.container),
    query: { path: await followed(engine, source, flags) },
  });
  if (to === '-') {
    await pipeline(body, io.stdout, { end: false });
    return;
  }
  const target = resolve(io.cwd, to);
  const name = basename(source.path.replace(/\/\.?$/, '')) || '/';
  const contents = /\/\.$/.test(source.path) || name === '/';
  // The contents of a folder come into one that is made for them.
  if (contents && !statOf(target)) mkdirSync(target);
  const isFolder = statOf(target)?.isDirectory() ?? false;
  const parent = isFolder ? target : dirname(target);
  if (!statOf(parent)?.isDirectory())
    throw new ExitWith({ code: 1, says: `invalid output path: directory ${JSON.stringify(parent)} does not exist` });
  // What comes is called as it is called there: renamed when the target has a name of its own.
  const own = contents ? `--transform=s,^${quote(name)}/*,./,` : undefined;
  const rename = isFolder ? own : `--transform=s,^${quote(name)},${replacement(basename(target))},`;
  await untar(body, parent, [
    ...(rename === undefined ? [] : [rename]),
    flags.on('archive') ? '--same-owner' : '--no-same-owner',
  ]);
  if (!flags.on('quiet')) io.stderr.write(`Successfully copied from ${source.container}:${source.path} to ${to}\n`);
}

/** `-L`: where a link in the container leads. */
async function followed(
  engine: EngineClient,
  { container, path }: { container: string; path: string },
  flags: Flags,
): Promise<string> {
  if (!flags.on('follow-link')) return path;
  const { linkTarget } = await statIn(engine, container, path);
  return linkTarget === '' || linkTarget === undefined ? path : linkTarget;
}

async function statIn(
  engine: EngineClient,
  container: string,
  path: string,
): Promise<{ mode: number; linkTarget?: string }> {
  const response = await engine.open({ method: 'HEAD', path: archiveOf(container), query: { path } });
  response.resume();
  const header = String(response.headers['x-docker-container-path-stat'] ?? '');
  return JSON.parse(Buffer.from(header, 'base64').toString('utf8')) as { mode: number; linkTarget?: string };
}

// Go's os.FileMode has the directory bit here.
const GO_DIRECTORY = 2 ** 31;

async function isFolderIn(engine: EngineClient, container: string, path: string): Promise<boolean | undefined> {
  try {
    return (await statIn(engine, container, path)).mode >= GO_DIRECTORY;
  } catch (error) {
    if (refusedStatus(error) === 404) return undefined;
    throw error;
  }
}

async function copyIn(
  engine: EngineClient,
  from: string,
  target: { container: string; path: string },
  flags: Flags,
  io: Io,
): Promise<void> {
  const { container, path } = target;
  const isFolder = await isFolderIn(engine, container, path);
  if (from === '-') {
    if (!isFolder) throw new ExitWith({ code: 1, says: `destination "${container}:${path}" must be a directory` });
    await put(engine, container, path, io.stdin, flags);
    return;
  }
  const source = resolve(io.cwd, from);
  const own = flags.on('follow-link') ? statOf(source) : lstatOf(source);
  if (!own) throw new ExitWith({ code: 1, says: `lstat ${source}: no such file or directory` });
  if (path.endsWith('/') && isFolder === undefined && !own.isDirectory())
    throw new ExitWith({ code: 1, says: `no such directory: ${container}:${path}` });
  if (own.isDirectory() && isFolder === false) throw new ExitWith({ code: 1, says: 'cannot copy directory to a file' });
  const contents = own.isDirectory() && (/\/\.$/.test(from) || isFolder === undefined);
  const [folder, name] = isFolder ? [path, basename(source)] : [posixParent(path), basename(path.replace(/\/+$/, ''))];
  const inside = isFolder && contents ? '.' : name;
  const deref = flags.on('follow-link') ? ['--dereference'] : [];
  const owner = flags.on('archive') ? [] : ['--owner=0', '--group=0', '--numeric-owner'];
  // From the parent under the name it gets; of a folder whose contents are meant, from inside.
  const args = contents
    ? [
        '-C',
        source,
        ...deref,
        ...owner,
        ...(inside === '.' ? [] : [`--transform=s,^\\.,${replacement(inside)},S`]),
        '-cf',
        '-',
        '.',
      ]
    : [
        '-C',
        dirname(source),
        ...deref,
        ...owner,
        `--transform=s,^${quote(basename(source))},${replacement(inside)},S`,
        '-cf',
        '-',
        basename(source),
      ];
  await put(engine, container, folder, tar(args), flags);
  if (!flags.on('quiet')) io.stderr.write(`Successfully copied ${from} to ${container}:${path}\n`);
}

function posixParent(path: string): string {
  return dirname(path.replace(/\/+$/, '')) || '/';
}

function put(
  engine: EngineClient,
  container: string,
  path: string,
  body: AsyncIterable<Uint8Array> | NodeJS.ReadStream,
  flags: Flags,
): Promise<void> {
  return engine.send({
    method: 'PUT',
    path: archiveOf(container),
    query: { path, noOverwriteDirNonDir: true, copyUIDGID: flags.on('archive') || undefined },
    body: body as AsyncIterable<Uint8Array>,
    headers: { 'Content-Type': 'application/x-tar' },
  });
}

/** A tar of files of this machine, as its own tar makes it: sparse files, links, times. */
async function* tar(args: readonly string[]): AsyncGenerator<Buffer> {
  const child = spawn('tar', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = outcome(child);
  yield* child.stdout as AsyncIterable<Buffer>;
  await ended;
}

async function untar(body: Readable, folder: string, options: readonly string[]): Promise<void> {
  const child = spawn('tar', ['-x', '-C', folder, ...options, '-f', '-'], { stdio: ['pipe', 'ignore', 'pipe'] });
  const ended = outcome(child);
  await pipeline(body, child.stdin);
  await ended;
}

function outcome(child: ReturnType<typeof spawn>): Promise<void> {
  let said = '';
  child.stderr?.on('data', (part: Buffer) => {
    said = (said + part.toString()).slice(-500);
  });
  return new Promise((resolve_, reject) => {
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve_() : reject(new ExitWith({ code: 1, says: `tar: ${said.trim()}` })),
    );
  });
}

function statOf(path: string): ReturnType<typeof statSync> | undefined {
  return unlessMissing(() => statSync(path));
}

function lstatOf(path: string): ReturnType<typeof lstatSync> | undefined {
  return unlessMissing(() => lstatSync(path));
}

function unlessMissing<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** Text in tar's `s,…,…,`: a basic regular expression, and what stands for it. */
function quote(text: string): string {
  return text.replace(/[\\.*[\]^$,]/g, '\\$&');
}

function replacement(text: string): string {
  return text.replace(/[\\&,]/g, '\\$&');
}
