import { readdirSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { below, pick, type Random, seededRandom } from '#base/random.ts';
import { type ApiServer, startEstiba } from '../../test/suites/room/engine.ts';
import { Room } from '../../test/suites/room/room.ts';

const FULL = process.env['SOAK'] === 'full';
const CLIENTS = FULL ? 200 : 12;
const RUN_MS = 1000 * Number(process.env['SOAK_SECONDS'] ?? (FULL ? 300 : 10));
/** Names that clients fight over: fewer than clients, so that most requests meet somebody else's. */
const NAMES = Array.from({ length: FULL ? 80 : 8 }, (_, i) => `m${String(i).padStart(2, '0')}`);
/** No request may take longer than this, or it is stuck. */
const STUCK_MS = FULL ? 60_000 : 30_000;

interface Answer {
  status: number;
  body: string;
}

/** What each request may answer, whatever the others do: the model of the API under interference. */
const OPERATIONS: Record<string, { method: string; path: (name: string) => string; body?: object; allowed: number[] }> =
  {
    create: {
      method: 'POST',
      path: (name) => `/containers/create?name=${name}`,
      body: { Image: 'busybox', Cmd: ['sh', '-c', 'trap "exit 0" TERM; sleep 1000 & wait'] },
      allowed: [201, 409],
    },
    start: { method: 'POST', path: (name) => `/containers/${name}/start`, allowed: [204, 304, 404, 409] },
    stop: { method: 'POST', path: (name) => `/containers/${name}/stop?t=1`, allowed: [204, 304, 404, 409] },
    kill: { method: 'POST', path: (name) => `/containers/${name}/kill`, allowed: [204, 404, 409] },
    restart: { method: 'POST', path: (name) => `/containers/${name}/restart?t=0`, allowed: [204, 404, 409] },
    pause: { method: 'POST', path: (name) => `/containers/${name}/pause`, allowed: [204, 404, 409] },
    unpause: { method: 'POST', path: (name) => `/containers/${name}/unpause`, allowed: [204, 404, 409] },
    remove: { method: 'DELETE', path: (name) => `/containers/${name}?force=1`, allowed: [204, 404, 409] },
    inspect: { method: 'GET', path: (name) => `/containers/${name}/json`, allowed: [200, 404] },
    list: { method: 'GET', path: () => '/containers/json?all=1', allowed: [200] },
    logs: { method: 'GET', path: (name) => `/containers/${name}/logs?stdout=1`, allowed: [200, 404] },
  };

describe('many clients at once', () => {
  let room: Room;
  let server: ApiServer;
  const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS });

  beforeAll(async () => {
    room = await Room.open('model');
    server = await startEstiba(room, `mdl${process.pid % 100_000}`);
  });
  afterAll(async () => {
    agent.destroy();
    await room.end();
  });

  function ask(method: string, path: string, body?: object, leaveAfterMs?: number): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const headers = text ? { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) } : {};
      const request = httpRequest({ socketPath: server.socket, method, path, headers, agent }, (response) => {
        let got = '';
        response.on('data', (chunk) => {
          got += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: got }));
        response.on('error', reject);
      });
      request.on('error', reject);
      request.setTimeout(STUCK_MS, () => request.destroy(new Error(`stuck: ${method} ${path}`)));
      request.end(text);
      if (leaveAfterMs !== undefined) setTimeout(() => request.destroy(new Error('left')), leaveAfterMs);
    });
  }

  /** For whoever looks into a request that is stuck. */
  async function stateOf(name: string): Promise<string> {
    const { body } = await ask('GET', `/containers/${name}/json`);
    const { Id, State } = JSON.parse(body) as { Id?: string; State?: { Status: string; Pid: number } };
    return State === undefined ? body : `${Id} is ${State.Status}, pid ${State.Pid}`;
  }

  async function client(random: Random, untilMs: number, problems: string[]): Promise<number> {
    let done = 0;
    while (Date.now() < untilMs) {
      const operation = pick(random, Object.keys(OPERATIONS));
      const { method, path, body, allowed } = OPERATIONS[operation] ?? fail(operation);
      const name = pick(random, NAMES);
      // One request in ten is left in its middle: what it asked for is done whole or not at all.
      const leaving = below(random, 10) === 0 ? below(random, 30) : undefined;
      try {
        const { status, body: text } = await ask(method, path(name), body, leaving);
        if (!allowed.includes(status)) problems.push(`${operation} ${name}: ${status} ${text.trim()}`);
      } catch (error) {
        if (leaving === undefined) problems.push(`${operation} ${name}: ${String(error)} ${await stateOf(name)}`);
      }
      done++;
    }
    return done;
  }

  it(
    'get only answers that the API knows, none is stuck, and nothing is left when all containers are gone',
    async () => {
      const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
      const problems: string[] = [];
      const untilMs = Date.now() + RUN_MS;
      const counts = await Promise.all(
        Array.from({ length: CLIENTS }, (_, i) => client(seededRandom(seed + i), untilMs, problems)),
      );
      expect(problems, `seed ${seed}\n${problems.length > 0 ? room.log('estiba') : ''}`).toEqual([]);
      expect(counts.every((count) => count > 0)).toBe(true);
      const left = JSON.parse((await ask('GET', '/containers/json?all=1')).body) as { Id: string }[];
      for (const { Id } of left) expect((await ask('DELETE', `/containers/${Id}?force=1`)).status).toBe(204);
      await expect.poll(audit, { timeout: 10_000 }).toEqual({}); // what a removal leaves goes behind its answer
      expect(room.log('estiba')).not.toContain(' error ');
    },
    RUN_MS + 120_000,
  );

  /** What the daemon holds on the host without a container; empty when all is well. */
  function audit(): Record<string, string[]> {
    const run = join(room.dir, 'estiba-run');
    const places = {
      shims: readdirSync(join(run, 'shims')),
      roots: readdirSync(join(run, 'roots')),
      oci: readdirSync(join(run, 'oci')),
      files: readdirSync(join(run, 'files')),
      logs: readdirSync(join(room.dir, 'estiba-data/containers')),
      snapshots: readdirSync(join(room.dir, 'estiba-data/snapshots')),
      mounts: room
        .run('sh', ['-c', `grep -o '${run}/roots/[^ ]*' /proc/self/mountinfo; true`])
        .out.split('\n')
        .filter(Boolean),
      links: room.run('sh', ['-c', 'ls /sys/class/net | grep "^mdl.*-"; true']).out.split('\n').filter(Boolean),
    };
    return Object.fromEntries(Object.entries(places).filter(([, names]) => names.length > 0));
  }
});

function fail(operation: string): never {
  throw new Error(`no operation ${operation}`);
}
