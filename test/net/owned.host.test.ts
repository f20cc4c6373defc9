import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, it } from 'vitest';
import { noteOwner, ownedDirectory, sweepDead } from './owned.ts';
import { NetWorld } from './world.ts';

const HIERARCHY = ['/sys/fs/cgroup/pids', '/sys/fs/cgroup'].find((dir) => existsSync(dir)) ?? '';

it('what a killed run pinned and let serve is removed by the next, and nothing while it lives', async () => {
  const run = spawn('sleep', ['1000']);
  await once(run, 'spawn');
  const world = new NetWorld('network-dead');
  try {
    const netns = await world.netns('box');
    await world.serve(netns, 8080, 'here ');
    const pinned = (): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${netns} `);
    noteOwner(world.dir, run.pid ?? 0);

    expect(sweepDead()).not.toContain(world.dir);
    expect(pinned()).toBe(true);
    expect(await world.ask(netns, '127.0.0.1', 8080)).toBe('here 127.0.0.1');

    run.kill('SIGKILL');
    await once(run, 'exit');
    expect(sweepDead()).toContain(world.dir);
    expect(pinned()).toBe(false);
    expect(existsSync(world.dir)).toBe(false);
    await expect.poll(() => world.serving()).toBe(0);
  } finally {
    run.kill('SIGKILL');
    world.hand.close();
    world.stopServers();
  }
});

it('a machine ends with a killed run, and the next one removes its files and cgroups', async () => {
  const bundles = ownedDirectory('estiba-machine-dead-');
  const bundle = join(bundles, 'run.mjs');
  await build({
    stdin: {
      contents: `import { Machine } from './machine.ts';
        const machine = await Machine.open('dead');
        const { dir, init, name } = machine;
        const line = 'mkdir -p $0/box; sleep 1000 >/dev/null 2>&1 & echo $! > $0/box/cgroup.procs';
        await machine.run('sh', ['-c', line, '${HIERARCHY}/' + name]); // as a container would
        console.log(JSON.stringify({ dir, init, name }));`,
      resolveDir: fileURLToPath(new URL('../cluster', import.meta.url)),
      loader: 'ts',
    },
    outfile: bundle,
    ...{ bundle: true, format: 'esm', platform: 'node' },
  });
  const estiba = fileURLToPath(new URL('../../bin/estiba', import.meta.url));
  const run = spawn(process.execPath, [bundle], {
    env: { ...process.env, ESTIBA: estiba },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [said] = await once(run.stdout, 'data');
    const { dir, init, name } = JSON.parse(String(said)) as { dir: string; init: number; name: string };
    const space = readlinkSync(`/proc/${init}/ns/pid`);
    const running = (): string[] => readdirSync('/proc').filter((pid) => spaceOf(pid) === space);
    expect(running().length).toBeGreaterThan(1);
    expect(readFileSync(join(HIERARCHY, name, 'box/cgroup.procs'), 'utf8')).not.toBe('');
    expect(sweepDead()).not.toContain(dir);

    run.kill('SIGKILL');
    await once(run, 'exit');
    await expect.poll(running, { timeout: 10_000 }).toEqual([]);
    await expect.poll(() => sweepDead().includes(dir), { timeout: 10_000 }).toBe(true);
    expect(existsSync(dir)).toBe(false);
    expect(existsSync(join(HIERARCHY, name))).toBe(false);
  } finally {
    run.kill('SIGKILL');
    rmSync(bundles, { recursive: true });
  }
});

function spaceOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return ''; // no process, or one that has ended
  }
}
