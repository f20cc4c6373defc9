import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mocha, passes, type Results, summary, unexplained } from './clients/results.ts';
import { importStandIns, MIRROR_FLAGS, startMirror } from './clients/stand-ins.ts';
import { startDockerd, startEstiba } from './room/engine.ts';
import { Room } from './room/room.ts';

// dockerode's own tests, without swarm: against us and against dockerd, in this run, each in a room of its own.
const CHECKOUT = process.env['DOCKERODE_CHECKOUT'];
const FILES = ['container', 'docker', 'image', 'networks', 'plugin', 'promises', 'util', 'buildkit_test'];
const IMAGES = { shell: ['ubuntu', 'busybox', 'alpine'], hello: ['hello-world'] };
const GOAL = 106;

/** What fails with us and not with dockerd. */
const REASONS: Record<string, string> = {
  'plugin: #plugin #install should get plugin privileges':
    'there are no plugins here, and we say so; dockerd answers an empty list when it cannot reach the registry',
};

const rooms: Room[] = [];
let ours: Results;
let dockerds: Results;

beforeAll(async () => {
  if (!CHECKOUT) throw new Error('DOCKERODE_CHECKOUT must name a checkout of dockerode with its node_modules');
  const files = FILES.map((name) => `test/${name}.js`);
  const [here, there] = [await Room.open('dockerode-ours'), await Room.open('dockerode-dockerd')];
  rooms.push(here, there);
  for (const room of rooms) await startMirror(room);
  const engine = await startEstiba(here, `dode${process.pid % 100_000}`, ...MIRROR_FLAGS);
  importStandIns(here, engine, IMAGES);
  ours = await mocha(here, engine, CHECKOUT, files);
  const dockerd = await startDockerd(there, ...MIRROR_FLAGS);
  importStandIns(there, dockerd, IMAGES);
  dockerds = await mocha(there, dockerd, CHECKOUT, files);
  process.stdout.write(`${summary('dockerode', ours, dockerds)}\n`);
}, 1_800_000);
afterAll(async () => {
  for (const room of rooms) await room.end();
});

describe("dockerode's own tests", () => {
  it('pass with us where they pass with dockerd, but for what is named with its reason', () => {
    expect(unexplained(ours, dockerds, REASONS)).toEqual({});
  });

  it(`pass, ${GOAL} of them at least`, () => {
    expect(passes(ours), summary('dockerode', ours, dockerds)).toBeGreaterThanOrEqual(GOAL);
  });
});
