import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { parseArgs } from '#cli/args.ts';
import { createBody } from '#cli/commands/create-body.ts';
import { ALL_VERBS } from '#cli/verbs/all.ts';
import { createRequest } from '#engine/api/docker/create.ts';
import { isSaid, settled, textOf, WISHED } from '#engine/core/insight/wishes.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { loadCompose } from '#spec/compose/load.ts';
import { checkBody } from '#spec/docker/body.ts';

// What `show` prints is read again, by our own command line and API and by our reader of Compose files.

const run = ALL_VERBS.find((verb) => verb.name === 'run') ?? expect.fail('no verb run');

/** The wish that a shell, `estiba run` and the Docker API make of the text. */
function readCommand(text: string): ContainerSpec {
  const said = execFileSync('sh', ['-ec', `docker() { shift; printf '%s\\0' "$@"; }\n${text}`], { encoding: 'utf8' });
  const { flags, args } = parseArgs(run, said.split('\0').slice(0, -1));
  const [image = '', ...command] = args;
  const body: unknown = JSON.parse(JSON.stringify(createBody(flags, image, command, { env: {}, cwd: '/' })));
  const { spec } = createRequest(checkBody('ContainerCreate', body));
  const platform = flags.text('platform');
  return platform === undefined ? spec : { ...spec, platform };
}

/** What our reader of Compose files knows of the service, places in the file aside. */
async function readFile(text: string): Promise<string> {
  const project = await loadCompose({
    files: ['/compose.yaml'],
    read: (path) => Promise.resolve(path === '/compose.yaml' ? text : undefined),
    environment: {},
    profiles: [],
    projectName: 'again',
  });
  return JSON.stringify(project, (key, value) =>
    key === 'at' ? undefined : value instanceof Map ? [...value] : value,
  );
}

describe('what is shown of a container', () => {
  it.each(WISHED)('as docker run is the same wish again, or says what it is not: %s', async (_, { spec }) => {
    const text = await textOf('docker-run', spec);
    const again = readCommand(text);
    if (isSaid(text)) expect(settled(again)).toEqual(settled(spec));
  });

  it.each(WISHED)(
    'as a Compose file is read with the wish in it, or says what is not: %s',
    async (_, { base, spec }) => {
      const text = await textOf('compose', spec);
      const again = await readFile(text);
      if (isSaid(text)) expect(again).not.toBe(await readFile(await textOf('compose', base)));
    },
  );
});
