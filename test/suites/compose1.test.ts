import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { importStandIns } from './clients/stand-ins.ts';
import { makeFixtures, openProject, type Resolved, readResolved, STAND_IN, scalable } from './compose1/corpus.ts';
import { type ApiServer, startEstiba } from './room/engine.ts';
import { Room } from './room/room.ts';

// docker-compose 1.29 on our engine: the Compose files of the corpus that this version reads, each up, used and taken down again,
// with stand-ins for its images.
const CORPUS = resolve(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/compose');
const WALKED = 22;

/** 1.29 reads it, and no engine without a plugin of others can run it: dockerd answers the same. */
const NOT_UP: Record<string, RegExp> = {
  'jaeger-examples-grafana-integration-docker-compose.yaml': /no log driver named 'loki' is registered/,
};

/** What 1.29 itself says to the others: they use what came later, or files that are not here. */
const NOT_FOR_1_29: Record<string, RegExp> = {
  'compose-pkg-e2e-fixtures-restart-test-compose-depends-on.yaml': /unsupported option: 'restart'/,
  'compose-pkg-e2e-testdata-TestLoggingDriver-compose.yaml': /is invalid because/,
  'compose-pkg-e2e-testdata-TestPostStartAndPreStopHook-compose.yaml': /Unsupported config option .*'post_start'/,
  'compose-pkg-e2e-testdata-TestSecretFromEnv-compose.yaml': /value 'environment' does not match/,
  'compose-pkg-e2e-testdata-TestStartInterval-compose.yaml': /value 'start_interval' does not match/,
  'jaeger-docker-compose-kafka-docker-compose.yaml': /'include' does not match/,
  'nacos-docker-example-cluster-embedded.yaml': /Couldn't find env file/,
  'nacos-docker-example-standalone-mysql.yaml': /Couldn't find env file/,
  'zipkin-docker-examples-docker-compose-cassandra.yaml': /Cannot extend service|No such file/,
  'zipkin-docker-examples-docker-compose-mysql.yaml': /Cannot extend service|No such file/,
  'zipkin-docker-examples-docker-compose-prometheus.yaml': /depends on service 'zipkin' which is undefined/,
};

describe('docker-compose 1.29 on Compose files of real applications', () => {
  const files = existsSync(CORPUS) ? readdirSync(CORPUS).filter((f) => f.endsWith('.yaml')) : [];
  const walked = files.filter((file) => !(file in NOT_FOR_1_29) && !(file in NOT_UP));
  let room: Room;
  let engine: ApiServer;

  beforeAll(async () => {
    room = await Room.open('compose1');
    engine = await startEstiba(room, `cmp${process.pid % 100_000}`);
    importStandIns(room, engine, { shell: ['busybox'], hello: [] });
    const context = join(room.dir, 'stand-in');
    mkdirSync(context);
    writeFileSync(join(context, 'Dockerfile'), STAND_IN);
    said('docker build -q -t stand-in stand-in');
  });
  afterAll(async () => {
    await room.end();
  });
  // One that fails leaves its ports to the next.
  afterEach(() => {
    engine.sh('docker rm -fv $(docker ps -aq); docker network prune -f; docker volume rm $(docker volume ls -q)');
  });

  const said = (line: string): string => engine.ok(line);

  it('are there', () => {
    expect(walked.length, `ESTIBA_SHARED must name the shared folder; ${CORPUS} is read`).toBe(WALKED);
  });

  it.each(Object.entries(NOT_FOR_1_29))('%s is refused by 1.29 itself', async (file, why) => {
    const { compose } = openProject(room, engine, join(CORPUS, file), `no${files.indexOf(file)}`);
    const { code, err } = await compose('config');
    expect(code).not.toBe(0);
    expect(err).toMatch(why);
  });

  it.each(Object.entries(NOT_UP))('%s is not started, and the engine says why', async (file, why) => {
    const project = openProject(room, engine, join(CORPUS, file), `r${files.indexOf(file)}`);
    const resolved = readResolved((await project.compose('config')).out);
    makeFixtures(project.dir, resolved);
    prepare(resolved);
    const { code, err } = await project.compose('up -d');
    expect(code).not.toBe(0);
    expect(err).toMatch(why);
  });

  it.each(walked)('%s: up, ps, logs, exec, scale, restart, down; nothing is left', async (file) => {
    const project = openProject(room, engine, join(CORPUS, file), `c${files.indexOf(file)}`);
    const run = async (line: string): Promise<string> => {
      const { code, out, err } = await project.compose(line);
      expect(code, `docker-compose ${line}: ${out}\n${err}`).toBe(0);
      return out;
    };
    const resolved = readResolved(await run('config'));
    makeFixtures(project.dir, resolved);
    prepare(resolved);

    await run('up -d');
    const containers = (await run('ps -q')).trim().split('\n');
    expect(containers.length).toBe(Object.values(resolved.services).filter((s) => !s.profiles).length);
    const running = (await run('ps --services --filter status=running')).trim().split('\n').filter(Boolean);
    expect(running.length).toBeGreaterThan(0);
    await run('logs --no-color');
    expect(await run(`exec -T ${running[0]} sh -c 'echo in $((40 + 2))'`)).toBe('in 42\n');
    const twice = scalable(resolved);
    if (twice !== undefined) {
      await run(`up -d --scale ${twice}=2`);
      expect((await run(`ps -q ${twice}`)).trim().split('\n')).toHaveLength(2);
    }
    await run('restart -t 0');
    await run('down -v -t 0');
    clean(resolved);
    expect(left()).toEqual({ containers: '', networks: 'bridge\nhost\nnone', volumes: '' });
  });

  /** Images by the names that the file has for them, and what it says stands already. */
  function prepare({ services, networks = {}, volumes = {} }: Resolved): void {
    for (const image of new Set(Object.values(services).map((s) => s.image))) said(`docker tag stand-in '${image}'`);
    for (const name of externals(networks)) said(`docker network create ${name}`);
    for (const name of externals(volumes)) said(`docker volume create ${name}`);
  }

  function clean({ services, networks = {}, volumes = {} }: Resolved): void {
    for (const image of new Set(Object.values(services).map((s) => s.image))) said(`docker rmi '${image}'`);
    for (const name of externals(networks)) said(`docker network rm ${name}`);
    for (const name of externals(volumes)) said(`docker volume rm ${name}`);
  }

  function left(): Record<string, string> {
    return {
      containers: said('docker ps -aq'),
      networks: said('docker network ls --format "{{.Name}}" | sort'),
      volumes: said('docker volume ls -q'),
    };
  }
});

function externals(things: NonNullable<Resolved['networks']>): string[] {
  return Object.entries(things).flatMap(([name, thing]) => (thing?.external ? [thing.name ?? name] : []));
}
