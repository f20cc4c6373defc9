import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

// native/ for the other architecture, as far as a machine without one can tell: Debian's cross compiler must take every file
// without a warning, and what is made runs under qemu's user emulation, which has no clone3 and so makes no containers.

const NATIVE = fileURLToPath(new URL('../../native', import.meta.url));
const CC = 'aarch64-linux-gnu-gcc';
const QEMU = 'qemu-aarch64-static';
const EM_AARCH64 = 183;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'estiba-arm64-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('native/ for arm64', () => {
  it('compiles without a warning into one static program', () => {
    const program = join(dir, 'estiba-init');
    const vars = [`BUILD=${dir}`, `CC=${CC}`, 'KERNEL_HEADERS=-Werror'];
    const made = spawnSync('make', ['-s', '-C', NATIVE, ...vars, program], { encoding: 'utf8' });
    expect({ status: made.status, stderr: made.stderr }).toEqual({ status: 0, stderr: '' });
    expect(readFileSync(program).readUInt16LE(18)).toBe(EM_AARCH64);
    expect(spawnSync(QEMU, [program], { encoding: 'utf8' }).stderr).toContain('usage: estiba-init run');
  });

  it('reads plans, whole and mutated, as it does here', () => {
    const program = join(dir, 'mutate');
    const sources = ['fuzz/mutate.c', 'fuzz/fuzz_plan.c', 'wire.c', 'frame.c', 'sys.c'].map((f) => join(NATIVE, f));
    execFileSync(CC, ['-std=gnu11', '-O1', '-static', `-I${NATIVE}`, '-o', program, ...sources]);
    const seeds = readdirSync(join(NATIVE, 'fuzz/seeds')).map((f) => join(NATIVE, 'fuzz/seeds', f));
    const run = spawnSync(QEMU, [program, '2000', ...seeds], { encoding: 'utf8' });
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: '' });
  }, 60_000);
});
