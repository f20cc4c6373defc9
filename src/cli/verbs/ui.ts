import { bool, NO_ARGUMENTS } from '#cli/flags.ts';
import type { Verb } from '#cli/verb.ts';

export const UI_VERBS: readonly Verb[] = [
  {
    name: 'ui',
    summary: 'Print a link to the dashboard, good once and for a minute, and open it where there is a browser',
    usage: '',
    args: NO_ARGUMENTS,
    flags: [bool('no-open', 'Print the link alone')],
    load: async () => (await import('#cli/commands/ui.ts')).uiCommand,
  },
];
