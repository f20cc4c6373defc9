import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OpName } from '#kernel/plan/plan.ts';

const NATIVE = fileURLToPath(new URL('../../../native', import.meta.url));

/**
 * For tests of an upgrade: an executor from the sources as they are, in `dir`, which lacks operations as one of an older build does;
 * `silent`: one of before executors said what they know.
 */
export function olderExecutor(dir: string, lacks: readonly OpName[], { silent = false } = {}): string {
  const executor = join(dir, 'estiba-init');
  const defines = [`-DLACKS=${lacks.map((name) => `OP_${name}`).join(',')}`, ...(silent ? ['-DTELLS=0'] : [])];
  execFileSync('make', ['-s', '-C', NATIVE, `BUILD=${dir}`, `OLDER=${defines.join(' ')}`, executor]);
  return executor;
}
