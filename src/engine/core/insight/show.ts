import { composeService } from '#engine/core/insight/show-compose.ts';
import { dockerRun } from '#engine/core/insight/show-docker.ts';
import { pod } from '#engine/core/insight/show-kubernetes.ts';
import type { ContainerRecord } from '#engine/core/record.ts';

/** How a container would be asked for elsewhere. */
export const SHOW_FORMS = ['docker-run', 'compose', 'kubernetes'] as const;
export type ShowForm = (typeof SHOW_FORMS)[number];

/** Read when somebody asks: it takes the start of a daemon 30 ms. */
const yaml = (): Promise<typeof import('yaml')> => import('yaml');

/** Text to be run or applied as it stands; what that form cannot say stands in comments at its head. */
export async function show(record: ContainerRecord, form: ShowForm): Promise<string> {
  switch (form) {
    case 'docker-run':
      return shellText(dockerRun(record));
    case 'compose': {
      const { stringify } = await yaml();
      const { file, unsaid } = composeService(record);
      // docker-compose 1.29 reads YAML 1.1, to which 5:10 and 22:22 may be numbers of base sixty: quoted, they are text for all.
      return comments(unsaid) + stringify(file, { version: '1.1' });
    }
    case 'kubernetes': {
      const { stringify } = await yaml();
      const { objects, unsaid } = pod(record);
      return comments(unsaid) + objects.map((object) => stringify(object)).join('---\n');
    }
  }
}

function comments(unsaid: readonly string[]): string {
  // On one line each, whatever names it quotes: what comes after a line's end would be read as part of the file.
  return unsaid.map((what) => `# not said here: ${what.replaceAll(/\s+/g, ' ')}\n`).join('');
}

/** One option a line, the image and its arguments on the last; quoted where a shell would take a word apart. */
function shellText({ options, words }: { options: string[]; words: string[] }): string {
  return `${['docker run', ...options.map(quoted), words.map(quoted).join(' ')].join(' \\\n  ')}\n`;
}

function quoted(word: string): string {
  return /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
