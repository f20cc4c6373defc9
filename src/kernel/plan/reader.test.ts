import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

it('the plan reader survives mutated plans under the address and undefined behaviour sanitizers', () => {
  const native = fileURLToPath(new URL('../../../native', import.meta.url));
  const directory = mkdtempSync(join(tmpdir(), 'estiba-reader-'));
  try {
    const program = join(directory, 'mutate');
    const sources = ['fuzz/mutate.c', 'fuzz/fuzz_plan.c', 'wire.c', 'frame.c', 'sys.c'].map((f) => join(native, f));
    const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
    execFileSync('cc', ['-std=gnu11', '-O1', '-g', `-I${native}`, ...sanitizers, '-o', program, ...sources]);
    const seeds = readdirSync(join(native, 'fuzz/seeds')).map((f) => join(native, 'fuzz/seeds', f));
    const run = spawnSync(program, ['20000', ...seeds], { encoding: 'utf8' });
    expect(run.stderr).toBe('');
    expect(run.status).toBe(0);
  } finally {
    rmSync(directory, { recursive: true });
  }
}, 60_000);
