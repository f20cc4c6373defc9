import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcp, type Server } from 'node:net';
import { Server as GrpcServer, ServerCredentials } from '@grpc/grpc-js';
import { afterAll, describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { afterProbe, nextProbeMs, PROBE_START, type ProbeState } from '#cluster/node/probe/probe.ts';
import { type Action, runAction } from '#cluster/node/probe/run.ts';
import { ProbeWatch } from '#cluster/node/probe/watch.ts';
import type { Probe } from '#spec/kubernetes/types.gen.ts';

const PROBE: Probe = { exec: { command: ['x'] }, periodSeconds: 10, failureThreshold: 3, successThreshold: 2 };

describe('probes over time', () => {
  const judged = (kind: 'readiness' | 'liveness', ...results: boolean[]): ProbeState =>
    results.reduce((state, ok) => afterProbe(PROBE, kind, state, ok), PROBE_START);

  it('as many like results in a row as the thresholds say make a verdict', () => {
    expect(judged('liveness', true).verdict).toBe('unknown');
    expect(judged('liveness', true, true).verdict).toBe('success');
    expect(judged('liveness', true, true, false, false).verdict).toBe('success');
    expect(judged('liveness', true, true, false, false, false).verdict).toBe('failure');
    expect(judged('liveness', false, false, true, false, false).verdict).toBe('unknown');
  });

  it('a container that comes up is asked oftener, and those failures do not count', () => {
    const early = judged('readiness', false, false, false);
    expect(early).toMatchObject({ streak: 0, last: undefined, count: 3 });
    const delays = [1, 2, 3, 4].map((n) => nextProbeMs(PROBE, 'readiness', { ...PROBE_START, count: n }));
    expect(delays).toEqual([50, 100, 200, 400]);
    expect(nextProbeMs(PROBE, 'readiness', judged('readiness', true))).toBe(10_000);
    expect(nextProbeMs(PROBE, 'liveness', judged('liveness', false))).toBe(10_000);
  });

  it('liveness and readiness begin after startup has succeeded; a failed liveness condemns', async () => {
    const clock = new FakeClock();
    const asked: string[] = [];
    let alive = true;
    const watch = new ProbeWatch({
      container: {
        name: 'web',
        startupProbe: { periodSeconds: 1 },
        livenessProbe: { periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 4 },
      },
      clock,
      startedAtMs: clock.now(),
      adopted: undefined,
      run: async (_, kind) => {
        asked.push(kind);
        return { ok: alive, output: '' };
      },
      changed: () => undefined,
      failed: () => undefined,
    });
    expect(watch.started()).toBe(false);
    await clock.advance(1_000);
    expect(watch.started()).toBe(true);
    expect(asked.slice(0, 2)).toEqual(['startup', 'liveness']);
    alive = false;
    await clock.advance(3_000);
    expect(watch.condemned()).toEqual({
      why: 'Container web failed liveness probe, will be restarted',
      graceSeconds: 4,
    });
    const count = asked.length;
    await clock.advance(10_000);
    expect(asked.length).toBe(count);
    watch.close();
  });

  it('what was reported before a restart of the agent goes on', () => {
    const adopted = { started: true, ready: true };
    const container = { name: 'web', startupProbe: PROBE, readinessProbe: PROBE };
    const watch = new ProbeWatch({
      container,
      clock: new FakeClock(),
      startedAtMs: 0,
      adopted,
      run: async () => ({ ok: true, output: '' }),
      changed: () => undefined,
      failed: () => undefined,
    });
    expect([watch.started(), watch.ready()]).toEqual([true, true]);
    watch.close();
  });
});

describe('what a probe does', () => {
  const servers: { close(): void }[] = [];
  afterAll(() => {
    for (const server of servers) server.close();
  });
  const listen = async (server: Server | ReturnType<typeof createServer>): Promise<number> => {
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  };
  const ask = (action: Action, exec = { code: 0, output: '', late: false }) =>
    runAction(
      action,
      { container: { name: 'c', ports: [{ name: 'web', containerPort: 1 }] }, ip: '127.0.0.1', exec: async () => exec },
      500,
    );

  it('http: 2xx and 3xx are well, redirects on the host are followed', async () => {
    const port = await listen(
      createServer((request, response) => {
        if (request.url === '/moved') response.writeHead(302, { location: '/bad' }).end();
        else if (request.url === '/away') response.writeHead(302, { location: 'http://elsewhere.invalid/' }).end();
        else response.writeHead(request.url === '/bad' ? 500 : 200).end(request.headers['x-a']);
      }),
    );
    expect(await ask({ httpGet: { path: '/', port, httpHeaders: [{ name: 'X-A', value: 'b' }] } })).toEqual({
      ok: true,
      output: 'b',
    });
    expect(await ask({ httpGet: { path: '/bad', port } })).toEqual({
      ok: false,
      output: 'HTTP probe failed with statuscode: 500',
    });
    expect((await ask({ httpGet: { path: '/moved', port } })).ok).toBe(false);
    expect((await ask({ httpGet: { path: '/away', port } })).ok).toBe(true);
    expect((await ask({ httpGet: { path: '/', port: 'nosuch' } })).output).toBe('invalid port nosuch');
  });

  it('tcp: it connects or says why not; late is a failure', async () => {
    const port = await listen(createTcp());
    expect((await ask({ tcpSocket: { port } })).ok).toBe(true);
    expect((await ask({ tcpSocket: { port: 'web' } })).output).toMatch(/ECONNREFUSED/);
    const silent = await listen(createTcp());
    expect((await ask({ httpGet: { path: '/', port: silent } })).output).toMatch(/deadline exceeded/);
  });

  it('exec: by exit code', async () => {
    expect(await ask({ exec: { command: ['x'] } }, { code: 1, output: 'no', late: false })).toEqual({
      ok: false,
      output: 'no',
    });
    expect((await ask({ exec: { command: ['x'] } }, { code: 0, output: '', late: true })).output).toMatch(/timed out/);
  });

  it('grpc: the health service says SERVING, for a service or for all', async () => {
    const server = new GrpcServer();
    server.addService(
      {
        check: {
          path: '/grpc.health.v1.Health/Check',
          requestStream: false,
          responseStream: false,
          requestSerialize: (b: Buffer) => b,
          requestDeserialize: (b: Buffer) => b,
          responseSerialize: (b: Buffer) => b,
          responseDeserialize: (b: Buffer) => b,
        },
      },
      {
        check: (call: { request: Buffer }, done: (error: null, reply: Buffer) => void) =>
          done(null, Buffer.of(8, call.request.length === 0 ? 1 : 2)),
      },
    );
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, p) =>
        error ? reject(error) : resolve(p),
      ),
    );
    servers.push({ close: () => server.forceShutdown() });
    expect((await ask({ grpc: { port } })).ok).toBe(true);
    expect(await ask({ grpc: { port, service: 'db' } })).toEqual({
      ok: false,
      output: 'service unhealthy (responded with 2)',
    });
  });
});
