import { Readable } from 'node:stream';
import { receiveTar } from '#build/context/receive.ts';
import { cloneGit } from '#build/context/remote.ts';
import { ContextTree, treeSource } from '#build/context/tree.ts';
import { HEAD_BYTES, packingOf, peek, unpacked } from '#build/context/unpack.ts';
import { readText } from '#build/copy/resolve.ts';
import { BadBuildOption, ContextInvalid, FetchFailed } from '#build/errors.ts';
import type { BuildNode } from '#build/node.ts';
import { parseIgnore } from '#spec/dockerfile/ignore.ts';

export interface Received {
  context: ContextTree;
  /** The Dockerfile's name in the context. */
  name: string;
  /** Its text, when it came by itself. */
  text?: string;
}

const IGNORE_MAX_BYTES = 1024 * 1024;

/** A context as the classic API takes it: a tar, packed or not. */
export async function receiveContext(
  body: AsyncIterable<Uint8Array>,
  dockerfile: string,
  node: Pick<BuildNode, 'files'>,
): Promise<Received> {
  const { head, whole } = await peek(body, HEAD_BYTES);
  const packing = packingOf(head);
  if (!packing) {
    if (head.length === 0 || head.every((byte) => byte === 0)) return { context: new ContextTree(), name: dockerfile };
    throw new ContextInvalid({ path: 'what was sent', rule: 'is no tar archive' });
  }
  const context = await receiveTar(unpacked(packing, whole, 'the build context'), node.files, {
    what: 'the build context',
  });
  await hideOwnFiles(context, dockerfile, node);
  return { context, name: dockerfile };
}

/**
 * Clients send `Dockerfile` and `.dockerignore` whatever the latter says, since the builder needs them; what it says is that no
 * COPY should see them.
 */
async function hideOwnFiles(context: ContextTree, dockerfile: string, node: Pick<BuildNode, 'files'>): Promise<void> {
  const source = treeSource(context, 'the build context', (digest) => node.files.open(digest));
  const own = await readText(source, `${dockerfile}.dockerignore`, IGNORE_MAX_BYTES);
  const text = own === '' ? await readText(source, '.dockerignore', IGNORE_MAX_BYTES) : own;
  if (text === '') return;
  const ignore = parseIgnore(text, own === '' ? '.dockerignore' : `${dockerfile}.dockerignore`);
  for (const name of ['.dockerignore', dockerfile]) context.hide(name, ignore.isIgnored(name));
}

/** `remote`: a repository, a packed context at a URL, or a Dockerfile alone. */
export async function receiveRemote(
  remote: string,
  dockerfile: string,
  body: Readable,
  node: Pick<BuildNode, 'files'>,
  signal: AbortSignal,
): Promise<Received> {
  body.resume();
  if (remote === 'client-session')
    throw new BadBuildOption({
      option: 'remote',
      value: remote,
      rule: "BuildKit's session protocol is not spoken here",
    });
  if (!/^https?:\/\//.test(remote) || /\.git(?:#.*)?$/.test(remote)) {
    const context = await cloneGit(withScheme(remote), false, node.files, signal);
    await ignoreFiles(context, dockerfile, node);
    return { context, name: dockerfile };
  }
  const response = await fetch(remote, { signal }).catch((cause: unknown) => {
    throw new FetchFailed(
      { url: remote, why: String(cause instanceof Error && cause.cause ? cause.cause : cause) },
      { cause },
    );
  });
  if (!response.ok || !response.body)
    throw new FetchFailed({ url: remote, why: `the server answered ${response.status}` });
  const { head, whole } = await peek(
    Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]),
    HEAD_BYTES,
  );
  if (!packingOf(head)) {
    const chunks: Uint8Array[] = [];
    for await (const chunk of whole) chunks.push(chunk);
    return { context: new ContextTree(), name: dockerfile, text: Buffer.concat(chunks).toString() };
  }
  const received = await receiveContext(whole, dockerfile, node);
  await ignoreFiles(received.context, dockerfile, node);
  return received;
}

/** What no client has left out: all of `.dockerignore` is for us to follow. */
async function ignoreFiles(context: ContextTree, dockerfile: string, node: Pick<BuildNode, 'files'>): Promise<void> {
  const source = treeSource(context, 'the build context', (digest) => node.files.open(digest));
  const text =
    (await readText(source, `${dockerfile}.dockerignore`, IGNORE_MAX_BYTES)) ||
    (await readText(source, '.dockerignore', IGNORE_MAX_BYTES));
  const ignore = parseIgnore(text);
  const gone = [...context.walk()].filter(([path, node]) => node.type !== 'dir' && ignore.isIgnored(path));
  for (const [path] of gone) if (path !== dockerfile && path !== '.dockerignore') context.remove(path);
  await hideOwnFiles(context, dockerfile, node);
}

/** `github.com/user/repo`: Docker's short form. */
function withScheme(remote: string): string {
  return /^github\.com\//.test(remote) ? `https://${remote}` : remote;
}
