import { composeService } from '#engine/core/insight/show-compose.ts';
import { type DockerRun, dockerRun } from '#engine/core/insight/show-docker.ts';
import { pod } from '#engine/core/insight/show-kubernetes.ts';
import { quoted, type Unsaid } from '#engine/core/insight/show-parts.ts';
import type { ContainerRecord } from '#engine/core/record.ts';

/** How a container would be asked for elsewhere. */
export const SHOW_FORMS = ['docker-run', 'compose', 'kubernetes'] as const;
export type ShowForm = (typeof SHOW_FORMS)[number];

/** Read when somebody asks: it takes the start of a daemon 30 ms. */
const yaml = (): Promise<typeof import('yaml')> => import('yaml');

/** Text to be run or applied as it stands; what that form cannot say, and what it can say to us alone, stands in comments at its head. */
export async function show(record: ContainerRecord, form: ShowForm): Promise<string> {
  switch (form) {
    case 'docker-run': {
      const run = dockerRun(record);
      return comments(run) + shellText(run);
    }
    case 'compose': {
      const { stringify } = await yaml();
      const service = composeService(record);
      // docker-compose 1.29 reads YAML 1.1, to which 5:10 and 22:22 may be numbers of base sixty: quoted, they are text for all.
      return comments(service) + stringify(service.file, { version: '1.1' });
    }
    case 'kubernetes': {
      const { stringify } = await yaml();
      const { objects, ...rest } = pod(record);
      return comments(rest) + objects.map((object) => stringify(object)).join('---\n');
    }
  }
}

function comments({ unsaid, ours }: Unsaid): string {
  return [
    ...unsaid.map((what) => comment(`not said here: ${what}`)),
    ...ours.map((what) => comment(`Estiba alone takes: ${what}`)),
  ].join('');
}

/** On one line, whatever names it quotes: what comes after a line's end would be read as part of the file. */
function comment(text: string): string {
  return `# ${text.replaceAll(/\s+/g, ' ')}\n`;
}

/** One option a line, the image and its arguments on the last; quoted where a shell would take a word apart. */
function shellText({ options, words }: DockerRun): string {
  return `${['docker run', ...options.map(quoted), words.map(quoted).join(' ')].join(' \\\n  ')}\n`;
}
