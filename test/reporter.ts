import { existsSync, readFileSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';

/** Closes a run with the one line CI reads, and under `CI=true` refuses skips that `test/skips.txt` does not list. */
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const listed = readSkips();
    let passed = 0;
    let failed = 0;
    let skipped = 0;
    const unlisted: string[] = [];
    const again: string[] = [];
    for (const module of modules) {
      // A file that does not load has no tests of its own to count, yet it must not look like a pass.
      if (module.state() === 'failed' && [...module.children.allTests('failed')].length === 0) failed++;
      for (const test of module.children.allTests()) {
        const state = test.result().state;
        if ((test.diagnostic()?.retryCount ?? 0) > 0) again.push(`${module.relativeModuleId}: ${test.fullName}`);
        if (state === 'passed') passed++;
        else if (state === 'failed') failed++;
        else {
          skipped++;
          if (!listed.has(test.fullName)) unlisted.push(`${module.relativeModuleId}: ${test.fullName}`);
        }
      }
    }
    for (const name of again) process.stdout.write(`needed a second try: ${name}\n`);
    if (process.env['CI'] === 'true' && unlisted.length > 0) {
      process.stdout.write(
        `skipped without being listed in test/skips.txt:\n${unlisted.map((t) => `  ${t}\n`).join('')}`,
      );
      failed += unlisted.length;
      skipped -= unlisted.length;
      process.exitCode = 1;
    }
    process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
  }
}

/** One skip a line: the test's full name, two spaces or a tab, the reason. */
function readSkips(): Set<string> {
  const file = new URL('./skips.txt', import.meta.url);
  if (!existsSync(file)) return new Set();
  const lines = readFileSync(file, 'utf8').split('\n');
  return new Set(
    lines.filter((l) => l.trim() !== '' && !l.startsWith('#')).map((l) => l.split(/\t| {2,}/)[0]?.trim() ?? ''),
  );
}
