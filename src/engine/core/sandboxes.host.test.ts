import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import type { SandboxWish } from '#engine/core/parts.ts';
import { NodeSandboxes } from '#engine/core/sandboxes.ts';
import { findExecutor } from '#kernel/plan/execute.ts';
import type { Networks } from '#network/networks.ts';
import { Spawner } from '#shim/spawner.ts';

const noNetworks: Pick<Networks, 'attach' | 'detach' | 'sandbox'> = {
  attach: () => Promise.reject(new Error('no network is asked for')),
  detach: async () => undefined,
  sandbox: () => undefined,
};
const WISH: SandboxWish = {
  name: 'pod',
  hostname: 'boat',
  network: undefined,
  ipc: 'private',
  pid: 'private',
  shmBytes: 1 << 20,
  sysctls: { 'kernel.shmmni': '99' },
};

describe('sandboxes', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-sandbox-'));
  const dir = join(directory, 'sandboxes');
  let spawner: Spawner;
  const open = (): Promise<NodeSandboxes> =>
    NodeSandboxes.open({
      dir,
      networks: noNetworks,
      run: (plan) => spawner.run(plan),
      initBinary: findExecutor(),
      random: systemRandom,
      log: logger('engine', silentSink),
    });

  beforeAll(async () => {
    spawner = await Spawner.start(join(directory, 'spawner.sock'));
  });
  afterAll(async () => {
    await spawner.quit();
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
    rmSync(directory, { recursive: true });
  });

  it('keeps its namespaces without a process, with its own parameters and /dev/shm; a second daemon finds it', async () => {
    const { namespaces, shm } = await (await open()).create('one', WISH);
    const inside = (path: string): string =>
      execFileSync('nsenter', [`--ipc=${namespaces.ipc}`, 'cat', path], { encoding: 'utf8' }).trim();
    expect(inside('/proc/sys/kernel/shmmni')).toBe('99');
    expect(readFileSync('/proc/sys/kernel/shmmni', 'utf8').trim()).not.toBe('99');
    expect(execFileSync('stat', ['-f', '-c', '%T %b', shm], { encoding: 'utf8' })).toMatch(/^tmpfs 256/);

    const again = await open();
    expect(again.list()).toEqual(['one']);
    await again.remove('one');
    await again.remove('one');
    expect(again.list()).toEqual([]);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('a shared PID namespace has a reaper that sees nothing of the host, and goes with the sandbox', async () => {
    const sandboxes = await open();
    const { pause, namespaces } = await sandboxes.create('shared', { ...WISH, pid: 'shared' });
    expect(namespaces.pid).toBe(`/proc/${pause?.pid}/ns/pid`);
    expect(readdirSync(`/proc/${pause?.pid}/root/`)).toEqual(['pause']);
    await sandboxes.remove('shared');
    expect(existsSync(`/proc/${pause?.pid}/root/pause`)).toBe(false);
  });

  it('refuses a parameter of the host, and what a crash left by half is swept', async () => {
    const sandboxes = await open();
    await expect(sandboxes.create('bad', { ...WISH, sysctls: { 'vm.swappiness': '1' } })).rejects.toThrow(
      /is the host's/,
    );
    expect(readdirSync(dir)).toEqual([]);
    await sandboxes.create('half', { ...WISH, pid: 'shared' });
    rmSync(join(dir, 'half', 'record'));
    expect((await open()).list()).toEqual([]);
    expect(readdirSync(dir)).toEqual([]);
  });
});
