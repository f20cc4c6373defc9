import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { cgroupsLeftBy } from '../left-cgroups.ts';

// The validation programs of opencontainers/runtime-tools on our binary. RUNTIME_TOOLS_CHECKOUT names a checkout in which
// `make runtimetest validation-executables` has run.
const checkout = process.env['RUNTIME_TOOLS_CHECKOUT'] ?? '';
const runtime = process.env['ESTIBA_OCI'] ?? fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));

/** Programs that fail under runc and crun too, each with its reason. */
const FAIL_FOR_ALL: Readonly<Record<string, string>> = {
  delete: 'creates without the program it names',
  delete_resources: 'compares two pointers',
  linux_cgroups_blkio: 'leafWeight, which no kernel since 5.0 has',
  linux_cgroups_hugetlb: 'no v1 hugetlb hierarchy here',
  linux_cgroups_memory: 'kernel memory limits, which no kernel since 5.16 has',
  linux_cgroups_network: 'no net_cls hierarchy here',
  linux_cgroups_pids: 'compares two pointers',
  linux_cgroups_relative_blkio: 'as linux_cgroups_blkio',
  linux_cgroups_relative_hugetlb: 'as linux_cgroups_hugetlb',
  linux_cgroups_relative_memory: 'as linux_cgroups_memory',
  linux_cgroups_relative_network: 'as linux_cgroups_network',
  linux_cgroups_relative_pids: 'compares two pointers',
  linux_process_apparmor_profile: 'no AppArmor here',
  misc_props: 'creates without the program it names',
  pidfile: 'creates without the program it names',
  process_capabilities: 'wants CAP_SYS_RESOURCE, which root here has not',
  process_capabilities_fail: 'as process_capabilities',
  process_rlimits: 'raises a hard limit without CAP_SYS_RESOURCE',
  start: 'creates without a process',
};

/** As many as the better of the peers; some of those above are clean at one commit and not at another. */
const CLEAN_GOAL = 42;

describe('runtime-tools validation', () => {
  const sweep = cgroupsLeftBy(/\/(testdir|cgrouptest)(\/|$)/);
  afterAll(sweep);

  const clean: string[] = [];
  for (const name of programs()) {
    it(FAIL_FOR_ALL[name] === undefined ? name : `${name}, which may fail: ${FAIL_FOR_ALL[name]}`, () => {
      const { stdout, stderr, status } = spawnSync(join(checkout, 'validation', name, `${name}.t`), [], {
        cwd: checkout,
        env: { ...process.env, RUNTIME: runtime },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 120_000,
      });
      const failed = stdout.split('\n').filter((line) => /^ *not ok/.test(line) && !/# ?(SKIP|TODO)/.test(line));
      if (failed.length === 0 && status === 0) clean.push(name);
      else if (FAIL_FOR_ALL[name] === undefined) expect({ failed, status, stderr }).toEqual({ failed: [], status: 0 });
    });
  }

  it(`has ${CLEAN_GOAL} clean programs`, () => {
    process.stdout.write(`runtime-tools: ${clean.length} clean of ${programs().length}\n`);
    expect(clean.length, clean.join(' ')).toBeGreaterThanOrEqual(CLEAN_GOAL);
  });
});

function programs(): string[] {
  const folder = join(checkout, 'validation');
  if (!existsSync(join(checkout, 'runtimetest')))
    throw new Error(`RUNTIME_TOOLS_CHECKOUT must name a built checkout of runtime-tools, not "${checkout}"`);
  return readdirSync(folder).filter((name) => existsSync(join(folder, name, `${name}.t`)));
}
