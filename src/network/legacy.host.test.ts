import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { Forwarder } from '#network/dns/forward.ts';
import { EdgeServer } from '#network/edge-server.ts';
import { readLegacy } from '#network/legacy.ts';
import { Networks } from '#network/networks.ts';
import { memoryStore } from '#storage/memory.ts';
import { NetWorld } from '../../test/net/world.ts';

const log = logger('network', silentSink);
const DAEMON = 'est-xt';

/** What an INPUT rule of these conditions that accepts is to a new connection of 192.0.2.1 by eth0 to a port of 192.0.2.2 from 8100 to 8299. */
const CONDITIONS: readonly (readonly [conditions: string, fits: boolean])[] = [
  ['-s 192.0.2.1 -i eth0', true],
  ['! -s 192.0.2.0/29', false],
  ['-d 192.0.2.2/31 -i et+', true],
  ['! -i eth+', false],
  ['-p udp', false],
  ['! -p udp', true],
  ['-p tcp --dport 8100:8299', true],
  ['-p tcp ! --sport 1:1023', true],
  ['-p tcp --dport 8300', false],
  ['-p tcp -m multiport --dports 443,8150:8299,8100:8150', true],
  ['-p tcp -m multiport ! --dports 80,8000:9000', false],
  ['-p tcp --syn', true],
  ['-p tcp ! --tcp-flags SYN,ACK SYN', false],
  ['-m state --state NEW', true],
  ['-m conntrack ! --ctstate INVALID,UNTRACKED', true],
  ['-m conntrack --ctstate DNAT', false],
  ['-m conntrack ! --ctstatus SEEN_REPLY', true],
  ['-m iprange --src-range 192.0.2.1-192.0.2.3', true],
  ['-m iprange ! --dst-range 192.0.2.0-192.0.2.9', false],
  ['-m addrtype --dst-type LOCAL', true],
  ['-m addrtype ! --src-type UNICAST', false],
  ['-m comment --comment us', true],
];
const FIRST = { published: 8100, own: 8200 } as const;

describe('published ports on a host whose firewall is iptables-legacy', () => {
  let world: NetWorld;
  let host: string;
  let lan: string;
  let networks: Networks;
  let kernel: NetKernel;
  /** Lines of iptables-legacy, or as they stand where they begin with another name. */
  const rules = (...lines: string[]): void => {
    for (const line of lines) {
      const [command, ...args] = /^ip6?tables/.test(line) ? line.split(' ') : ['iptables-legacy', ...line.split(' ')];
      world.run(host, command ?? '', ...args, '-w');
    }
  };
  const fromLan = (): Promise<string> => world.ask(lan, '192.0.2.2', 8080);
  const reach = async (by = 'eth0'): Promise<string[] | undefined> => {
    const [said] = await networks.firewall.reach([{ protocol: 'tcp', port: 8080, address: '192.0.2.2' }]);
    return said?.find(({ links }) => links.includes(by))?.open;
  };
  const names = (): string => world.run(host, 'cat', '/proc/net/ip_tables_names', '/proc/net/ip6_tables_names');
  const tables = (): string => world.run(host, 'nft', 'list', 'ruleset');

  beforeAll(async () => {
    world = new NetWorld('legacy');
    ({ lan, host } = await world.lan());
    kernel = world.handIn(host);
    networks = await Networks.open({
      daemon: DAEMON,
      clock: systemClock,
      random: systemRandom,
      log,
      netnsDir: join(world.dir, `${DAEMON}-netns`),
      ipv6: true,
      poolSize: 0,
      mtuBytes: 1500,
      kernel,
      store: memoryStore(systemClock),
      edge: new EdgeServer({
        hand: world.handIn(host),
        forwarder: new Forwarder({ clock: systemClock, random: systemRandom }),
        clock: systemClock,
        log,
        stateFile: join(world.dir, 'edge.json'),
      }),
    });
    await networks.create({ name: 'front', ipv6: true });
    const web = await networks.attach({
      id: 'web',
      name: 'web',
      endpoints: [{ network: 'front', names: ['web'] }],
      ports: [8080, ...CONDITIONS.map((_, n) => FIRST.published + n)].map((hostPort) => {
        return { protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: String(hostPort) };
      }),
      dns: { servers: [], search: [], options: [] },
    });
    await world.serve(web.netns, 80, 'web sees ');
  });
  afterAll(async () => {
    await networks.removeAll();
    await world.close();
  });

  it('makes no table of iptables-legacy by looking for one', async () => {
    await networks.firewall.refresh();
    expect(await networks.firewall.look()).toEqual([]);
    expect(names()).toBe('');
  });

  describe('and has rules', () => {
    beforeEach(() => {
      rules('-P INPUT ACCEPT', '-P FORWARD ACCEPT', '-F', '-X');
      world.run(host, 'sh', '-c', 'nft delete table ip filter 2>/dev/null || true'); // that of iptables-nft
    });

    it('a policy of drop closes them, and opens them for the port, source and link it lets in', async () => {
      expect(await fromLan()).toBe('web sees 192.0.2.1');
      rules('-P INPUT DROP', '-A INPUT -i lo -j ACCEPT', '-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT');
      rules('-A INPUT -s 10.9.0.0/16 -p tcp --dport 8080 -j ACCEPT');
      await networks.firewall.refresh();
      expect([await fromLan(), await reach(), await reach('lo')]).toEqual(['timeout', ['10.9.0.0/16'], ['this host']]);
      expect(await world.ask(host, '192.0.2.2', 8080)).toContain('web sees');
      rules('-A INPUT -i eth+ -s 192.0.2.0/24 -p tcp -m multiport --dports 22,8000:8079 -j ACCEPT');
      await networks.firewall.refresh();
      expect(await fromLan()).toBe('timeout');
      rules('-N LET', '-A INPUT -i eth0 -p tcp --syn -m conntrack --ctstate NEW -g LET');
      rules('-A LET ! -s 192.0.2.1 -j RETURN', '-A LET -p tcp -m multiport --dports 22,8000:8999 -j ACCEPT');
      await networks.firewall.refresh();
      expect([await fromLan(), await reach()]).toEqual(['web sees 192.0.2.1', ['10.9.0.0/16', '192.0.2.1']]);
      expect(await reach('*')).toEqual(['10.9.0.0/16']);
      rules(
        '-I INPUT -p tcp ! --syn -j DROP',
        '-I INPUT -p tcp --dport 8080 -m iprange --src-range 192.0.2.1-192.0.2.9 -j REJECT',
      );
      await networks.firewall.refresh();
      expect([await fromLan(), networks.firewall.notes]).toEqual(['timeout', []]);
    });

    it.each(['iptables-legacy', 'iptables-nft'])(
      'each condition of %s holds for a published port as the kernel has it for one of the host',
      async (tool) => {
        rules(`${tool} -A INPUT -m state --state ESTABLISHED -j ACCEPT`, `${tool} -P INPUT DROP`);
        rules(`${tool} -A INPUT -m limit --limit 1/min -j LOG`);
        for (const [n, [conditions]] of CONDITIONS.entries()) {
          rules(`${tool} -N C${n}`, `${tool} -A C${n} ${conditions} -j ACCEPT`);
          rules(`${tool} -A INPUT -p tcp -m multiport --dports ${FIRST.published + n},${FIRST.own + n} -j C${n}`);
        }
        await networks.firewall.refresh();
        expect(networks.firewall.notes).toEqual([]);
        // Nobody listens on the host: one that is let in is refused.
        const said = await Promise.all(
          CONDITIONS.map(async ([conditions], n) => [
            conditions,
            await world.ask(lan, '192.0.2.2', FIRST.own + n),
            await world.ask(lan, '192.0.2.2', FIRST.published + n),
          ]),
        );
        expect(said).toEqual(
          CONDITIONS.map(([conditions, fits]) =>
            fits ? [conditions, 'refused', 'web sees 192.0.2.1'] : [conditions, 'timeout', 'timeout'],
          ),
        );
        const targets = CONDITIONS.map(
          (_, n) => ({ protocol: 'tcp', port: FIRST.published + n, address: '192.0.2.2' }) as const,
        );
        const answers = await networks.firewall.reach(targets);
        const open = answers.map((answer) => answer?.find(({ links }) => links.includes('eth0'))?.open ?? []);
        // 192.0.2.1 is the first of each range that the conditions leave.
        const isIn = open.map((ranges) => ranges.some((range) => /^(anywhere|192\.0\.2\.1\b)/.test(range)));
        expect(isIn).toEqual(CONDITIONS.map(([, fits]) => fits));
      },
    );

    it('a rule that is not understood closes them and is named by its number; one that only logs does not', async () => {
      rules(
        '-A INPUT -p tcp -m limit --limit 5/min -j LOG',
        '-A INPUT -p tcp --dport 8080 -m recent --name estiba-xt --rcheck -j DROP',
      );
      await networks.firewall.refresh();
      expect(networks.firewall.notes).toMatchObject([
        { kind: 'closed', where: 'iptables-legacy INPUT rule 2', says: expect.stringContaining('uses match recent') },
      ]);
      expect([await fromLan(), await reach()]).toEqual(['timeout', []]);
      rules('-I INPUT -p tcp --dport 8080 -j ACCEPT'); // the fix it names
      await networks.firewall.refresh();
      expect([await fromLan(), await reach()]).toEqual(['web sees 192.0.2.1', ['anywhere']]);
      rules('-F', '-A INPUT -p tcp --dport 8080 -j NFQUEUE');
      await networks.firewall.refresh();
      expect([await fromLan(), networks.firewall.notes]).toMatchObject([
        'timeout',
        [{ says: expect.stringContaining('uses target NFQUEUE') }],
      ]);
    });

    it('a change is seen while they are open, though the kernel tells nobody; counters that move are none', async () => {
      await networks.firewall.refresh();
      const mark = async (): Promise<string> => (await readLegacy(kernel)).mark;
      const [before, unchanged] = [tables(), await mark()];
      expect(await fromLan()).toBe('web sees 192.0.2.1');
      expect(await world.ask(host, '127.0.0.1', 9)).toBe('refused'); // counted by INPUT's policy
      expect(await mark()).toBe(unchanged);
      rules('-A INPUT -p tcp --dport 8080 -j DROP');
      await expect.poll(fromLan, { timeout: 20_000 }).toBe('timeout');
      rules('-D INPUT 1');
      await expect.poll(fromLan, { timeout: 20_000 }).toBe('web sees 192.0.2.1');
      expect(tables()).toBe(before); // nothing of what was copied is left
    });

    it('a drop at FORWARD is the kernel’s own; it is named, and its fix works as it stands', async () => {
      rules('-P FORWARD DROP');
      expect(await fromLan()).toBe('timeout');
      await networks.firewall.refresh();
      const [note] = networks.firewall.notes;
      expect(note).toMatchObject({ kind: 'forward-drop', where: 'iptables-legacy FORWARD' });
      rules(...(note?.fix.split('; ') ?? []));
      expect(await networks.firewall.look()).toEqual([]);
      expect(await fromLan()).toBe('web sees 192.0.2.1');
    });

    it('rules of ip6tables-legacy hold for IPv6 alone', async () => {
      const six = (): Promise<string> => world.ask(lan, 'fd00::2', 8080);
      await networks.firewall.refresh();
      await expect.poll(six, { timeout: 8_000 }).toBe('web sees fd00::1');
      // Without ICMPv6 no neighbour is found.
      rules('ip6tables-legacy -A INPUT -p icmpv6 -j ACCEPT', 'ip6tables-legacy -P INPUT DROP');
      await networks.firewall.refresh();
      expect([await six(), await fromLan()]).toEqual(['timeout', 'web sees 192.0.2.1']);
      rules('ip6tables-legacy -A INPUT -i eth0 -s fd00::/64 -p tcp --dport 8080 -j ACCEPT');
      await networks.firewall.refresh();
      expect(await six()).toBe('web sees fd00::1');
      rules('ip6tables-legacy -I INPUT -p tcp -m mark --mark 7 -j DROP');
      await networks.firewall.refresh();
      expect(networks.firewall.notes).toMatchObject([{ where: 'ip6tables-legacy INPUT rule 1' }]);
      expect([await six(), await fromLan()]).toEqual(['timeout', 'web sees 192.0.2.1']);
      rules('ip6tables-legacy -F', 'ip6tables-legacy -P INPUT ACCEPT');
      await networks.firewall.refresh();
      expect(await six()).toBe('web sees fd00::1');
    });
  });

  it('when all is gone nothing of ours is left in either', async () => {
    await networks.detach('web');
    await networks.removeAll();
    expect(tables()).toBe('');
    const policies = ['-P INPUT ACCEPT', '-P FORWARD ACCEPT', '-P OUTPUT ACCEPT', ''].join('\n');
    expect(world.run(host, 'iptables-legacy', '-S')).toBe(policies);
    expect(world.run(host, 'ip6tables-legacy', '-S')).toBe(policies);
  });
});
