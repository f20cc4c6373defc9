import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { ENDPOINT_SLICES, EVENTS, SERVICES } from '#cluster/client/resources.ts';
import { FakeApi } from '#cluster/client/testing/fake-api.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { Proxy } from '#cluster/proxy/proxy.ts';
import { removeTable } from '#cluster/proxy/table.ts';
import { type EndpointWish, service, slice } from '#cluster/proxy/testing/objects.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { NETLINK_NETFILTER } from '#kernel/netlink/wire.ts';
import { batch } from '#kernel/nft/message.ts';
import type { EndpointSlice, ServiceSpec } from '#spec/kubernetes/types.gen.ts';
import { NetWorld } from '../../../test/net/world.ts';

const DAEMON = 'serve-test';
const WEB = '10.96.0.5';
const ALL = [1, 2, 3].map((n) => ({ ip: `10.9.${n}.2` }));

describe('Services in the kernel', () => {
  let world: NetWorld;
  let lan: string;
  let host: string;
  const pods: string[] = [];
  let client: KubeClient;
  let view: ClusterView;
  let proxy: Proxy;
  let kernel: NetKernel;
  const log = logger('cluster:proxy');

  /** A client in a namespace asks `times` times; the distinct answers. */
  async function ask(from: string, ip: string, port: number, times = 1, protocol: 'tcp' | 'udp' = 'tcp') {
    const answers: string[] = [];
    for (let n = 0; n < times; n++) answers.push(await world.ask(from, ip, port, protocol));
    return [...new Set(answers)].sort();
  }

  async function put(name: string, spec: Partial<ServiceSpec>, endpoints: readonly EndpointWish[]): Promise<void>;
  async function put(name: string, spec: Partial<ServiceSpec>, endpoints: EndpointSlice): Promise<void>;
  async function put(
    name: string,
    spec: Partial<ServiceSpec>,
    endpoints: readonly EndpointWish[] | EndpointSlice,
  ): Promise<void> {
    const wanted = service(name, {
      clusterIP: WEB,
      clusterIPs: [spec.clusterIP ?? WEB],
      ports: [{ port: 80, protocol: 'TCP' }],
      ...spec,
    });
    const part = 'metadata' in endpoints ? endpoints : slice(name, endpoints);
    for (const [resource, object] of [
      [SERVICES, wanted],
      [ENDPOINT_SLICES, part],
    ] as const) {
      const key = `default/${object.metadata.name}`;
      const there = await client.find<typeof object>(resource, key);
      const { resourceVersion, uid } = there?.metadata ?? {};
      if (there)
        await view
          .of<typeof object>(resource)
          .update({ ...object, metadata: { ...object.metadata, uid, resourceVersion } as typeof object.metadata });
      else await view.of<typeof object>(resource).create(object);
    }
    await proxy.sync();
  }

  async function drop(name: string): Promise<void> {
    for (const object of view.of(SERVICES).list())
      if (object.metadata.name === name) await view.of(SERVICES).remove(object);
    for (const object of view.of(ENDPOINT_SLICES).list())
      if (object.metadata.name === `${name}-1`) await view.of(ENDPOINT_SLICES).remove(object);
    await proxy.sync();
  }

  beforeAll(async () => {
    world = new NetWorld('serve-proxy');
    ({ lan, host } = await world.lan());
    for (const key of ['net.ipv4.ip_forward=1', 'net.ipv4.conf.all.route_localnet=1'])
      world.run(host, 'sysctl', '-qw', key);
    for (const n of [1, 2, 3]) {
      const pod = await world.netns(`pod${n}`);
      pods.push(pod);
      world.run(host, 'ip', 'link', 'add', `p${n}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', pod);
      world.run(host, 'ip', 'addr', 'add', `10.9.${n}.1/24`, 'dev', `p${n}`);
      world.run(host, 'ip', 'link', 'set', `p${n}`, 'up');
      world.run(pod, 'ip', 'addr', 'add', `10.9.${n}.2/24`, 'dev', 'eth0');
      world.run(pod, 'ip', 'link', 'set', 'eth0', 'up');
      world.run(pod, 'ip', 'route', 'add', 'default', 'via', `10.9.${n}.1`);
      await world.serve(pod, 8080, `pod${n} sees `);
    }
    world.run(lan, 'ip', 'route', 'add', '10.96.0.0/16', 'via', '192.0.2.2');
    world.run(lan, 'ip', 'route', 'add', '198.51.100.0/24', 'via', '192.0.2.2');
    kernel = world.hand;
    const api = new FakeApi(systemClock);
    client = new KubeClient(api, { fieldManager: 'test' });
    view = new ClusterView({ client, clock: systemClock, random: seededRandom(1), log });
    proxy = new Proxy({
      view,
      kernel,
      clock: systemClock,
      log,
      events: new EventRecorder({ client, clock: systemClock, log, component: 'estiba-proxy' }),
      nodeName: 'node-1',
      table: { daemon: DAEMON, serviceCidrs: ['10.96.0.0/16'], podCidrs: ['10.9.0.0/16'] },
      netns: host,
    });
    await view.start();
    await proxy.start();
  });
  afterAll(async () => {
    await proxy.remove();
    const left = world.run(host, 'nft', 'list', 'tables');
    await view.stop();
    await world.close();
    expect(left).not.toContain(DAEMON);
  });
  beforeEach(async () => {
    for (const { metadata } of view.of(SERVICES).list()) await drop(metadata.name);
  });

  it('a cluster address leads to every endpoint, from pods and from the host, and pods are seen by their own address', async () => {
    await put('web', {}, ALL);
    const from = pods[0] ?? '';
    const answers = await ask(from, WEB, 80, 30);
    expect(answers).toEqual(['pod1 sees 10.9.1.1', 'pod2 sees 10.9.1.2', 'pod3 sees 10.9.1.2']);
    expect((await ask(host, WEB, 80, 30)).map((a) => a.slice(0, 4))).toEqual(['pod1', 'pod2', 'pod3']);
    await drop('web');
    expect(await ask(from, WEB, 80)).toEqual(['refused']);
  });

  it('three hundred connections are shared by chance, 20 to 47 percent each', async () => {
    await put('web', {}, ALL);
    const script = `for i in $(seq 300); do exec 3<>/dev/tcp/${WEB}/80; cat <&3; echo; done`;
    const text = await world.runAside(lan, 'bash', '-c', script);
    for (const pod of ['pod1', 'pod2', 'pod3']) {
      const share = text.split('\n').filter((line) => line.startsWith(pod)).length / 300;
      expect(share).toBeGreaterThan(0.2);
      expect(share).toBeLessThan(0.47);
    }
  });

  it('without endpoints a client is told at once, and so it is for addresses no Service has', async () => {
    await put('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }, []);
    expect(await ask(pods[0] ?? '', WEB, 80)).toEqual(['refused']);
    expect(await ask(host, WEB, 80)).toEqual(['refused']);
    expect(await ask(lan, '192.0.2.2', 30080)).toEqual(['refused']);
    expect(await ask(pods[0] ?? '', '10.96.77.77', 80)).toEqual(['refused']);
    expect(await ask(pods[0] ?? '', '10.96.77.77', 80, 1, 'udp')).toEqual(['refused']);
  });

  it('node ports answer the LAN with its own address, the host, and 127.0.0.1', async () => {
    await put('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }, ALL.slice(1, 2));
    expect(await ask(lan, '192.0.2.2', 30080)).toEqual(['pod2 sees 192.0.2.1']);
    expect(await ask(host, '192.0.2.2', 30080)).toEqual(['pod2 sees 192.0.2.2']);
    expect(await ask(host, '127.0.0.1', 30080)).toEqual(['pod2 sees 10.9.2.1']);
  });

  it('external and balanced addresses are served; source ranges leave the others out', async () => {
    await put(
      'web',
      { type: 'LoadBalancer', externalIPs: ['198.51.100.7'], loadBalancerSourceRanges: ['10.9.1.0/24'] },
      [{ ip: '10.9.2.2' }],
    );
    const live = view.of(SERVICES).get('default/web');
    if (live)
      await view
        .of(SERVICES)
        .updateStatus({ ...live, status: { loadBalancer: { ingress: [{ ip: '198.51.100.8' }] } } });
    await proxy.sync();
    expect(await ask(lan, '198.51.100.7', 80)).toEqual(['pod2 sees 192.0.2.1']);
    expect(await ask(pods[0] ?? '', '198.51.100.8', 80)).toEqual(['pod2 sees 10.9.1.2']);
    expect(await ask(lan, '198.51.100.8', 80)).toEqual(['timeout']);
  });

  it('a sticky client stays with its endpoint, and moves on when that is gone', async () => {
    await put('web', { sessionAffinity: 'ClientIP' }, ALL);
    const [first, ...others] = await ask(lan, WEB, 80, 12);
    expect(others).toEqual([]);
    const stays = ALL.filter(({ ip }) => !first?.startsWith(`pod${ip.split('.')[2]}`));
    await put('web', { sessionAffinity: 'ClientIP' }, stays);
    const [second, ...rest] = await ask(lan, WEB, 80, 12);
    expect(rest).toEqual([]);
    expect(second).not.toBe(first);
    // nft reads the table, and all others beside it, as it was meant.
    const listed = world.run(host, 'nft', 'list', 'table', 'inet', `${DAEMON}-services`);
    expect(listed).toMatch(
      /dnat ip to meta l4proto \. ip daddr \. th dport \. jhash ip saddr mod 512 .*map @front-slots4/,
    );
  });

  it('a UDP client that keeps its port follows the endpoints', async () => {
    const ports = [{ name: '', port: 8080, protocol: 'UDP' as const }];
    const spec = { ports: [{ port: 53, protocol: 'UDP' as const }] };
    await put('dns', spec, slice('dns', [{ ip: '10.9.2.2' }], ports));
    const client = `
      const s = require('dgram').createSocket('udp4'); s.bind(4000);
      process.stdin.on('data', () => s.send('x', 53, '${WEB}'));
      s.on('message', (m) => console.log(String(m)));`;
    const child = spawn('nsenter', [`--net=${pods[0]}`, process.execPath, '-e', client]);
    const next = async (): Promise<string> => {
      child.stdin.write('go');
      return String((await once(child.stdout, 'data'))[0]).trim();
    };
    expect(await next()).toBe('pod2 sees 10.9.1.2');
    await put('dns', spec, slice('dns', [{ ip: '10.9.3.2' }], ports));
    expect(await next()).toBe('pod3 sees 10.9.1.2');
    child.kill('SIGKILL');
  }, 10_000);

  it('a drain resolves when the kernel has let go, at the latest after its bound', async () => {
    await put('web', {}, ALL);
    expect(await proxy.drained('10.77.0.1', 1_000)).toBe(true);
    expect(await proxy.drained('10.9.1.2', 50)).toBe(false);
    const drained = proxy.drained('10.9.1.2', 5_000);
    await put('web', {}, [{ ip: '10.9.1.2', terminating: true }, ...ALL.slice(1)]);
    expect(await drained).toBe(true);
    expect((await ask(lan, WEB, 80, 20)).map((a) => a.slice(0, 4))).toEqual(['pod2', 'pod3']);
    // The last one serves to its end, and nobody waits for what does not happen.
    await put('web', {}, [{ ip: '10.9.1.2', serving: true, terminating: true }]);
    expect(await proxy.drained('10.9.1.2', 5_000)).toBe(true);
  });

  it('an address two Services claim is told in an event', async () => {
    await put('web', { externalIPs: ['198.51.100.7'] }, ALL);
    await put('thief', { clusterIP: '10.96.0.6', externalIPs: ['198.51.100.7'] }, ALL.slice(0, 1));
    await expect
      .poll(async () => (await client.list(EVENTS)).items.map((e) => `${e.involvedObject.name} ${e.reason}`))
      .toContain('thief AddressTaken');
    await drop('web');
    expect((await ask(lan, '198.51.100.7', 80, 6)).map((a) => a.slice(0, 4))).toEqual(['pod1']);
  });

  it('a table somebody destroyed comes back with the next change', async () => {
    await put('web', {}, ALL);
    await kernel.netlink({
      what: 'destroy the table',
      protocol: NETLINK_NETFILTER,
      netns: host,
      messages: batch(removeTable(DAEMON)),
    });
    await put('web', {}, ALL.slice(0, 1));
    await expect.poll(() => ask(lan, WEB, 80), { timeout: 5_000 }).toEqual(['pod1 sees 192.0.2.1']);
  });

  it('a thousand Services are in the kernel within a second, and a change of one within 20 ms', async () => {
    const api = new FakeApi(systemClock);
    const many = new KubeClient(api, { fieldManager: 'test' });
    const at = (n: number): string => `10.96.${4 + (n >> 8)}.${n & 255}`;
    for (let n = 0; n < 1_000; n++) {
      const name = `s${n}`;
      const ports = [{ port: 80, protocol: 'TCP' as const }];
      await many.create(SERVICES, service(name, { clusterIP: at(n), clusterIPs: [at(n)], ports }));
      await many.create(ENDPOINT_SLICES, slice(name, ALL));
    }
    const crowd = new ClusterView({ client: many, clock: systemClock, random: seededRandom(1), log });
    const busy = new Proxy({
      view: crowd,
      kernel,
      clock: systemClock,
      log,
      events: new EventRecorder({ client: many, clock: systemClock, log, component: 'estiba-proxy' }),
      nodeName: 'node-1',
      table: { daemon: 'serve-many', serviceCidrs: ['10.96.0.0/16'], podCidrs: ['10.9.0.0/16'] },
      netns: host,
    });
    await crowd.start();
    const startedMs = performance.now();
    await busy.start();
    const wholeMs = performance.now() - startedMs;
    const changesMs: number[] = [];
    for (let n = 0; n < 20; n++) {
      const part = crowd.of(ENDPOINT_SLICES).get(`default/s${n}-1`);
      const endpoints = (part?.endpoints ?? []).slice(1);
      const fromMs = performance.now();
      if (part)
        crowd
          .of(ENDPOINT_SLICES)
          .informer.observe({ ...part, endpoints, metadata: { ...part.metadata, resourceVersion: '9999999' } });
      await busy.sync();
      changesMs.push(performance.now() - fromMs);
    }
    await busy.remove();
    await crowd.stop();
    const median = changesMs.sort((a, b) => a - b)[10] ?? 0;
    process.stdout.write(
      `1000 services: ${wholeMs.toFixed(0)} ms, ${busy.elements} elements; a change: ${median.toFixed(1)} ms\n`,
    );
    expect(wholeMs).toBeLessThan(1_000);
    expect(median).toBeLessThan(20);
  });
});
