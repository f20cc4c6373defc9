import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { noteOwner, sweepDead } from './owned.ts';
import { NetWorld } from './world.ts';

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
