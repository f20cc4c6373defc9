import { HELP } from '#cli/args.ts';
import type { Flag, Verb } from '#cli/verb.ts';

/** `estiba VERB --help`. */
export function helpOf(verb: Verb): string {
  const hasFlags = verb.flags.length > 0;
  const aliases = [verb.name, ...(verb.aliases ?? [])].map((name) => `estiba ${name}`);
  const parts = [
    `Usage:  estiba ${verb.name}${hasFlags ? ' [OPTIONS]' : ''}${verb.usage === '' ? '' : ` ${verb.usage}`}`,
    verb.summary,
    ...(aliases.length > 1 ? [`Aliases:\n  ${aliases.join(', ')}`] : []),
    `Options:\n${flagLines([...verb.flags, HELP])}`,
  ];
  return `${parts.join('\n\n')}\n`;
}

function flagLines(flags: readonly Flag[]): string {
  const sorted = [...flags].sort((a, b) => (a.name < b.name ? -1 : 1));
  const left = sorted.map(
    (f) => `  ${f.short ? `-${f.short}, ` : '    '}--${f.name}${f.type === 'bool' ? '' : ` ${f.value ?? f.type}`}`,
  );
  const width = Math.max(...left.map((l) => l.length)) + 3;
  return sorted
    .map(
      (f, i) =>
        `${(left[i] ?? '').padEnd(width)}${f.summary}${f.values ? ` (${f.values.join(', ')})` : ''}${f.fallback ? ` (default ${f.fallback})` : ''}`,
    )
    .join('\n');
}

/** `estiba` alone, or a group such as `estiba network`. */
export function overview(verbs: readonly Verb[], group: string, more: readonly string[] = []): string {
  const words = group === '' ? 0 : 1;
  const here = verbs.flatMap((verb) => {
    const names = [verb.name, ...(verb.aliases ?? [])];
    const name = names.find((n) => n.split(' ').length === words + 1 && (group === '' || n.startsWith(`${group} `)));
    return name === undefined ? [] : [[name.split(' ').at(-1) ?? '', verb.summary] as const];
  });
  const groups = group === '' ? groupsOf(verbs) : [];
  const list = (rows: readonly (readonly [string, string])[]): string =>
    rows.map(([name, summary]) => `  ${name.padEnd(14)}${summary}`).join('\n');
  const parts = [
    `Usage:  estiba ${group === '' ? '[OPTIONS]' : group} COMMAND`,
    `Commands:\n${list([...here].sort(([a], [b]) => (a < b ? -1 : 1)))}`,
    ...(groups.length === 0 ? [] : [`Groups:\n${list(groups.map((g) => [g, `Manage: ${g} COMMAND`] as const))}`]),
    ...more,
    `Run 'estiba ${group === '' ? '' : `${group} `}COMMAND --help' for more.`,
  ];
  return `${parts.join('\n\n')}\n`;
}

export function groupsOf(verbs: readonly Verb[]): string[] {
  const found = verbs
    .flatMap((v) => [v.name, ...(v.aliases ?? [])])
    .flatMap((n) => (n.includes(' ') ? [n.split(' ')[0] ?? ''] : []));
  return [...new Set(found)].sort();
}
