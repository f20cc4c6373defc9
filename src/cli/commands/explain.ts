import { alignColumns, bytes, printInspected, shortId } from '#cli/output.ts';
import type { Command } from '#cli/verb.ts';

// The answer of `/estiba/v1/images/…/explain` as far as it is printed; `image/explain.ts` says all of it.
interface Explanation {
  id: string;
  names: string[];
  platform: string;
  bytes: number;
  visibleBytes: number;
  blobBytes: number;
  files: number;
  efficiency: number;
  wasted: { removed: number; replaced: number; copied: number; duplicated: number };
  instructions: Instruction[];
  hidden: { path: string; bytes: number; layer: number; hiddenBy: number; how: string }[];
  duplicates: { bytes: number; copies: number; files: { path: string; layer: number }[] }[];
}
interface Instruction {
  createdBy: string;
  comment: string;
  layer?: {
    position: number;
    blobBytes: number;
    contentBytes: number;
    files: number;
    added: number;
    replaced: number;
    removed: number;
    hiddenBytes: number;
    tree: TreeNode;
  };
}
interface TreeNode {
  name: string;
  bytes: number;
  children: TreeNode[];
}

export const explainImageCommand: Command = async ({ flags, args, io, engine }) => {
  const answer = await engine.json<Explanation>({
    path: `/estiba/v1/images/${encodeURIComponent(args[0] ?? '')}/explain`,
    query: { top: flags.int('top') },
  });
  if (flags.on('json')) io.stdout.write(`${JSON.stringify(answer)}\n`);
  else if (flags.has('format')) printInspected(io, flags, [answer]);
  else io.stdout.write(renderExplanation(answer, flags.on('no-trunc')));
  return 0;
};

/** Layers are numbered from 1, the lowest, in the order in which they were made. */
export function renderExplanation(image: Explanation, whole: boolean): string {
  const layers = image.instructions.flatMap(({ layer }) => layer ?? []);
  return [
    head(image, layers.length),
    section('Instructions', [
      'LAYER\tSIZE\tPACKED\tFILES\tHIDDEN\tINSTRUCTION',
      ...image.instructions.map((one) => instruction(one, whole)),
    ]),
    ...layers.map(({ position, tree }) => section(`What layer ${position + 1} holds`, branches(tree, 0))),
    section(
      'Hidden by a later layer',
      image.hidden.map(
        (h) => `${bytes(h.bytes)}\t${h.layer + 1} → ${h.hiddenBy + 1}\t${HOW[h.how] ?? h.how}\t${h.path}`,
      ),
    ),
    section(
      'The same content in several files',
      image.duplicates.map((d) => `${d.copies} × ${bytes(d.bytes)}\t${d.files.map(({ path }) => path).join(', ')}`),
    ),
  ].join('');
}

const HOW: Readonly<Record<string, string>> = {
  removed: 'removed',
  replaced: 'replaced',
  copied: 'the same again: only mode, owner or time changed',
};

function head(image: Explanation, layers: number): string {
  const { removed, replaced, copied, duplicated } = image.wasted;
  const waste = [
    ...said(removed, 'removed later'),
    ...said(replaced, 'replaced later'),
    ...said(copied, 'copied for a change of mode, owner or time'),
    ...said(duplicated, 'in further copies of files'),
  ];
  const total = removed + replaced + copied + duplicated;
  return [
    `${image.names.join(', ') || '<none>'} (${shortId(image.id)}) for ${image.platform}`,
    `${bytes(image.bytes)} in ${image.files} files of ${layers} layers, ${bytes(image.blobBytes)} packed; a container sees ${bytes(image.visibleBytes)}`,
    `efficiency ${percent(image.efficiency)}${total === 0 ? '' : `: ${bytes(total)} wasted (${waste.join(', ')})`}`,
    '',
  ].join('\n');
}

function said(count: number, how: string): string[] {
  return count === 0 ? [] : [`${bytes(count)} ${how}`];
}

/** Rounded down: what is not whole is not 100 %. */
function percent(part: number): string {
  return `${(Math.floor(part * 1000) / 10).toFixed(1)} %`;
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `\n${title}\n${alignColumns(lines, 0)}`;
}

const INSTRUCTION_MOST = 100;

function instruction({ createdBy, comment, layer }: Instruction, whole: boolean): string {
  const text = dockerfileLine(createdBy || comment || '(nothing is told)');
  const shown = whole || text.length <= INSTRUCTION_MOST ? text : `${text.slice(0, INSTRUCTION_MOST - 1)}…`;
  if (!layer) return `\t\t\t\t\t${shown}`;
  const { position, contentBytes, blobBytes, hiddenBytes } = layer;
  const hidden = hiddenBytes === 0 ? '' : bytes(hiddenBytes);
  return `${position + 1}\t${bytes(contentBytes)}\t${bytes(blobBytes)}\t${filesOf(layer)}\t${hidden}\t${shown}`;
}

/** `+12 ~3 -1`: new, in place of others, taken away. */
function filesOf({ added, replaced, removed }: NonNullable<Instruction['layer']>): string {
  const parts = [added > 0 && `+${added}`, replaced > 0 && `~${replaced}`, removed > 0 && `-${removed}`];
  return parts.filter(Boolean).join(' ') || '0';
}

/** Builders write the shell's words of a RUN; Docker's classic one wrote the rest as a comment of one. */
function dockerfileLine(createdBy: string): string {
  const line = createdBy.replaceAll(/\s+/g, ' ').trim();
  if (/^\/bin\/sh -c #\(nop\) /.test(line)) return line.replace(/^\/bin\/sh -c #\(nop\) +/, '');
  return line.replace(/^(?:RUN )?(?:\|\d+ .*?)?\/bin\/sh -c /, 'RUN ').replace(/ # buildkit$/, '');
}

function branches({ name, bytes: size, children }: TreeNode, depth: number): string[] {
  const lines = children.flatMap((child) => branches(child, depth + 1));
  return [`${bytes(size).padStart(8)}  ${'  '.repeat(depth)}${depth === 0 ? '/' : name}`, ...lines];
}
