import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Explanation } from '#image/explain.ts';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { Room, waitFor } from '../../test/suites/room/room.ts';

const REGISTRY = '127.0.0.1:5000';
/** Debian's docker-registry. */
const PEER = '127.0.0.1:5001';

/** `estiba image explain` of images from everywhere that images come from. */
describe('estiba image explain', () => {
  let room: Room;
  let server: ApiServer;
  const sh = (line: string): string => server.ok(line);
  const explain = (image: string): Explanation => JSON.parse(sh(`${ESTIBA} image explain --format json ${image}`));

  beforeAll(async () => {
    room = await Room.open('explain');
    const serves = ['--only', 'engine,registry', '--registry', REGISTRY, '--bootstrap', 'on'];
    server = await startEstiba(room, `exp${process.pid % 100_000}`, ...serves);
    const storage = `filesystem: {rootdirectory: ${room.dir}/peer}`;
    writeFileSync(
      join(room.dir, 'peer.yml'),
      `version: 0.1\nlog: {level: warn}\nstorage: {${storage}}\nhttp: {addr: '${PEER}'}\n`,
    );
    room.start('peer', 'docker-registry', ['serve', 'peer.yml']);
    mkdirSync(join(room.dir, 'context'));
    writeFileSync(
      join(room.dir, 'context/Dockerfile'),
      [
        'FROM busybox',
        'ENV MOTTO=brief',
        'RUN mkdir -p /opt/app && head -c 600000 /dev/urandom > /opt/app/data && head -c 40000 /dev/urandom > /opt/app/log',
        'RUN chmod 600 /opt/app/data && rm /opt/app/log && cp /opt/app/data /opt/app/twin',
        'CMD ["true"]',
        '',
      ].join('\n'),
    );
    sh(`${ESTIBA} build -q -t ${REGISTRY}/team/fat:1 context`);
    await waitFor(() => server.sh(`busybox wget -qO- http://${PEER}/v2/`).code === 0, 10_000, 'docker-registry');
  });
  afterAll(async () => {
    await room.end();
  });

  it('of a built image tells which instruction added which bytes, what is hidden, copied and there twice', () => {
    const told = explain(`${REGISTRY}/team/fat:1`);
    expect(told.names).toEqual([`${REGISTRY}/team/fat:1`]);
    const lines = told.instructions.map(({ createdBy, layer }) => [
      createdBy.replace(/^.*?(ENV|RUN|CMD).*$/s, '$1').slice(0, 3),
      layer?.contentBytes,
      layer?.hiddenBytes,
      layer?.hidesBytes,
    ]);
    const base = told.instructions[0]?.layer?.contentBytes;
    expect(lines.slice(1)).toEqual([
      ['ENV', undefined, undefined, undefined],
      ['RUN', 640_000, 640_000, 0],
      ['RUN', 1_200_000, 0, 640_000],
      ['CMD', undefined, undefined, undefined],
    ]);
    expect(told.hidden).toEqual([
      { path: 'opt/app/data', bytes: 600_000, layer: 1, hiddenBy: 2, how: 'copied' },
      { path: 'opt/app/log', bytes: 40_000, layer: 1, hiddenBy: 2, how: 'removed' },
    ]);
    expect(told.duplicates[0]).toMatchObject({ bytes: 600_000, copies: 2 });
    expect(told.wasted).toMatchObject({ copied: 600_000, removed: 40_000, duplicated: 600_000 });
    expect(told.bytes).toBe((base ?? 0) + 1_840_000);
    expect(told.efficiency).toBeCloseTo(1 - 1_240_000 / told.bytes);
  });

  it('says it to people: instructions with sizes, the biggest places, the waste', () => {
    const out = sh(`${ESTIBA} image explain --top 3 ${REGISTRY}/team/fat:1`);
    expect(out).toMatch(/^127\.0\.0\.1:5000\/team\/fat:1 \([0-9a-f]{12}\) for linux\/amd64\n/);
    expect(out).toMatch(/efficiency \d+\.\d %: 1\.24MB wasted \(40kB removed later, 600kB copied .*, 600kB in further/);
    expect(out).toMatch(/\n2 +640kB +\S+ +\+2 +640kB +RUN mkdir -p/);
    expect(out).toMatch(/\n3 +1\.2MB +\S+ +\+1 ~1 -1 +RUN chmod 600/);
    expect(out).toMatch(/What layer 2 holds\n +640kB {2}\/\n +640kB {4}opt\/app\n +600kB {6}data\n +40kB {6}log\n/);
    expect(out).toMatch(/600kB +2 → 3 +the same again: only mode, owner or time changed +opt\/app\/data/);
    expect(out).toMatch(/2 × 600kB +opt\/app\/data, opt\/app\/twin/);
  });

  it('of a pulled image is the same as where it was built; by id and template too', () => {
    const name = `${REGISTRY}/team/fat:1`;
    const before = explain(name);
    sh(`docker tag ${name} ${PEER}/fat:1 && docker push -q ${PEER}/fat:1 && docker rmi ${name} ${PEER}/fat:1`);
    sh(`docker pull -q ${PEER}/fat:1`);
    const after = explain(`${PEER}/fat:1`);
    expect({ ...after, instructions: [], names: [] }).toEqual({ ...before, instructions: [], names: [] });
    expect(after.instructions.map((i) => i.layer?.tree)).toEqual(before.instructions.map((i) => i.layer?.tree));
    expect(sh(`${ESTIBA} image explain -f '{{.bytes}} {{len .hidden}}' ${after.id.slice(7, 19)}`)).toBe(
      `${after.bytes} 2`,
    );
  });

  it('of a bootstrapped image, and of one that is imported', () => {
    sh('docker pull -q busybox:1.36');
    const [made, imported] = [explain('busybox:1.36'), explain('busybox')];
    for (const told of [made, imported]) {
      expect(told.instructions.filter((one) => one.layer)).toHaveLength(1);
      expect(told.bytes).toBeGreaterThan(500_000);
      expect(told.wasted).toMatchObject({ removed: 0, replaced: 0, copied: 0 });
    }
  });

  it('what cannot be explained is said: no such image, no sensible number', () => {
    expect(server.sh(`${ESTIBA} image explain nothere`)).toMatchObject({ code: 1 });
    expect(server.sh(`${ESTIBA} image explain nothere`).err).toContain('No such image: nothere');
    expect(server.sh(`${ESTIBA} image explain --top 0 busybox`).err).toContain('is not between 1 and 10000');
  });
});
