import { defineConfig } from 'vitest/config';

// `make test` runs everything here. Tests that touch the host (root, namespaces, cgroups) are named *.host.test.ts: they
// run one file at a time, because two of them at once would see each other's mounts and cgroups in their leak checks.
const shared = {
  // Node 20 knows neither `await using` nor decorators: transform down to what the oldest supported Node runs.
  oxc: { target: 'node20' },
};

export default defineConfig({
  ...shared,
  test: {
    reporters: ['default', './test/reporter.ts'],
    globalSetup: ['./test/leaks.ts'],
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          include: ['{src,test,tools,bench}/**/*.test.ts'],
          exclude: ['**/*.{host,vm}.test.ts', 'test/suites/**', '**/node_modules/**'],
          testTimeout: 20_000,
        },
      },
      {
        ...shared,
        test: {
          name: 'host',
          include: ['{src,test,tools,bench}/**/*.host.test.ts'],
          exclude: ['test/suites/**', '**/node_modules/**'],
          fileParallelism: false,
          // In CI one second try, which the reporter names: a race that shows once in twenty runs is to be found, not to be hidden.
          retry: process.env['CI'] === 'true' ? 1 : 0,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        // Peers' suites and the shared corpus: run by `make suites`, which brings what they read.
        ...shared,
        test: {
          name: 'suites',
          include: ['test/suites/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
      // Boots a virtual machine: `make test-v2`.
      {
        ...shared,
        test: { name: 'vm', include: ['test/**/*.vm.test.ts'], testTimeout: 200_000, hookTimeout: 300_000 },
      },
    ],
  },
});
