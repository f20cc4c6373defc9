import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdtemp, readdir, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { promisify } from 'node:util';
import { isCode } from '#base/errors.ts';
import type { FileStore } from '#build/context/files.ts';
import { ContextTree } from '#build/context/tree.ts';
import { infoOf } from '#build/copy/mounted.ts';
import { FetchFailed } from '#build/errors.ts';
import type { Digest } from '#spec/image/digest.ts';

/** Seconds that a server may be silent. */
const SILENT_MS = 60_000;
const URL_FILE_MODE = 0o600;

/** A file from a URL, as a tree of one (Dockerfile reference, "Adding files from a URL": mode 600, the server's time). */
export async function fetchFile(
  url: string,
  name: string,
  checksum: string | undefined,
  files: FileStore,
  secrets: ReadonlyMap<string, Buffer>,
  signal: AbortSignal,
): Promise<ContextTree> {
  const response = await fetch(url, {
    headers: authorization(url, secrets),
    signal: AbortSignal.any([signal, AbortSignal.timeout(SILENT_MS * 10)]),
  }).catch((cause: unknown) => {
    signal.throwIfAborted();
    throw new FetchFailed({ url, why: reason(cause) }, { cause });
  });
  if (!response.ok || !response.body) throw new FetchFailed({ url, why: `the server answered ${response.status}` });
  const [algorithm = 'sha256', expected] = checksum?.split(':') ?? [];
  const hash = createHash(algorithm);
  const hashed = async function* (body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of body) {
      hash.update(chunk);
      yield chunk;
    }
  };
  const { digest, sizeBytes } = await files.copy(hashed(response.body));
  const actual = hash.digest('hex');
  if (expected !== undefined && actual !== expected) {
    await files.remove(digest);
    throw new FetchFailed({ url, why: `its ${algorithm} is ${actual}, not ${expected}` });
  }
  const modified = Date.parse(response.headers.get('last-modified') ?? '');
  return treeOfFile(name, digest, sizeBytes, Number.isNaN(modified) ? 0 : Math.floor(modified / 1000));
}

/** Secrets `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>` (Dockerfile reference, "Adding files from a URL"). */
function authorization(url: string, secrets: ReadonlyMap<string, Buffer>): Record<string, string> {
  const { host } = new URL(url);
  const header = secrets.get(`HTTP_AUTH_HEADER_${host}`);
  const token = secrets.get(`HTTP_AUTH_TOKEN_${host}`);
  if (header) return { Authorization: header.toString().trim() };
  return token ? { Authorization: `Bearer ${token.toString().trim()}` } : {};
}

function treeOfFile(name: string, digest: Digest, size: number, mtimeSec: number): ContextTree {
  const tree = new ContextTree();
  const nobody = { uid: 0, gid: 0, linkTarget: '', deviceMajor: 0, deviceMinor: 0 };
  tree.add(name, { type: 'file', mode: URL_FILE_MODE, size, mtimeSec, digest, ...nobody });
  return tree;
}

export interface GitSource {
  remote: string;
  ref: string;
  subdirectory: string;
}

/** `URL#ref:directory`, and the query form `URL?ref=…&subdir=…`. */
export function parseGitUrl(url: string): GitSource {
  const hash = url.indexOf('#');
  const remote = hash < 0 ? url : url.slice(0, hash);
  const [ref = '', subdirectory = ''] = hash < 0 ? [] : url.slice(hash + 1).split(/:(.*)/s);
  return { remote, ref, subdirectory: posix.resolve('/', subdirectory).slice(1) };
}

/** A repository's files, by the host's git: modes 644 and 755, no owner, no times but the commit's. */
export async function cloneGit(
  url: string,
  keepGitDir: boolean,
  files: FileStore,
  signal: AbortSignal,
): Promise<ContextTree> {
  const source = parseGitUrl(url);
  const directory = await mkdtemp(join(tmpdir(), 'estiba-git-'));
  const git = async (...args: string[]): Promise<string> => {
    try {
      const { stdout } = await promisify(execFile)('git', ['-C', directory, ...GIT_SAFE, ...args], {
        env: gitEnv(),
        signal,
      });
      return stdout;
    } catch (cause) {
      signal.throwIfAborted();
      const { stderr = '' } = cause as { stderr?: string };
      throw new FetchFailed({ url, why: stderr.trim().split('\n').at(-1) || reason(cause) }, { cause });
    }
  };
  try {
    await git('init', '--quiet', '.');
    const shallow = ['fetch', '--quiet', '--depth=1', '--no-tags', '--', source.remote, source.ref || 'HEAD'];
    try {
      await git(...shallow);
    } catch (error) {
      // Not every server gives a commit by its number: then all of it comes.
      if (!isCode(error, 'BUILD_FETCH') || !/^[0-9a-f]{7,64}$/.test(source.ref)) throw error;
      await git('fetch', '--quiet', '--tags', '--', source.remote, '+refs/heads/*:refs/remotes/origin/*');
      await git('update-ref', 'FETCH_HEAD', source.ref);
    }
    await git('checkout', '--quiet', '--detach', 'FETCH_HEAD');
    const seconds = Number((await git('log', '-1', '--format=%ct')).trim());
    if (!keepGitDir) await rm(join(directory, '.git'), { recursive: true });
    return await importDirectory(join(directory, source.subdirectory), files, seconds, url);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A repository must not run anything on this host, or read its files. */
const GIT_SAFE = ['-c', 'protocol.file.allow=user', '-c', 'core.hooksPath=/dev/null', '-c', 'core.symlinks=true'];

function gitEnv(): NodeJS.ProcessEnv {
  return { ...process.env, GIT_TERMINAL_PROMPT: '0', GIT_CONFIG_NOSYSTEM: '1', LC_ALL: 'C' };
}

async function importDirectory(root: string, files: FileStore, mtimeSec: number, url: string): Promise<ContextTree> {
  const tree = new ContextTree();
  const pending = [''];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const path = join(root, at);
    const stat = await lstat(path).catch((cause: unknown) => {
      throw new FetchFailed({ url, why: `there is no directory ${at || posix.basename(root)} in it` }, { cause });
    });
    const info = { ...infoOf(stat, stat.isSymbolicLink() ? await readlink(path) : ''), uid: 0, gid: 0, mtimeSec };
    const mode = info.type === 'symlink' ? 0o777 : info.type === 'dir' || (info.mode & 0o100) !== 0 ? 0o755 : 0o644;
    if (info.type === 'file') {
      const { digest } = await files.copy(createReadStream(path));
      tree.add(at, { ...info, mode, digest });
      continue;
    }
    if (at !== '' || info.type === 'dir') tree.add(at, { ...info, mode });
    if (info.type === 'dir') for (const name of await readdir(path)) pending.push(at === '' ? name : `${at}/${name}`);
  }
  return tree;
}

function reason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}
