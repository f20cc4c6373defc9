import { HELP } from '#cli/args.ts';
import { groupsOf } from '#cli/help.ts';
import { findVerb, GLOBAL_FLAGS } from '#cli/main.ts';
import type { ArgumentKind, Command, Flag, Invocation, Verb } from '#cli/verb.ts';

/** What may stand at the cursor. `words` are those before it, without `estiba`; `current` is what is there already. */
export type Completion = { is: 'words'; words: string[] } | { is: 'names'; of: ArgumentKind };

/** Pure: everything comes from the table. */
export function complete(verbs: readonly Verb[], words: readonly string[], current: string): Completion {
  const rest = withoutGlobals(words);
  const found = findVerb(verbs, rest);
  if (
    !found ||
    (found.words.length === 0 &&
      rest.length === 1 &&
      groupsOf(verbs).includes(rest[0] ?? '') &&
      !current.startsWith('-'))
  )
    return { is: 'words', words: nextWords(verbs, rest, current) };
  const { verb, words: own } = found;
  const before = own.at(-1) ?? '';
  const flag = flagOf(verb.flags, before);
  if (flag && flag.type !== 'bool')
    return flag.values ? { is: 'words', words: [...flag.values] } : { is: 'names', of: flag.complete ?? 'none' };
  if (current.startsWith('-')) return { is: 'words', words: [...verb.flags, HELP].map((f) => `--${f.name}`).sort() };
  return { is: 'names', of: verb.args.kind };
}

function nextWords(verbs: readonly Verb[], rest: readonly string[], current: string): string[] {
  if (current.startsWith('-')) return GLOBAL_FLAGS.map((f) => `--${f.name}`);
  const names = verbs.flatMap((v) => [v.name, ...(v.aliases ?? [])]);
  const prefix = rest.length === 0 ? '' : `${rest.join(' ')} `;
  const next = names.filter((n) => n.startsWith(prefix)).map((n) => n.slice(prefix.length).split(' ')[0] ?? '');
  return [...new Set(next)].sort();
}

function withoutGlobals(words: readonly string[]): string[] {
  const out = [...words];
  while (out[0]?.startsWith('-')) {
    const flag = flagOf(GLOBAL_FLAGS, out.shift() ?? '');
    if (flag && flag.type !== 'bool') out.shift();
  }
  return out;
}

function flagOf(flags: readonly Flag[], word: string): Flag | undefined {
  if (word.startsWith('--')) return flags.find((f) => `--${f.name}` === word);
  return /^-\w+$/.test(word) ? flags.find((f) => f.short === word.at(-1)) : undefined;
}

/** `estiba __complete CURRENT WORDS…`: what the shells' scripts call. One candidate a line. */
export function completeCommand(verbs: () => readonly Verb[]): Command {
  return async (call) => {
    const [current = '', ...words] = call.args;
    const found = complete(verbs(), words, current);
    const candidates = found.is === 'words' ? found.words : await namesOf(call, found.of);
    const shown = candidates.filter((c) => c.startsWith(current));
    // Files are the shell's own affair.
    call.io.stdout.write(found.is === 'names' && found.of === 'file' ? ':file\n' : shown.map((c) => `${c}\n`).join(''));
    return 0;
  };
}

async function namesOf({ engine }: Invocation, kind: ArgumentKind): Promise<string[]> {
  try {
    switch (kind) {
      case 'container':
      case 'running': {
        const all = await engine.json<{ Names: string[] }[]>({
          path: '/containers/json',
          query: { all: kind === 'container' || undefined },
        });
        return all.flatMap((c) => c.Names.map((n) => n.replace(/^\//, '')));
      }
      case 'image': {
        const images = await engine.json<{ RepoTags: string[] | null }[]>({ path: '/images/json' });
        return images.flatMap((i) => i.RepoTags ?? []);
      }
      case 'network':
        return (await engine.json<{ Name: string }[]>({ path: '/networks' })).map((n) => n.Name);
      case 'volume':
        return ((await engine.json<{ Volumes: { Name: string }[] | null }>({ path: '/volumes' })).Volumes ?? []).map(
          (v) => v.Name,
        );
      default:
        return [];
    }
  } catch {
    return []; // a shell waiting for candidates has no place for an error
  }
}

const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `_estiba() {
  local current=\${COMP_WORDS[COMP_CWORD]} found
  found=$(estiba __complete "$current" "\${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
  if [ "$found" = :file ]; then COMPREPLY=($(compgen -f -- "$current")); else COMPREPLY=($(compgen -W "$found" -- "$current")); fi
}
complete -o bashdefault -F _estiba estiba
`,
  zsh: `#compdef estiba
_estiba() {
  local found
  found=$(estiba __complete "\${words[CURRENT]}" "\${(@)words[2,CURRENT-1]}" 2>/dev/null)
  if [[ $found == :file ]]; then _files; else compadd -- \${(f)found}; fi
}
compdef _estiba estiba
`,
  fish: `function __estiba_complete
  set -l before (commandline -opc)
  set -l found (estiba __complete (commandline -ct) $before[2..-1] 2>/dev/null)
  if test "$found" = :file; __fish_complete_path (commandline -ct); else; printf '%s\\n' $found; end
end
complete -c estiba -f -a '(__estiba_complete)'
`,
};

export const completionCommand: Command = async ({ args, io }) => {
  io.stdout.write(SCRIPTS[args[0] ?? ''] ?? '');
  return SCRIPTS[args[0] ?? ''] === undefined ? 1 : 0;
};
