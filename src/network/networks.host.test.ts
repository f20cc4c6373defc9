import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { parseIp } from '#kernel/netlink/ip.ts';
import { Forwarder } from '#network/dns/forward.ts';
import { EdgeServer } from '#network/edge-server.ts';
import { Networks } from '#network/networks.ts';
import type { PortWish } from '#network/ports.ts';
import type { AttachRequest } from '#network/sandboxes.ts';
import { memoryStore } from '#storage/memory.ts';
import type { Store } from '#storage/store.ts';
import { NetWorld } from '../../test/net/world.ts';

const log = logger('network', silentSink);
const DNS_LIBRARY = createRequire(import.meta.url).resolve('dns-packet');
const NO_DNS = { servers: [], search: [], options: [] };
const port = (text: string, hostIp = ''): PortWish => {
  const [hostPort = '', rest = ''] = text.split(':');
  const [containerPort, protocol = 'tcp'] = rest.split('/');
  return { protocol: protocol as 'tcp' | 'udp', containerPort: Number(containerPort), hostIp, hostPort };
};

describe('networks on a host with a LAN', () => {
  let world: NetWorld;
  let host: string;
  let lan: string;
  let store: Store;
  let networks: Networks;
  let edge: EdgeServer;
  const options = (daemon: string) => ({
    daemon,
    clock: systemClock,
    random: systemRandom,
    log,
    netnsDir: join(world.dir, `${daemon}-netns`),
    ipv6: true,
    poolSize: 1,
    mtuBytes: 1500,
  });
  const startEdge = (hand = world.handIn(host)) =>
    new EdgeServer({
      hand,
      forwarder: new Forwarder({ clock: systemClock, random: systemRandom }),
      clock: systemClock,
      log,
      stateFile: join(world.dir, 'edge.json'),
    });
  const attach = (name: string, network: string, ports: PortWish[] = [], more: Partial<AttachRequest> = {}) =>
    networks.attach({ id: name, name, endpoints: [{ network, names: [name] }], ports, dns: NO_DNS, ...more });

  beforeAll(async () => {
    world = new NetWorld('network');
    ({ lan, host } = await world.lan());
    store = memoryStore(systemClock);
    edge = startEdge();
    networks = await Networks.open({ ...options('est-a'), kernel: world.handIn(host), store, edge });
    await networks.create({ name: 'front', ipv6: true });
    await networks.create({ name: 'back', internal: true });
    await networks.create({ name: 'quiet', options: { 'com.docker.network.bridge.enable_icc': 'false' } });
    const web = await attach('web', 'front', [port('8080:80'), port('5353:80/udp')]);
    await world.serve(web.netns, 80, 'web sees ');
    await attach('client', 'front');
    await world.serve(lan, 9000, 'lan sees ');
    await attach('db', 'back');
    await attach('db2', 'back');
  });
  afterAll(async () => {
    await networks.removeAll();
    await world.close();
  });
  const ns = (name: string): string => networks.sandbox(name)?.netns ?? '';
  const ipv4 = (name: string): string => networks.sandbox(name)?.endpoints[0]?.ipv4 ?? '';
  const gateway = (name: string): string => ipv4(name).replace(/\.\d+$/, '.1');

  it('containers of a network reach each other by both families', async () => {
    expect(await world.ask(ns('client'), ipv4('web'), 80)).toBe(`web sees ${ipv4('client')}`);
    const ipv6 = networks.sandbox('web')?.endpoints[0]?.ipv6 ?? '';
    expect(await world.ask(ns('client'), ipv6, 80)).toBe(`web sees ${networks.sandbox('client')?.endpoints[0]?.ipv6}`);
  });

  it('the LAN reaches a published port and its address is kept; an unpublished one is closed to it', async () => {
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
    // The first packet may wait for neighbour discovery on links that have just come up.
    await expect.poll(() => world.ask(lan, 'fd00::2', 8080), { timeout: 8_000 }).toBe('web sees fd00::1');
    expect(await world.ask(lan, '192.0.2.2', 5353, 'udp')).toBe('web sees 192.0.2.1');
    world.run(lan, 'ip', 'route', 'add', `${ipv4('web')}/32`, 'via', '192.0.2.2');
    expect(await world.ask(lan, ipv4('web'), 80)).toBe('timeout');
  });

  it('the host reaches it by its own address, by loopback and by IPv6 loopback', async () => {
    expect(await world.ask(host, '192.0.2.2', 8080)).toBe('web sees 192.0.2.2');
    expect(await world.ask(host, '127.0.0.1', 8080)).toBe(`web sees ${gateway('web')}`);
    expect(await world.ask(host, '::1', 8080)).toMatch(/^web sees fd/);
    expect(await world.ask(host, '::1', 5353, 'udp')).toMatch(/^web sees fd/);
  });

  it('a port at IPv6 loopback alone is open there alone, for streams and datagrams', async () => {
    const own = await attach('own', 'front', [port('8181:80', '::1'), port('5354:80/udp', '::1')]);
    await world.serve(own.netns, 80, 'own sees ');
    expect(await world.ask(host, '::1', 8181)).toMatch(/^own sees fd/);
    expect(await world.ask(host, '::1', 5354, 'udp')).toMatch(/^own sees fd/);
    expect(await world.ask(host, '127.0.0.1', 5354, 'udp')).toBe('refused');
    expect(await world.ask(lan, 'fd00::2', 5354, 'udp')).toBe('refused');
    await networks.detach('own');
  });

  it('a container without IPv6 answers at the host’s IPv6 addresses all the same, datagrams too', async () => {
    await networks.create({ name: 'four' });
    const old = await attach('old', 'four', [port('8182:80'), port('5355:80/udp')]);
    await world.serve(old.netns, 80, 'old sees ');
    expect(await world.ask(lan, 'fd00::2', 8182)).toBe(`old sees ${gateway('old')}`);
    expect(await world.ask(lan, 'fd00::2', 5355, 'udp')).toBe(`old sees ${gateway('old')}`);
    expect(await world.ask(host, '::1', 5355, 'udp')).toBe(`old sees ${gateway('old')}`);
    // Many senders at once, each with its own answer; and one that asks again goes the same way.
    const many = `
      const dgram = require('dgram'); let left = 200, wrong = 0;
      for (let i = 0; i < 200; i++) {
        const s = dgram.createSocket('udp6');
        let answers = 0;
        s.on('message', (m) => { if (!String(m).startsWith('old sees ')) wrong++; if (++answers < 3) return s.send('x', 5355, '::1'); s.close(); if (--left === 0) console.log('all', wrong); });
        s.send('x', 5355, '::1');
      }
      setTimeout(() => { console.log('left', left); process.exit(); }, 10000).unref();`;
    expect(world.run(host, process.execPath, '-e', many)).toBe('all 0\n');
    await networks.detach('old');
    expect(await world.ask(host, '::1', 5355, 'udp')).toBe('refused');
  });

  it('a published SCTP port is rewritten both ways, and is closed where the host’s firewall closes it', async () => {
    // This kernel may have no SCTP sockets: the client and the container speak by raw packets.
    const box = await attach('sctp', 'front', [port('9899:7/sctp'), port('9900:8/sctp', '192.0.2.2')]);
    const init = (to: number): Promise<string> =>
      world.sctp(lan, { from: '192.0.2.1', to: '192.0.2.2', port: to }, box.netns);
    const answer = (to: number): string => `192.0.2.1 asked port ${to === 9899 ? 7 : 8}, 192.0.2.2 port ${to} answered`;
    expect(await init(9899)).toBe(answer(9899));
    expect(await init(9900)).toBe(answer(9900));
    expect(await init(9901)).toBe('nothing arrived');
    await expect(attach('sctp2', 'front', [port('9899:9/sctp')])).rejects.toMatchObject({ code: 'PORT_TAKEN' });
    const nft = (text: string): string => world.run(host, 'nft', text);
    nft('add table inet fw');
    nft('add chain inet fw input { type filter hook input priority 0; policy drop; }');
    nft('add rule inet fw input sctp dport 9900 accept');
    await networks.firewall.refresh();
    expect(await init(9899)).toBe('nothing arrived');
    expect(await init(9900)).toBe(answer(9900));
    nft('delete table inet fw');
    await networks.firewall.refresh();
    await networks.detach('sctp');
  });

  it('a container reaches its neighbour’s and its own published port (hairpin), and another network’s', async () => {
    expect(await world.ask(ns('client'), '192.0.2.2', 8080)).toBe(`web sees ${gateway('web')}`);
    expect(await world.ask(ns('web'), '192.0.2.2', 8080)).toBe(`web sees ${gateway('web')}`);
    await attach('outsider', 'quiet');
    expect(await world.ask(ns('outsider'), '192.0.2.2', 8080)).toBe(`web sees ${ipv4('outsider')}`);
  });

  it('networks are apart, and no container reaches what listens on the host’s loopback', async () => {
    expect(await world.ask(ns('outsider'), ipv4('web'), 80)).toBe('timeout');
    await world.serve(host, 7000, 'host sees ');
    world.run(ns('client'), 'ip', 'route', 'add', '127.0.0.5/32', 'via', gateway('client'));
    expect(await world.ask(ns('client'), gateway('client'), 7000)).toBe(`host sees ${ipv4('client')}`);
    expect(await world.ask(ns('client'), '127.0.0.5', 7000)).not.toContain('host sees');
  });

  it('containers go out with the host’s address, but not those of internal networks', async () => {
    expect(await world.ask(ns('client'), '192.0.2.1', 9000)).toBe('lan sees 192.0.2.2');
    expect(await world.ask(ns('client'), 'fd00::1', 9000)).toBe('lan sees fd00::2');
    expect(await world.ask(ns('db'), '192.0.2.1', 9000)).not.toContain('lan sees');
  });

  it('without inter-container communication neighbours are closed to each other', async () => {
    const a = await attach('quiet-a', 'quiet', [port('8090:80')]);
    await world.serve(a.netns, 80, 'a sees ');
    expect(await world.ask(ns('outsider'), ipv4('quiet-a'), 80)).not.toContain('a sees');
    // Their published ports stay open to neighbours, but not where br_netfilter rewrites while bridging: the rewritten frame
    // goes from one isolated port to another, and the bridge drops it (README, "what is closed").
    const throughHost = await world.ask(ns('outsider'), '192.0.2.2', 8090);
    if (existsSync('/proc/sys/net/bridge')) expect(throughHost).toBe('timeout');
    else expect(throughHost).toContain('a sees');
    expect(await world.ask(lan, '192.0.2.2', 8090)).toBe('a sees 192.0.2.1');
    await networks.detach('quiet-a');
    expect(await world.ask(lan, '192.0.2.2', 8090)).toBe('refused');
  });

  it('a port bound to one address is open there alone', async () => {
    const only = await attach('only', 'front', [port('8091:80', '127.0.0.1')]);
    await world.serve(only.netns, 80, 'only ');
    expect(await world.ask(host, '127.0.0.1', 8091)).toContain('only');
    expect(await world.ask(lan, '192.0.2.2', 8091)).toBe('refused');
    await networks.detach('only');
  });

  it('a port that is taken says by whom, and nothing is left of the attempt', async () => {
    const before = world.run(host, 'ip', '-br', 'link');
    await expect(attach('second', 'front', [port('8080:81')])).rejects.toThrow(/8080.*allocated by container web/);
    await expect(attach('second', 'front', [port('7000:81')])).rejects.toThrow(
      /7000\/tcp failed: port is already allocated/,
    );
    expect(networks.sandbox('second')).toBeUndefined();
    await expect
      .poll(() => world.run(host, 'ip', '-br', 'link').split('\n').length, { timeout: 10_000 })
      .toBe(before.split('\n').length);
    const third = await attach('third', 'front', [port('8080-8085:81'), port(':82')]);
    expect(third.ports.map((p) => p.hostPort)).toEqual([8081, 8081, 32768, 32768]);
    await networks.detach('third');
  });

  it('names are answered at 127.0.0.11 by datagram and stream, and port 53 stays free', async () => {
    const lookup = (from: string, name: string, type: 'A' | 'AAAA' | 'PTR', how: string): Promise<string> =>
      world.runAside(ns(from), process.execPath, '-e', ASK, name, type, how, DNS_LIBRARY);
    expect(await lookup('client', 'web', 'A', 'udp')).toBe(ipv4('web'));
    expect(await lookup('client', 'web.front', 'A', 'tcp')).toBe(ipv4('web'));
    expect(await lookup('client', 'web', 'AAAA', 'udp')).toBe(networks.sandbox('web')?.endpoints[0]?.ipv6);
    const reverse = `${ipv4('web').split('.').reverse().join('.')}.in-addr.arpa`;
    expect(await lookup('client', reverse, 'PTR', 'udp')).toBe('web.front');
    expect(await lookup('db', 'web', 'A', 'udp')).toBe('NXDOMAIN');
    world.run(
      ns('client'),
      process.execPath,
      '-e',
      "require('net').createServer().listen(53, '0.0.0.0', () => process.exit(0))",
    );
  });

  it('a running container joins a network and leaves it', async () => {
    await networks.connect('client', { network: 'back', names: ['client'] });
    await world.serve(ns('db'), 80, 'db sees ');
    const second = networks.sandbox('client')?.endpoints[1];
    expect(await world.ask(ns('client'), ipv4('db'), 80)).toBe(`db sees ${second?.ipv4}`);
    await networks.disconnect('client', 'back');
    expect(await world.ask(ns('client'), ipv4('db'), 80)).not.toContain('db sees');
    expect(world.run(ns('client'), 'ip', '-br', 'link')).not.toContain('eth1');
  });

  it('the network of the highest gateway priority has the default route, and of a running container it moves', async () => {
    const join = (network: string, gwPriority: number) => ({ network, names: ['way'], gwPriority });
    const way = await attach('way', 'front', [port('8088:80'), port('8089:80', '::1')]);
    await world.serve(way.netns, 80, 'way sees ');
    const routes = () =>
      ['-4', '-6'].map((family) =>
        world.run(way.netns, 'ip', family, 'route', 'show', 'default').match(/eth\d/g)?.join(),
      );
    /** Asked by loopback it sees the gateway of the network that its ports lead to. */
    const publishedIn = async () => {
      const seen = [await world.ask(host, '127.0.0.1', 8088), await world.ask(host, '::1', 8089)];
      return seen.map((text) => {
        const gateway = parseIp(text.replace('way sees ', ''));
        return networks.list().find((n) => n.subnets.some((s) => s.gateway.value === gateway.value))?.name;
      });
    };
    const fromLan = async () => [await world.ask(lan, '192.0.2.2', 8088), await world.ask(lan, 'fd00::2', 8088)];
    const open = ['way sees 192.0.2.1', 'way sees fd00::1'];
    expect(routes()).toEqual(['eth0', 'eth0']);

    await networks.connect('way', join('quiet', 5));
    expect(routes()).toEqual(['eth1', 'eth0']); // that network has no IPv6
    expect(await publishedIn()).toEqual(['quiet', 'front']);
    await expect.poll(fromLan, { timeout: 8_000 }).toEqual(open);
    expect(await world.ask(way.netns, '192.0.2.1', 9000)).toContain('lan sees');

    await networks.create({ name: 'aside', ipv6: true });
    await networks.connect('way', join('aside', 6));
    expect(routes()).toEqual(['eth2', 'eth2']);
    expect(await publishedIn()).toEqual(['aside', 'aside']);
    await expect.poll(fromLan, { timeout: 8_000 }).toEqual(open);

    await networks.disconnect('way', 'quiet');
    expect(routes()).toEqual(['eth2', 'eth2']);
    await networks.disconnect('way', 'aside');
    expect(routes()).toEqual(['eth0', 'eth0']);
    expect(await publishedIn()).toEqual(['front', 'front']);
    expect(await fromLan()).toEqual(open);

    await networks.connect('way', join('back', 9)); // internal: it leads nowhere
    expect(routes()).toEqual(['eth0', 'eth0']);
    await networks.disconnect('way', 'front');
    expect(routes()).toEqual([undefined, undefined]);
    expect(networks.sandbox('way')?.ports).toEqual([]);
    await networks.connect('way', join('aside', 0));
    expect(routes()).toEqual(['eth0', 'eth0']);
    await networks.detach('way');
    await networks.remove('aside');
  });

  it('the host’s firewall holds for published ports, at input as at forward', async () => {
    const nft = (text: string): string => world.run(host, 'nft', text);
    nft('add table inet fw');
    nft('add chain inet fw input { type filter hook input priority 0; policy drop; }');
    nft('add rule inet fw input iif lo accept');
    nft('add rule inet fw input ct state established,related accept');
    nft('add rule inet fw input ip saddr 10.9.0.0/16 tcp dport 8080 accept');
    await networks.firewall.refresh();
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('timeout');
    expect(await world.ask(host, '192.0.2.2', 8080)).toContain('web sees');
    const reach = async () => {
      const [said] = await networks.firewall.reach([{ protocol: 'tcp', port: 8080, address: '192.0.2.2' }]);
      return (name: string): unknown => said?.find(({ links }) => links.includes(name)) ?? said;
    };
    let by = await reach();
    expect(by('lo')).toMatchObject({ links: ['lo'], open: ['this host'] });
    expect(by('eth0')).toMatchObject({ open: ['10.9.0.0/16'], depends: [] });
    expect(by('*')).toMatchObject({ open: ['10.9.0.0/16'] });
    nft('add rule inet fw input iifname "eth0" tcp dport { 22, 8000-8999 } accept');
    await networks.firewall.refresh();
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
    by = await reach();
    expect(by('eth0')).toMatchObject({ links: ['eth0'], open: ['anywhere'] });
    expect(by('*')).toMatchObject({ open: ['10.9.0.0/16'] });
    // Each of these as the kernel answers: a range, sets, a jump, a part that is kept out, and what a packet does not say.
    nft('add set inet fw friends { type ipv4_addr; flags interval; elements = { 192.0.2.0/30, 198.51.100.7 } }');
    nft('add chain inet fw more');
    nft('flush chain inet fw input');
    nft('add rule inet fw input ct state established,related accept');
    nft('add rule inet fw input ip saddr 192.0.2.1-192.0.2.9 ip saddr != 192.0.2.1 accept');
    nft('add rule inet fw input iifname "eth*" jump more');
    nft('add rule inet fw more tcp dport != 8080 return');
    nft('add rule inet fw more ip saddr @friends accept');
    nft('add rule inet fw more ip saddr 203.0.113.0/24 ip ttl 9 accept');
    await networks.firewall.refresh();
    by = await reach();
    expect(by('eth0')).toEqual({
      links: ['eth0'],
      open: ['192.0.2.0-192.0.2.9', '198.51.100.7'],
      depends: ['203.0.113.0/24'],
    });
    expect(by('*')).toMatchObject({ open: ['192.0.2.2-192.0.2.9'] });
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
    nft('flush chain inet fw input');
    nft('add rule inet fw input iif lo accept');
    nft('add rule inet fw input ct state established,related accept');
    nft('add rule inet fw input iifname "eth0" tcp dport { 22, 8000-8999 } accept');
    nft('insert rule inet fw input tcp dport 8080 quota over 10 mbytes drop');
    await networks.firewall.refresh();
    expect(networks.firewall.notes).toMatchObject([
      { kind: 'closed', where: expect.stringContaining('inet fw input') },
    ]);
    expect((await reach())('eth0')).toMatchObject({ open: [] });
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('timeout');
    nft('flush chain inet fw input');
    nft('add chain inet fw input { policy accept; }');
    nft('add chain inet fw transit { type filter hook forward priority 0; policy drop; }');
    await networks.firewall.refresh();
    const front = networks.find('front').bridge;
    expect(networks.firewall.notes).toMatchObject([
      { kind: 'forward-drop', where: 'inet fw transit', bridges: expect.arrayContaining([front]) },
    ]);
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('timeout');
    nft('delete table inet fw');
    await networks.firewall.refresh();
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
  });

  it.each([
    [
      'a policy of nftables',
      ['nft add table ip fw', "nft 'add chain ip fw f { type filter hook forward priority 5; policy drop; }'"],
    ],
    [
      'a rule',
      [
        'nft add table inet fw',
        "nft 'add chain inet fw f { type filter hook forward priority 5; }'",
        'nft add rule inet fw f ct state established accept',
        'nft add rule inet fw f counter reject',
      ],
    ],
    [
      'dockerd beside us',
      [
        'iptables -P FORWARD DROP',
        'iptables -N DOCKER-USER',
        'iptables -A FORWARD -j DOCKER-USER',
        'iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        'iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT',
      ],
    ],
  ])('%s at the forward hook that stops containers is named, and its fix works as it stands', async (_, commands) => {
    const shell = (line: string): string => world.run(host, 'sh', '-c', line);
    const { bridge } = networks.find('front');
    const reach = async () => {
      const behind = { bridge, address: ipv4('web'), port: 80 };
      const [said] = await networks.firewall.reach([{ protocol: 'tcp', port: 8080, address: '192.0.2.2', behind }]);
      return said?.find(({ links }) => links.includes('eth0'))?.open;
    };
    expect([await networks.firewall.look(), await reach()]).toEqual([[], ['anywhere']]);
    try {
      for (const command of commands) shell(command);
      expect(await world.ask(lan, '192.0.2.2', 8080)).not.toContain('web sees');
      expect(await world.ask(ns('client'), '192.0.2.1', 9000)).not.toContain('lan sees');
      await networks.firewall.refresh(); // no input rule has changed: the notes have
      const notes = networks.firewall.notes.filter(({ bridges = [] }) => bridges.includes(bridge));
      expect([notes, await reach()]).toMatchObject([[{ kind: 'forward-drop' }], []]);
      for (const command of notes[0]?.fix.split('; ') ?? []) shell(command);
      expect(await networks.firewall.look()).toEqual([]);
      expect(await reach()).toEqual(['anywhere']);
      expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
      // Answers come back by what the host already accepts of connections that are known, or by the bridge's own rule.
      expect(await world.ask(ns('client'), '192.0.2.1', 9000)).toBe('lan sees 192.0.2.2');
    } finally {
      for (const table of ['ip fw', 'inet fw', 'ip filter']) shell(`nft delete table ${table} 2>/dev/null || true`);
      await networks.firewall.refresh();
    }
  });

  it('a daemon that comes back finds all as it was, without a moment’s pause of its ports', async () => {
    await networks.close();
    networks = await Networks.open({ ...options('est-a'), kernel: world.handIn(host), store, edge });
    expect(networks.sandbox('web')?.ports).toHaveLength(4);
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
    await expect(attach('second', 'front', [port('8080:81')])).rejects.toMatchObject({ code: 'PORT_TAKEN' });
    const again = await attach('again', 'front');
    expect([ipv4('web'), ipv4('client')]).not.toContain(again.endpoints[0]?.ipv4);
    await networks.detach('again');
  });

  it('two daemons on one host do not touch each other', async () => {
    const second = await Networks.open({
      ...options('est-b'),
      kernel: world.handIn(host),
      store: memoryStore(systemClock),
      edge: startEdge(),
    });
    const subnets = [...networks.list(), ...second.list()].flatMap((n) => n.subnets.map((s) => s.subnet.ip.value));
    expect(new Set(subnets).size).toBe(subnets.length);
    const box = await second.attach({
      id: 'x',
      name: 'x',
      endpoints: [{ network: 'bridge', names: [] }],
      ports: [port('8095:80')],
      dns: NO_DNS,
    });
    await world.serve(box.netns, 80, 'x sees ');
    expect(await world.ask(lan, '192.0.2.2', 8095)).toBe('x sees 192.0.2.1');
    expect(await world.ask(ns('client'), '192.0.2.2', 8095)).toContain('x sees');
    expect(await world.ask(ns('client'), box.endpoints[0]?.ipv4 ?? '', 80)).toBe('timeout');
    await expect(
      second.attach({
        id: 'y',
        name: 'y',
        endpoints: [{ network: 'bridge', names: [] }],
        ports: [port('8080:80')],
        dns: NO_DNS,
      }),
    ).rejects.toMatchObject({ code: 'PORT_TAKEN' });
    await second.detach('x');
    await second.removeAll();
    expect(world.run(host, 'nft', 'list', 'tables')).toBe('table inet est-a\n');
    expect(await world.ask(lan, '192.0.2.2', 8080)).toBe('web sees 192.0.2.1');
  });

  it('when all is gone nothing is left on the host', async () => {
    world.stopServers();
    for (const name of ['web', 'client', 'db', 'db2', 'outsider']) await networks.detach(name);
    for (const name of ['front', 'back', 'quiet']) await networks.remove(name);
    await networks.removeAll();
    await expect.poll(() => world.run(host, 'ip', '-br', 'link').match(/est-/g), { timeout: 10_000 }).toBeNull();
    expect(world.run(host, 'nft', 'list', 'ruleset')).toBe('');
    expect(world.run(host, 'ss', '-Hln').match(/8080|15353/g)).toBeNull();
  });
});

const ASK = `
const [name, type, how, lib] = process.argv.slice(1);
const dns = require(lib);
const query = { type: 'query', id: 5, flags: dns.RECURSION_DESIRED, questions: [{ name, type }] };
const say = (m) => { const a = m.answers[0]; process.stdout.write(a ? String(a.data) : m.rcode); process.exit(0); };
if (how === 'udp') {
  const s = require('dgram').createSocket('udp4');
  s.on('message', (m, from) => { if (from.port !== 53) throw new Error('from port ' + from.port); say(dns.decode(m)); });
  s.send(dns.encode(query), 53, '127.0.0.11');
} else {
  const s = require('net').connect(53, '127.0.0.11', () => s.write(dns.streamEncode(query)));
  s.on('data', (m) => say(dns.streamDecode(m)));
}`;
