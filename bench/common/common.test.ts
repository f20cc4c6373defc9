import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const BENCH = join(import.meta.dirname, '..');
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'estiba-bench-common-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

describe('a benchmark’s command line', () => {
  it.each(readdirSync(BENCH).filter((name) => name.endsWith('.mjs')))('%s refuses what it does not know', (name) => {
    const args = [join(BENCH, name), '--nonsense'];
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env: { TMPDIR: dir } });
    expect(stderr).toMatch(/'--nonsense'.*\nusage: .*node bench\//s);
    expect(status).toBe(2);
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('a benchmark that ends', () => {
  it.each([
    ['by a signal', 'SIGTERM', 143],
    ['by an error', undefined, 1],
  ])('%s takes its processes and directories with it', async (_, signal, status) => {
    const script = join(dir, 'bench.mjs');
    writeFileSync(
      script,
      `import { spawn } from 'node:child_process';
      import { mkdtempSync } from 'node:fs';
      import { atEnd, takeBack } from '${join(BENCH, 'common/end.mjs')}';
      const made = mkdtempSync('${join(dir, 'made-')}');
      atEnd(() => takeBack({ dirs: [made] }));
      // One that does not hear of SIGTERM, as a daemon that hangs.
      const child = spawn('sh', ['-c', 'trap "" TERM; echo up; while :; do sleep 1; done', made], { detached: true });
      child.stdout.once('data', () => {
        console.log(JSON.stringify({ made, pid: child.pid }));
        ${signal ? '' : "throw new Error('this one');"}
      });`,
    );
    const bench = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'ignore'] });
    const [said] = (await once(bench.stdout, 'data')) as [Buffer];
    const { made, pid } = JSON.parse(said.toString()) as { made: string; pid: number };
    if (signal) bench.kill(signal as NodeJS.Signals);
    expect((await once(bench, 'exit'))[0]).toBe(status);
    expect(existsSync(made)).toBe(false);
    expect(commandOf(pid)).not.toContain(made);
  });
});

function commandOf(pid: number): string {
  const path = `/proc/${pid}/cmdline`;
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
