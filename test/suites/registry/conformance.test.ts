import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RegistryProcess } from './process.ts';

// The OCI distribution specification's own conformance program (https://github.com/opencontainers/distribution-spec, folder
// `conformance`, built with `go build`). OCI_CONFORMANCE names it.

const program = process.env['OCI_CONFORMANCE'] ?? '';
let folder: string;

beforeAll(() => {
  if (program === '') throw new Error('not run: OCI_CONFORMANCE does not name the conformance program');
  folder = mkdtempSync(join(tmpdir(), 'estiba-registry-conformance-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the conformance program', () => {
  it('finds nothing wrong with the specification as it is (1.1)', async () => {
    const counts = await conform('1.1', {});
    expect(counts).toMatchObject({ FAIL: 0, Error: 0, Skip: 0 });
    expect(counts['Pass']).toBeGreaterThanOrEqual(848);
  });

  it('finds nothing wrong where accounts are asked for tokens', async () => {
    const counts = await conform('1.1', { OCI_USERNAME: 'conf', OCI_PASSWORD: 'pw' }, [], 'conf');
    expect(counts).toMatchObject({ FAIL: 0, Error: 0, Skip: 0 });
  });

  it('finds nothing wrong with what the next version will have (1.1+dev), sparse manifests included', async () => {
    const counts = await conform('dev', { OCI_DATA_SPARSE: 'true' }, ['--sparse']);
    expect(counts).toMatchObject({ FAIL: 0, Error: 0, Skip: 0, Disabled: 0 });
  });
});

async function conform(
  version: string,
  env: Record<string, string>,
  flags: string[] = [],
  account?: string,
): Promise<Record<string, number>> {
  const own = mkdtempSync(join(folder, 'r-'));
  if (account !== undefined) RegistryProcess.addAccount(own, account, 'pw', 'pull,push,delete:**');
  const registry = await RegistryProcess.ours(own, flags);
  try {
    const results = join(own, 'results');
    const run = spawnSync(program, [], {
      cwd: own,
      encoding: 'utf8',
      timeout: 120_000,
      env: {
        ...process.env,
        ...env,
        OCI_REGISTRY: registry.host,
        OCI_TLS: 'disabled',
        OCI_VERSION: version,
        OCI_RESULTS_DIR: results,
      },
    });
    const total = /<testsuites\b([^>]*)>/.exec(readFileSync(join(results, 'junit.xml'), 'utf8'))?.[1];
    expect(total, run.stderr.slice(-2000)).toBeDefined();
    const lines = `${run.stdout}${run.stderr}`.matchAll(/^ {2}(Disabled|Skip|Pass|FAIL|Error)\.+: +(\d+)$/gm);
    return Object.fromEntries([...lines].map(([, name = '', count]) => [name, Number(count)]));
  } finally {
    await registry.kill();
  }
}
