import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { cgroupsLeftBy } from '../left-cgroups.ts';

// runc's own integration suite, v1.1.15, on our binary. RUNC_CHECKOUT names a checkout of opencontainers/runc at that tag with
// its helper programs built (recvtty, sd-helper, and seccompagent with the tag `seccomp`) and its test images in testdata.
const checkout = process.env['RUNC_CHECKOUT'] ?? '';
const runtime = process.env['ESTIBA_OCI'] ?? fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));
const folder = join(checkout, 'tests/integration');

/** What no runtime passes on such a machine, and why. */
const MACHINES: readonly { name: RegExp; why: string }[] = [
  { name: /^runc (run|exec) with RLIMIT_NOFILE/, why: 'root without CAP_SYS_RESOURCE raises no hard limit' },
  {
    name: /^runc run \(hugetlb limits\)/,
    why: 'the case writes `pagesize`; hugetlb lies in the unified hierarchy here',
  },
  { name: /^update rt period and runtime/, why: 'the case reads a realtime budget back that this kernel rounds' },
  { name: /^checkpoint/, why: 'criu check fails on this kernel' },
  { name: /^spec validator/, why: 'clones a repository' },
];

/** All that the machine lets pass. */
const PASSES_GOAL = 153;

describe("runc's integration suite", () => {
  const sweep = cgroupsLeftBy(/\/runc-cgroups-integration-test(\/|$)/);
  afterAll(sweep);

  const totals = { passed: 0, failed: 0, skipped: 0 };
  for (const file of batsFiles()) {
    it(file, () => {
      // The suite opens /dev/tty: script(1) gives it one.
      const command = `bats --tap ${file}`;
      const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
        cwd: folder,
        env: { ...process.env, RUNC: runtime },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: 300_000,
      });
      const failed = [...stdout.replaceAll('\r', '').matchAll(/^not ok \d+ (.*)$/gm)].map((match) => match[1] ?? '');
      const passed = [...stdout.matchAll(/^ok \d+ (.*)$/gm)].map((match) => match[1] ?? '');
      const skipped = passed.filter((name) => / # skip/.test(name)).length;
      totals.passed += passed.length - skipped;
      totals.skipped += skipped;
      totals.failed += failed.length;
      expect(stdout).toMatch(/^1\.\.\d+/m);
      expect(failed.filter((name) => !MACHINES.some((known) => known.name.test(name)))).toEqual([]);
    });
  }

  it(`passes in ${PASSES_GOAL} cases`, () => {
    process.stdout.write(`runc's suite: ${JSON.stringify(totals)}\n`);
    expect(totals.passed).toBeGreaterThanOrEqual(PASSES_GOAL);
  });
});

function batsFiles(): string[] {
  if (!existsSync(folder)) throw new Error(`RUNC_CHECKOUT must name a checkout of runc v1.1.15, not "${checkout}"`);
  return readdirSync(folder).filter((name) => name.endsWith('.bats'));
}
