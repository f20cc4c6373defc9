import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';

// Dockerfile examples printed in documentation. Some are bad on purpose; those must be refused by name.
const corpus = join(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/dockerfiles/docs');
const REFUSED: Record<string, string> = {
  'eclipse-temurin-L594.Dockerfile': 'FROM takes one image', // a placeholder: FROM <base image>
  'ibm-semeru-runtimes-L202.Dockerfile': 'FROM takes one image',
};

describe('the Dockerfile corpus', () => {
  if (!existsSync(corpus)) throw new Error(`ESTIBA_SHARED must name the shared folder; there is no ${corpus}`);
  for (const name of readdirSync(corpus)) {
    const refusal = REFUSED[name];
    it(`${name} ${refusal === undefined ? 'parses' : `is refused: ${refusal}`}`, () => {
      const source = readFileSync(join(corpus, name), 'utf8');
      if (refusal !== undefined) expect(() => parseDockerfile(source, name)).toThrow(refusal);
      else expect(parseDockerfile(source, name).stages.length).toBeGreaterThan(0);
    });
  }
});
