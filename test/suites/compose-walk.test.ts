import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, startDockerd, startEstiba } from './room/engine.ts';
import { Room } from './room/room.ts';

// A small application through its life with docker-compose 1.29 and with version 2 (COMPOSE_V2 names that program), on our engine and
// on dockerd: build, up, a published port, names, exec, run, scale, restart, stop, down.
const V2 = process.env['COMPOSE_V2'];
const STEP_MS = 180_000;
const PORT = 18_080;

const APPLICATION = `version: '3.4'
services:
  web:
    build: .
    image: walk-web
    environment: {DB_HOST: db}
    ports: ['127.0.0.1:${PORT}:8080']
    depends_on: [db]
  db:
    image: busybox
    command: ['sh', '-c', 'mkdir /www; echo dbhello > /www/index.html; exec httpd -f -p 5432 -h /www']
    volumes: ['data:/data']
  once:
    image: busybox
    command: ['sh', '-c', 'until wget -qO- http://db:5432/; do sleep 0.2; done']
    depends_on: [db]
volumes: {data: {}}
`;
const DOCKERFILE =
  'FROM busybox\nRUN mkdir /www && echo hello-from-compose > /www/index.html\nCMD ["httpd", "-f", "-p", "8080", "-h", "/www"]\n';

interface Step {
  does: string;
  run: string;
  says?: RegExp;
}

const STEPS: Step[] = [
  { does: 'reads the file', run: '$DC config', says: /web:/ },
  { does: 'builds', run: '$DC build' },
  { does: 'brings it up', run: '$DC up -d' },
  {
    does: 'publishes a port',
    run: `until busybox wget -qO- http://127.0.0.1:${PORT}/; do sleep 0.2; done`,
    says: /hello-from-compose/,
  },
  { does: 'lists', run: '$DC ps', says: new RegExp(`${PORT}`) },
  {
    does: 'resolves names between containers, and shows logs',
    run: 'until $DC logs --no-color once | grep dbhello; do sleep 0.2; done',
    says: /dbhello/,
  },
  { does: 'runs a command in a container', run: "$DC exec -T web sh -c 'echo $DB_HOST'", says: /^db$/m },
  { does: 'runs one in a container of its own', run: '$DC run --rm -T web wget -qO- http://db:5432/', says: /dbhello/ },
  { does: 'scales', run: '$DC up -d --scale db=2 && $DC ps -q db | wc -l', says: /^2$/m },
  { does: 'restarts', run: '$DC restart -t 1 web' },
  { does: 'stops', run: '$DC stop -t 1' },
  {
    does: 'takes it down, volumes and all',
    run: '$DC down -v -t 1 && docker ps -aq && docker volume ls -q && docker network ls -q | wc -l',
    says: /^3$/m,
  },
];

describe.each([
  ['1.29', 'docker-compose'],
  ['2', V2],
])('docker-compose %s', (version, program) => {
  describe.each([
    ['our engine', startEstiba],
    ['dockerd', startDockerd],
  ] as const)('on %s', (engine, start) => {
    let room: Room;
    let server: ApiServer;
    let dir: string;

    beforeAll(async () => {
      if (program === undefined) throw new Error('COMPOSE_V2 must name the program of version 2');
      room = await Room.open(`walk${version.replace('.', '')}-${engine.split(' ')[0]}`);
      server = await (start === startEstiba ? startEstiba(room, `wlk${process.pid % 100_000}`) : startDockerd(room));
      dir = join(room.dir, 'app');
      mkdirSync(dir);
      writeFileSync(join(dir, 'docker-compose.yml'), APPLICATION);
      writeFileSync(join(dir, 'Dockerfile'), DOCKERFILE);
    });
    afterAll(async () => {
      await room?.end();
    });

    it.each(STEPS)('$does', async ({ run, says }) => {
      const { code, out, err } = await room.runLong('sh', ['-c', run.replaceAll('$DC', program ?? '')], {
        cwd: dir,
        env: {
          DOCKER_HOST: `unix://${server.socket}`,
          COMPOSE_PROJECT_NAME: 'walk',
          DOCKER_BUILDKIT: '0',
          COMPOSE_DOCKER_CLI_BUILD: '0',
          HOME: room.dir,
        },
        timeoutMs: STEP_MS,
      });
      expect(code, `${run}: ${out}\n${err}`).toBe(0);
      if (says) expect(out).toMatch(says);
    });
  });
});
