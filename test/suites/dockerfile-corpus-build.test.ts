import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon, ESTIBA, run } from './build/daemon.ts';

// Those of the corpus that need nothing from the internet but Debian's packages, their bases stood in for: what ubuntu and alpine
// are asked here, busybox and Debian can do as well. The text is what the build has to say, or the image has to hold.
const corpus = join(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/dockerfiles/docs');
const BUILDABLE: Record<string, { base?: string; says?: RegExp; files?: Record<string, string> }> = {
  'buildkit-consistent-instruction-casing-L25': {},
  'buildkit-consistent-instruction-casing-L41': {},
  'buildkit-multiple-instructions-disallowed-L25': { says: /MultipleInstructionsDisallowed/ },
  'buildkit-reference-L2144': {},
  'buildkit-reference-L2307': { says: /JSONArgsRecommended/ },
  'buildkit-reference-L2548': {},
  'buildkit-reference-L2601': { says: /v1\.0\.0/ },
  'buildkit-reference-L2687': { says: /Hello World/ },
  'buildkit-reference-L2779': { says: /hello/ },
  'buildkit-reference-L2808': { says: /hello/ },
  'buildkit-reference-L3187': {},
  'buildkit-reference-L675': {},
  'buildkit-reference-L898': { base: 'debian:bookworm', says: /Setting up gcc/ },
  'buildkit-undefined-var-L52': { files: { a: 'a' } },
  'busybox-L84': { files: { 'my-static-binary': 'x' } },
  'image_build-L223': {},
};

describe('those of the corpus that can be built here', () => {
  let daemon: BuildDaemon;
  beforeAll(async () => {
    if (!existsSync(corpus)) throw new Error(`ESTIBA_SHARED must name the shared folder; there is no ${corpus}`);
    daemon = await BuildDaemon.start('escorpus');
  });
  afterAll(() => daemon.stop());

  for (const [name, { base = 'busybox', says = /^/, files = {} }] of Object.entries(BUILDABLE)) {
    it(`${name} builds`, async () => {
      const context = join(daemon.dir, name);
      mkdirSync(context);
      for (const [path, text] of Object.entries(files)) writeFileSync(join(context, path), text);
      const stands = ['ubuntu', 'alpine'].flatMap((image) => ['--build-context', `${image}=docker-image://${base}`]);
      const args = ['build', '--progress', 'plain', ...stands, '-f', join(corpus, `${name}.Dockerfile`), context];
      const said = await run('sh', ['-c', '"$0" "$@" 2>&1', ESTIBA, ...args], { env: daemon.env() });
      expect(said).toMatch(says);
      expect(said).toMatch(/^built [0-9a-f]{12}/m);
    });
  }
});
