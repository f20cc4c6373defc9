import { spawn } from 'node:child_process';
import { createReadStream, createWriteStream, existsSync, openSync, type ReadStream, statSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { isCode, messageOf } from '#base/errors.ts';
import { stamp } from '#cli/commands/containers.ts';
import { type ProgressLine, showProgress, splitImage } from '#cli/commands/pull.ts';
import { confirmed } from '#cli/confirm.ts';
import { CliUsage, ExitWith } from '#cli/errors.ts';
import { filtersOf } from '#cli/filters.ts';
import { ago, bytes, printList, shortId } from '#cli/output.ts';
import type { Command, Flags } from '#cli/verb.ts';

interface Image {
  Id: string;
  RepoTags: string[] | null;
  RepoDigests: string[] | null;
  Created: number;
  Size: number;
  Containers: number;
  SharedSize: number;
}
interface Row extends Image {
  repository: string;
  tag: string;
  digest: string;
}

export const imagesCommand: Command = async ({ flags, args, io, engine }) => {
  const wanted = args[0] === undefined ? {} : { reference: [args[0]] };
  const images = await engine.json<Image[]>({
    path: '/images/json',
    query: { all: flags.on('all') || undefined, filters: filtersOf(flags, wanted) },
  });
  const rows = images.flatMap(rowsOf);
  const id = (r: Row): string => (flags.on('no-trunc') ? r.Id : shortId(r.Id));
  const columns = [
    { name: 'Repository', head: 'REPOSITORY', value: (r: Row) => r.repository },
    { name: 'Tag', head: 'TAG', value: (r: Row) => r.tag },
    { name: 'Digest', head: 'DIGEST', value: (r: Row) => r.digest },
    { name: 'ID', head: 'IMAGE ID', value: id },
    { name: 'CreatedSince', head: 'CREATED', value: (r: Row) => ago(io.now() - r.Created * 1000) },
    { name: 'CreatedAt', head: 'CREATED AT', value: (r: Row) => stamp(r.Created * 1000) },
    { name: 'Size', head: 'SIZE', value: (r: Row) => bytes(r.Size, 3) },
    { name: 'Containers', head: 'CONTAINERS', value: (r: Row) => (r.Containers < 0 ? 'N/A' : String(r.Containers)) },
    { name: 'SharedSize', head: 'SHARED SIZE', value: (r: Row) => (r.SharedSize < 0 ? 'N/A' : bytes(r.SharedSize, 3)) },
    {
      name: 'UniqueSize',
      head: 'UNIQUE SIZE',
      value: (r: Row) => (r.SharedSize < 0 ? 'N/A' : bytes(r.Size - r.SharedSize, 3)),
    },
    { name: 'VirtualSize', head: 'SIZE', value: (r: Row) => bytes(r.Size, 3) },
  ];
  const shown = ['Repository', 'Tag', ...(flags.on('digests') ? ['Digest'] : []), 'ID', 'CreatedSince', 'Size'];
  // One image of several names is one id.
  const listed = flags.on('quiet') ? [...new Map(rows.map((r) => [r.Id, r])).values()] : rows;
  printList(io, flags, listed, { columns, shown, quiet: id });
  return 0;
};

function rowsOf(image: Image): Row[] {
  const digestOf = (name: string): string =>
    (image.RepoDigests ?? []).find((d) => d.startsWith(`${name}@`))?.split('@')[1] ?? '<none>';
  const names = (image.RepoTags ?? []).filter((t) => t !== '<none>:<none>');
  if (names.length === 0) {
    const [name, digest] = (image.RepoDigests ?? [])[0]?.split('@') ?? [];
    return [{ ...image, repository: name ?? '<none>', tag: '<none>', digest: digest ?? '<none>' }];
  }
  return names.sort().map((written) => {
    const { name, tag } = splitImage(written);
    return { ...image, repository: name, tag, digest: digestOf(name) };
  });
}

export const tagCommand: Command = async ({ args, engine }) => {
  const [source = '', target = ''] = args;
  const { name, tag } = splitImage(target);
  await engine.send({ method: 'POST', path: `/images/${source}/tag`, query: { repo: name, tag: tag || undefined } });
  return 0;
};

export const removeImageCommand: Command = async ({ flags, args, io, engine }) => {
  let code = 0;
  const query = { force: flags.on('force') || undefined, noprune: flags.on('no-prune') || undefined };
  for (const name of args) {
    try {
      const gone = await engine.json<{ Untagged?: string; Deleted?: string }[]>({
        method: 'DELETE',
        path: `/images/${name}`,
        query,
      });
      for (const { Untagged, Deleted } of gone)
        io.stdout.write(Untagged ? `Untagged: ${Untagged}\n` : `Deleted: ${Deleted}\n`);
    } catch (error) {
      if (!isCode(error, 'REQUEST_REFUSED')) throw error;
      io.stderr.write(`Error response from daemon: ${error.message}\n`);
      if (!flags.on('force')) code = 1;
    }
  }
  return code;
};

interface HistoryRow {
  Id: string;
  Created: number;
  CreatedBy: string;
  Size: number;
  Comment: string;
}

export const historyCommand: Command = async ({ flags, args, io, engine }) => {
  const rows = await engine.json<HistoryRow[]>({
    path: `/images/${args[0] ?? ''}/history`,
    query: { platform: flags.text('platform') },
  });
  const whole = flags.on('no-trunc');
  const human = !flags.has('human') || flags.on('human');
  const id = (r: HistoryRow): string => (whole ? r.Id : r.Id === '<missing>' ? r.Id : shortId(r.Id));
  const by = (text: string): string => {
    const line = text.replaceAll('\t', ' ');
    return whole || line.length <= 45 ? line : `${line.slice(0, 44)}…`;
  };
  const columns = [
    { name: 'ID', head: 'IMAGE', value: id },
    {
      name: 'CreatedSince',
      head: 'CREATED',
      value: (r: HistoryRow) =>
        human ? ago(io.now() - r.Created * 1000) : new Date(r.Created * 1000).toISOString().replace('.000Z', 'Z'),
    },
    {
      name: 'CreatedAt',
      head: 'CREATED AT',
      value: (r: HistoryRow) => new Date(r.Created * 1000).toISOString().replace('.000Z', 'Z'),
    },
    { name: 'CreatedBy', head: 'CREATED BY', value: (r: HistoryRow) => by(r.CreatedBy) },
    { name: 'Size', head: 'SIZE', value: (r: HistoryRow) => (human ? bytes(r.Size, 3) : String(r.Size)) },
    { name: 'Comment', head: 'COMMENT', value: (r: HistoryRow) => r.Comment },
  ];
  printList(io, flags, rows, { columns, shown: ['ID', 'CreatedSince', 'CreatedBy', 'Size', 'Comment'], quiet: id });
  return 0;
};

export const saveCommand: Command = async ({ flags, args, io, engine }) => {
  const body = await engine.open({ path: '/images/get', query: { names: args, platform: flags.text('platform') } });
  const output = flags.text('output');
  if (output !== undefined && isDirectory(output)) await tar(['-xf', '-', '-C', output], body);
  else await intoFile(body, flags, io.stdout);
  return 0;
};

export const exportCommand: Command = async ({ flags, args, io, engine }) => {
  const body = await engine.open({ path: `/containers/${encodeURIComponent(args[0] ?? '')}/export` });
  await intoFile(body, flags, io.stdout);
  return 0;
};

async function intoFile(body: NodeJS.ReadableStream, flags: Flags, stdout: NodeJS.WriteStream): Promise<void> {
  const output = flags.text('output');
  if (output === undefined && stdout.isTTY)
    throw new CliUsage({ why: 'cowardly refusing to write an archive to a terminal. Use the -o flag or redirect' });
  if (output === undefined) await pipeline(body, stdout, { end: false });
  else await pipeline(body, createWriteStream(output));
}

/** What we save and load is an OCI layout as a tar: a directory holds the same, unpacked. */
function isDirectory(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

/** Runs tar(1) on what comes in, to its end. */
function tar(args: readonly string[], input: NodeJS.ReadableStream): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('tar', args, { stdio: ['pipe', 'inherit', 'inherit'] });
    const fed = pipeline(input, child.stdin);
    fed.catch(() => undefined); // tar's own status says more of a pipe that broke; awaited where it has none
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? fed.then(resolve, reject) : reject(new ExitWith({ code: 1, says: `tar ends with status ${code}` })),
    );
  });
}

/** Opened before anything is sent: a file that is not there would break the request, and that looks like a daemon's failure. */
function fileAt(path: string): ReadStream {
  try {
    return createReadStream(path, { fd: openSync(path, 'r') });
  } catch (cause) {
    throw new ExitWith({ code: 1, says: messageOf(cause) }, { cause });
  }
}

async function* tarOf(directory: string): AsyncGenerator<Uint8Array> {
  const child = spawn('tar', ['-C', directory, '-cf', '-', '.'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
  yield* child.stdout;
  const code = await ended;
  if (code !== 0) throw new ExitWith({ code: 1, says: `tar of ${directory} ends with status ${code}` });
}

export const loadCommand: Command = async ({ flags, io, engine }) => {
  const input = flags.text('input');
  if (input === undefined && io.stdin.isTTY)
    throw new CliUsage({ why: 'requested load from stdin, but stdin is empty' });
  const body = input === undefined ? io.stdin : isDirectory(input) ? tarOf(input) : fileAt(input);
  const lines = engine.lines<ProgressLine>({
    method: 'POST',
    path: '/images/load',
    query: { quiet: flags.on('quiet') || undefined, platform: flags.text('platform') },
    body: body as AsyncIterable<Uint8Array>,
    headers: { 'Content-Type': 'application/x-tar' },
  });
  await showProgress(lines, io, false);
  return 0;
};

export const importCommand: Command = async ({ flags, args, io, engine }) => {
  const [source = '-', reference = ''] = args;
  const { name, tag } = splitImage(reference);
  const remote = /^https?:\/\//.test(source);
  const lines = engine.lines<ProgressLine>({
    method: 'POST',
    path: '/images/create',
    query: {
      fromSrc: remote ? source : '-',
      repo: name || undefined,
      tag: tag || undefined,
      message: flags.text('message'),
      changes: flags.list('change'),
      platform: flags.text('platform'),
    },
    ...(remote ? {} : { body: (source === '-' ? io.stdin : fileAt(source)) as AsyncIterable<Uint8Array> }),
    headers: { 'Content-Type': 'application/x-tar' },
  });
  await showProgress(lines, io, false);
  return 0;
};

export const pruneImagesCommand: Command = async ({ flags, io, engine }) => {
  const all = flags.on('all');
  const what = all ? 'all images without at least one container associated to them' : 'all dangling images';
  if (!(await confirmed(flags, io, `WARNING! This will remove ${what}.`))) return 0;
  const { ImagesDeleted, SpaceReclaimed } = await engine.json<{
    ImagesDeleted: { Untagged?: string; Deleted?: string }[] | null;
    SpaceReclaimed: number;
  }>({ method: 'POST', path: '/images/prune', query: { filters: filtersOf(flags, { dangling: [String(!all)] }) } });
  if (ImagesDeleted && ImagesDeleted.length > 0) {
    io.stdout.write('Deleted Images:\n');
    for (const { Untagged, Deleted } of ImagesDeleted)
      io.stdout.write(Untagged ? `untagged: ${Untagged}\n` : `deleted: ${Deleted}\n`);
    io.stdout.write('\n');
  }
  io.stdout.write(`Total reclaimed space: ${bytes(SpaceReclaimed)}\n`);
  return 0;
};

export const searchCommand: Command = async ({ args }) => {
  throw new ExitWith({
    code: 1,
    says: `search is not there: it asks Docker Hub's own index, and registries have none (searched for ${args[0] ?? ''}); pull by the full name`,
  });
};
