import { ExitWith } from '#cli/errors.ts';
import { bytes } from '#cli/output.ts';
import { authHeader, registryOf } from '#cli/registry-auth.ts';
import type { Command, Io } from '#cli/verb.ts';
import type { EngineClient } from '#engine/client/client.ts';

export interface ProgressLine {
  id?: string;
  status?: string;
  stream?: string;
  progressDetail?: { current?: number; total?: number };
  error?: string;
  errorDetail?: { message?: string };
  aux?: { Tag?: string; Digest?: string; Size?: number; ID?: string };
}

export interface PullWish {
  image: string;
  platform: string | undefined;
  quiet: boolean;
  allTags: boolean;
}

/** `name`, `name:tag`, `name@digest` apart, as the API wants them. */
export function splitImage(image: string): { name: string; tag: string } {
  const at = image.indexOf('@');
  if (at >= 0) return { name: image.slice(0, at), tag: image.slice(at + 1) };
  const colon = image.lastIndexOf(':');
  return colon > image.lastIndexOf('/')
    ? { name: image.slice(0, colon), tag: image.slice(colon + 1) }
    : { name: image, tag: '' };
}

export async function pullImage(engine: EngineClient, wish: PullWish, io: Io): Promise<void> {
  const { name, tag } = splitImage(wish.image);
  const query = { fromImage: name, tag: tag === '' && !wish.allTags ? 'latest' : tag, platform: wish.platform };
  if (tag === '' && !wish.allTags && !wish.quiet) io.stdout.write('Using default tag: latest\n');
  const headers = authHeader(io, registryOf(wish.image));
  const lines = engine.lines<ProgressLine>({ method: 'POST', path: '/images/create', query, headers });
  await showProgress(lines, io, wish.quiet);
}

export const pullCommand: Command = async ({ flags, args, io, engine }) => {
  const [image = ''] = args;
  const quiet = flags.on('quiet');
  const allTags = flags.on('all-tags');
  await pullImage(engine, { image, platform: flags.text('platform'), quiet, allTags }, io);
  const { name, tag } = splitImage(image);
  io.stdout.write(`${name}${allTags ? '' : tag.includes(':') ? `@${tag}` : `:${tag || 'latest'}`}\n`);
  return 0;
};

export const pushCommand: Command = async ({ flags, args, io, engine }) => {
  const [image = ''] = args;
  const { name, tag } = splitImage(image);
  const all = flags.on('all-tags');
  if (tag === '' && !all && !flags.on('quiet')) io.stdout.write('Using default tag: latest\n');
  const query = { tag: all ? undefined : tag || 'latest', platform: flags.text('platform') };
  // The API insists on the header, whoever asks.
  const headers = { 'X-Registry-Auth': 'e30=', ...authHeader(io, registryOf(image)) };
  const lines = engine.lines<ProgressLine>({ method: 'POST', path: `/images/${name}/push`, query, headers });
  await showProgress(lines, io, flags.on('quiet'));
  if (flags.on('quiet')) io.stdout.write(`${image}\n`);
  return 0;
};

/**
 * Lines of a pull, push, load or import. On a terminal each layer has a line that is written over, with a bar; elsewhere the
 * states are told and amounts are not.
 */
export async function showProgress(lines: AsyncIterable<ProgressLine>, io: Io, quiet: boolean): Promise<void> {
  const rows = new Map<string, number>();
  const live = io.stdout.isTTY && !quiet;
  const said = new Map<string, string>();
  for await (const line of lines) {
    const error = line.errorDetail?.message ?? line.error;
    if (error !== undefined) throw new ExitWith({ code: 1, says: error });
    if (quiet) continue;
    if (line.stream !== undefined) io.stdout.write(line.stream);
    if (!line.status) continue; // a push's last line has facts for programs and an empty status
    if (line.id === undefined) io.stdout.write(`${line.status}\n`);
    else if (live) writeRow(io, rows, line.id, `${line.id}: ${line.status}${bar(line.progressDetail)}`);
    else if (said.get(line.id) !== line.status && !(line.progressDetail?.total && line.progressDetail.current)) {
      said.set(line.id, line.status);
      io.stdout.write(`${line.id}: ${line.status}\n`);
    }
  }
}

function writeRow(io: Io, rows: Map<string, number>, id: string, text: string): void {
  const known = rows.get(id);
  const row = known ?? rows.size;
  rows.set(id, row);
  const fitted = text.slice(0, Math.max(20, io.stdout.columns - 1));
  if (known === undefined) {
    io.stdout.write(`${fitted}\n`);
    return;
  }
  const up = rows.size - row;
  io.stdout.write(`\x1b[${up}A\r\x1b[2K${fitted}\x1b[${up}B\r`);
}

const BAR_WIDTH = 30;

function bar(detail: ProgressLine['progressDetail']): string {
  const { current = 0, total = 0 } = detail ?? {};
  if (total <= 0) return current > 0 ? `  ${bytes(current)}` : '';
  const full = Math.min(BAR_WIDTH, Math.floor((current / total) * BAR_WIDTH));
  return ` [${'='.repeat(full)}${full < BAR_WIDTH ? '>' : ''}${' '.repeat(Math.max(0, BAR_WIDTH - full - 1))}]  ${bytes(current)}/${bytes(total)}`;
}
