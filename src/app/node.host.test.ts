import { type StdioOptions, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { openNode } from '#app/node.ts';
import { errnoOf } from '#base/errors.ts';
import { findNetHand } from '#kernel/netlink/hand.ts';
import { findExecutor } from '#kernel/plan/execute.ts';
import { Spawner, spawnerSocket } from '#shim/spawner.ts';
import { lockDirectory } from '#storage/lock.ts';

describe('a node that cannot be opened', () => {
  it('gives back what was opened beside the floor that failed', async () => {
    const root = mkdtempSync(join(tmpdir(), 'estiba-node-'));
    onTestFinished(() => rmSync(root, { recursive: true, force: true }));
    const [dataRoot, runRoot] = [join(root, 'data'), root];
    const store = join(dataRoot, 'store');
    mkdirSync(dataRoot);
    writeFileSync(store, ''); // where a directory has to be: told long before the spawner has started
    const before = openSockets();
    const opening = openNode({
      name: 'est-n',
      dataRoot,
      runRoot,
      registryMirrors: [],
      insecureRegistries: [],
      mtuBytes: 1500,
      bootstrap: false,
      stopGraceMs: 10_000,
    });
    await expect(opening).rejects.toThrow(store);
    const spawner = await Spawner.connect(spawnerSocket(runRoot)); // it was waited for
    await spawner.quit();
    spawner.close();
    expect(openSockets()).toEqual(before);
    lockDirectory(join(runRoot, 'daemon.lock'))();
  });
});

describe('what outlives the daemon, or is started by what does', () => {
  // Node.js closes at an exec what it opened itself, and of what it inherited the first sixteen: 17 gets through.
  const held = openSync('/etc/hostname', 'r');
  afterAll(() => closeSync(held));
  const stdio = (input: 'ignore' | 'pipe'): StdioOptions => [
    input,
    'pipe',
    'inherit',
    ...Array.from({ length: 14 }, () => 'ignore' as const),
    held,
  ];
  const ofPid = (pid: number | undefined): string[] =>
    readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));

  it('is given a descriptor by its caller in this test', () => {
    const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { stdio: stdio('ignore'), encoding: 'utf8' });
    expect(stdout).toContain('17 -> /etc/hostname');
  });

  it('the edge keeps none of what the daemon was started with', () => {
    const args = ['closed', 'ls', '-l', '/proc/self/fd'];
    const { stdout } = spawnSync(findExecutor(), args, { stdio: stdio('ignore'), encoding: 'utf8' });
    expect(stdout).toMatch(/ 1 -> /);
    expect(stdout).not.toContain('/etc/hostname');
  });

  it.each(['estiba-net', 'spawner'])('%s keeps none either', async (name) => {
    const root = mkdtempSync(join(tmpdir(), 'estiba-node-'));
    onTestFinished(() => rmSync(root, { recursive: true, force: true }));
    const [program, ...args] = name === 'spawner' ? [findExecutor(), 'spawner', spawnerSocket(root)] : [findNetHand()];
    const child = spawn(program, args, { stdio: stdio('pipe') });
    onTestFinished(() => void child.kill('SIGKILL'));
    await expect.poll(() => ofPid(child.pid), { timeout: 10_000 }).not.toContain('/etc/hostname');
    expect(child.exitCode).toBeNull();
  });
});

function openSockets(): string[] {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return ''; // the listing's own
      throw error;
    }
  });
  return targets.filter((target) => target.startsWith('socket:')).sort();
}
