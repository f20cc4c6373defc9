import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { connectClusterFeed, connectEdge, edgePaths, FEED, retireOldEdge } from '#app/edge-door.ts';
import { systemClock } from '#base/clock.ts';
import { FeedSource } from '#base/feed.ts';
import { logger, silentSink } from '#base/log.ts';
import { findNetHand } from '#kernel/netlink/hand.ts';
import type { EdgeEntry } from '#network/edge.ts';
import { EdgeClient } from '#network/edge-wire.ts';
import { NetWorld } from '../../test/net/world.ts';

describe('the edge process', () => {
  let world: NetWorld;
  let host: string;
  let box: string;
  let command: [string, ...string[]];
  let client: EdgeClient;
  const connect = (): EdgeClient =>
    new EdgeClient(
      (start) => connectEdge(world.dir, start ? command : undefined),
      (error) => {
        throw error;
      },
    );
  const entry = (id: string, port: number, netns?: string): EdgeEntry => ({
    id,
    ...(netns === undefined ? {} : { netns }),
    upstreams: [],
    forward: false,
    places: [{ network: 'n', domain: 'n', names: [id], addresses: ['10.0.0.2'] }],
    holds: [{ protocol: 'tcp', ip: '127.0.0.1', port }],
  });
  const listening = (ns: string): string => world.run(ns, 'ss', '-Htln');
  const edges = (): number =>
    Number(world.run(host, 'sh', '-c', `pgrep --full --count '^[^ ]*node [^ ]*${world.dir}/edge.mjs' || true`));

  beforeAll(async () => {
    world = new NetWorld('network-edge');
    [host, box] = [await world.netns('host'), await world.netns('box')];
    const outfile = join(world.dir, 'edge.mjs');
    const start = "import { runEdge } from '#app/edge.ts'; await runEdge(process.argv[2]);";
    await build({
      stdin: { contents: start, resolveDir: import.meta.dirname, loader: 'ts' },
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
      outfile,
    });
    writeFileSync(
      join(world.dir, 'edge.sh'),
      `ESTIBA_NET=${findNetHand()} exec ${process.execPath} ${outfile} ${world.dir}\n`,
    );
    command = ['nsenter', `--net=${host}`, 'sh', join(world.dir, 'edge.sh')];
    client = connect();
  });
  afterAll(async () => {
    await client.stop();
    await client.close();
    await vi.waitUntil(() => edges() === 0, { timeout: 10_000 }); // until then it may write its state where all is removed now
    await world.close();
  });

  it('does not run before somebody needs it', async () => {
    expect(await client.list()).toEqual([]);
    await client.put({ id: 'idle', upstreams: [], forward: true, places: [], holds: [] });
    expect(await connectEdge(world.dir, undefined)).toBeUndefined();
  });

  it('holds ports, serves names, and says which port is taken', async () => {
    await client.put(entry('web', 8080, box));
    expect(listening(host)).toContain('127.0.0.1:8080');
    expect(listening(box)).toContain('127.0.0.11:15353');
    await expect(client.put(entry('other', 8080))).rejects.toMatchObject({ code: 'PORT_TAKEN', data: { port: 8080 } });
    expect(await client.list()).toEqual(['web']);
  });

  it('outlives the daemon, and knows after its own death what it was told', async () => {
    await client.close(); // the daemon is gone
    expect(listening(host)).toContain('127.0.0.1:8080');
    client = connect();
    expect(await client.list()).toEqual(['web']);
    // It writes its state a moment after a change.
    await expect.poll(() => readFileSync(edgePaths(world.dir).state, 'utf8'), { timeout: 10_000 }).toContain('"web"');
    const pid = world.run(host, 'ss', '-Hxlnp').match(new RegExp(`${edgePaths(world.dir).socket}.*?pid=(\\d+)`))?.[1];
    process.kill(Number(pid), 'SIGKILL');
    await expect.poll(() => listening(host), { timeout: 5_000 }).not.toContain(':8080');
    await client.put(entry('second', 8081));
    expect((await client.list()).sort()).toEqual(['second', 'web']);
    expect(listening(box)).toContain('127.0.0.11:15353');
    await client.drop('web');
    expect(listening(host)).not.toContain(':8080');
    expect(listening(box)).toBe('');
  });

  it('is one, however many start it at the same moment', async () => {
    await client.stop();
    await client.close();
    const sockets = await Promise.all(Array.from({ length: 4 }, () => connectEdge(world.dir, command)));
    for (const socket of sockets) socket?.destroy();
    await expect.poll(edges, { timeout: 10_000 }).toBe(1);
    client = connect();
  });

  it('gives way to the edge of another build, which knows what it was told', async () => {
    await client.put(entry('kept', 8082));
    await retireOldEdge(world.dir); // of this build: it stays
    expect(listening(host)).toContain('127.0.0.1:8082');
    writeFileSync(edgePaths(world.dir).version, 'an older one');
    await retireOldEdge(world.dir);
    expect(listening(host)).not.toContain(':8082');
    (await connectEdge(world.dir, command))?.destroy();
    expect(listening(host)).toContain('127.0.0.1:8082');
    await client.drop('kept');
  });

  it('serves the cluster’s names and web pages on without the daemon, and after its own death', async () => {
    const source = new FeedSource({
      clock: systemClock,
      log: logger('app', silentSink),
      connect: () => connectClusterFeed(world.dir, command),
    });
    const [dns, ingress] = [source.topic(FEED.dns), source.topic(FEED.ingress)];
    dns.set('settings', { domain: 'cluster.local', listen: [{ ip: '127.0.0.1', port: 10053 }], upstreams: [] });
    dns.set('svc/shop/web', {
      namespace: 'shop',
      name: 'web',
      addresses: ['10.96.0.5'],
      headless: false,
      ports: [],
      endpoints: [],
    });
    ingress.set('settings', { http: [{ ip: '127.0.0.1', port: 8080 }], https: [] });
    dns.declare();
    ingress.declare();
    await Promise.all([dns.confirmed(), ingress.confirmed()]);
    source.close();
    const script = `
      const r = new (require('dns').promises.Resolver)();
      r.setServers(['127.0.0.1:10053']);
      const page = await (await fetch('http://127.0.0.1:8080/')).text();
      console.log(String(await r.resolve4('web.shop.svc.cluster.local')), page);`;
    const look = (): Promise<string> =>
      world.runAside(
        host,
        process.execPath,
        '--input-type=module',
        '-e',
        `import { createRequire } from 'module'; const require = createRequire('/'); ${script}`,
      );
    const wanted = '10.96.0.5 404 Not Found: no Ingress has a rule for 127.0.0.1/ (NO_ROUTE)';
    expect((await look()).trim()).toBe(wanted);
    await expect.poll(() => existsSync(edgePaths(world.dir).clusterState), { timeout: 10_000 }).toBe(true);
    await client.stop();
    await expect.poll(() => listening(host), { timeout: 10_000 }).not.toContain(':8080');
    (await connectEdge(world.dir, command))?.destroy();
    expect((await look()).trim()).toBe(wanted);
  });
});
