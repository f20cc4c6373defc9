import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { routeServices } from '#app/service-range.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { NetWorld } from '../../test/net/world.ts';
import { ESTIBA } from '../../test/suites/room/engine.ts';
import { Room, waitFor } from '../../test/suites/room/room.ts';

const START_MS = 90_000;

/** Each with a cluster, on one host, where nobody has said anything of ranges. */
describe('two daemons on one host', () => {
  let room: Room;
  const names = { one: `ra${process.pid % 100_000}`, two: `rb${process.pid % 100_000}` };
  const run = (name: string): string => join(room.dir, `${name}-run`);
  const start = (log: string, name: string, ...flags: string[]): void =>
    room.start(log, ESTIBA, [
      ...['daemon', '--only', 'engine,kube', '--name', name, '--bootstrap', 'off', '--ingress', 'off'],
      ...['--kube', '127.0.0.1:0', '--data-root', join(room.dir, `${name}-data`), '--run-root', run(name), ...flags],
    ]);
  const isReady = (name: string): boolean => existsSync(join(run(name), 'endpoints.json'));
  const started = async (log: string, name: string, ...flags: string[]): Promise<void> => {
    start(log, name, ...flags);
    room.ownsCgroup(name);
    await waitFor(() => isReady(name), START_MS, `a daemon: ${room.log(log)}`);
  };
  const end = async (name: string): Promise<void> => {
    const pid = readFileSync(join(run(name), 'daemon.lock'), 'utf8').split(' ')[0] ?? '';
    process.kill(Number(pid), 'SIGTERM');
    await waitFor(() => !existsSync(`/proc/${pid}`), 15_000, 'a daemon to end');
  };
  const routes = (): string[] =>
    room
      .run('ip', ['route'])
      .out.split('\n')
      .filter((line) => /^10\.9\d\.0\.0\/16/.test(line))
      .map((line) => line.split(' ').slice(0, 3).join(' '));
  const rangeOf = (name: string): unknown =>
    JSON.parse(readFileSync(join(room.dir, `${name}-data/kube/service-range.json`), 'utf8'));

  beforeAll(async () => {
    room = await Room.open('ranges');
    await started('one', names.one);
    await started('two', names.two);
  });
  afterAll(async () => {
    for (const name of Object.values(names)) if (isReady(name)) await end(name);
    await room.end();
  });

  it('have Service ranges of their own, each by its own link', () => {
    expect(rangeOf(names.one)).toEqual({ cidr: '10.96.0.0/16' });
    expect(rangeOf(names.two)).toEqual({ cidr: '10.97.0.0/16' });
    const [first = '', second = ''] = routes();
    expect(first).toMatch(/^10\.96\.0\.0\/16 dev /);
    expect(second).toMatch(/^10\.97\.0\.0\/16 dev /);
    expect(first.split(' ')[2]).not.toBe(second.split(' ')[2]);
  });

  it('keep them over a restart, and one that asks for the other’s range is told who has it', async () => {
    await end(names.two);
    start('asks', names.two, '--service-cidr', '10.96.0.0/16');
    await waitFor(() => room.log('asks').includes('--service-cidr'), START_MS, `a refusal: ${room.log('asks')}`);
    expect(room.log('asks')).toContain(
      'the Service range 10.96.0.0/16 is in use on this host already: 10.96.0.0/16 by',
    );
    await started('again', names.two);
    expect(routes().map((line) => line.split(' ')[0])).toEqual(['10.96.0.0/16', '10.97.0.0/16']);
  });
});

describe('of two daemons that want one range at once', () => {
  let world: NetWorld;
  beforeAll(() => {
    world = new NetWorld('ranges-race');
  });
  afterAll(() => world.close());

  it('the slower is told the range, and who was quicker', async () => {
    const netns = await world.netns('host');
    for (const [n, link] of ['slow0', 'quick0'].entries()) {
      world.run(netns, 'ip', 'link', 'add', link, 'type', 'bridge');
      world.run(netns, 'ip', 'addr', 'add', `10.${n + 1}.0.1/24`, 'dev', link);
      world.run(netns, 'ip', 'link', 'set', link, 'up');
    }
    const hand = world.handIn(netns);
    let looks = 0;
    const slow: Pick<NetKernel, 'netlink'> = {
      netlink: async (request) => {
        const answer = await hand.netlink(request);
        // All was free when it looked; the other comes before it acts.
        if (request.what === 'read links' && looks++ === 0)
          world.run(netns, 'ip', 'route', 'add', '10.96.0.0/16', 'dev', 'quick0');
        return answer;
      },
    };
    await expect(routeServices(slow, { serviceCidr: '10.96.0.0/16', gateway: '10.1.0.1' })).rejects.toMatchObject({
      message: 'the Service range 10.96.0.0/16 is in use on this host already: 10.96.0.0/16 by quick0',
      hint: expect.stringContaining('--service-cidr'),
    });
    expect(looks).toBe(2);
  });
});
