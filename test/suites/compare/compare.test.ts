import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { CASES } from './cases.ts';
import { runCase } from './run.ts';

// The same configurations under runc and under us: exit code, capabilities, seccomp, no_new_privs, namespaces, limits,
// mounts and more must be the same. Where they are meant to differ, the case says so in DIFFERENCES with the reason.
const runtime = process.env['ESTIBA_OCI'] ?? fileURLToPath(new URL('../../../bin/estiba-oci', import.meta.url));
const peer = process.env['PEER_RUNTIME'] ?? 'runc';

const folder = mkdtempSync(join(tmpdir(), 'estiba-compare-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe(`the same outcome under ${peer} and under us`, () => {
  it('over at least forty configurations', () => {
    expect(CASES.length).toBeGreaterThanOrEqual(40);
    expect(new Set(CASES.map((test) => test.name)).size).toBe(CASES.length);
  });

  for (const test of CASES)
    it(test.name, () => {
      const { stderr: theirWords, ...theirs } = runCase(peer, test, folder);
      const { stderr: ourWords, ...ours } = runCase(runtime, test, folder);
      expect(ours, `${peer}: ${theirWords}\nours: ${ourWords}`).toEqual(theirs);
    });
});
