import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OTHER_NETNS } from '#kernel/netlink/hand.ts';
import { formatCidr, formatIp, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import {
  addBridge,
  addMacvlan,
  addVeth,
  addVxlan,
  deleteLink,
  dumpLinks,
  parseLinks,
  setBridgePort,
  setLink,
} from '#kernel/netlink/link.ts';
import {
  addAddress,
  addForwarding,
  addNeighbour,
  addRoute,
  dumpAddresses,
  dumpRoutes,
  parseAddresses,
  parseRoutes,
} from '#kernel/netlink/route.ts';
import { type Message, NETLINK_ROUTE } from '#kernel/netlink/wire.ts';
import { NetWorld } from '../../../test/net/world.ts';

describe('rtnetlink against this kernel', () => {
  let world: NetWorld;
  let host: string;
  let box: string;
  const send = (messages: Message[], what = 'test') =>
    world.hand.netlink({ what, protocol: NETLINK_ROUTE, netns: host, messages });

  beforeAll(async () => {
    world = new NetWorld('network-nl');
    host = await world.netns('host');
    box = await world.netns('box');
  });
  afterAll(() => world.close());

  it('a bridge, a pair into another namespace, addresses and routes carry packets', async () => {
    await send([addBridge({ name: 'br', index: 20, up: true, options: { stp: false, multicastSnooping: false } })]);
    await send([
      addAddress({ index: 20, cidr: parseCidr('10.99.0.1/24') }),
      addAddress({ index: 20, cidr: parseCidr('fd99::1/64') }),
    ]);
    await world.hand.netlink({
      what: 'inside',
      protocol: NETLINK_ROUTE,
      netns: box,
      otherNetns: host,
      messages: [
        addVeth({
          name: 'eth0',
          index: 10,
          mac: Uint8Array.of(2, 0x42, 10, 99, 0, 2),
          peer: { name: 'v1', netns: { fd: OTHER_NETNS } },
        }),
        setLink({ index: 10 }, { up: true }),
        addAddress({ index: 10, cidr: parseCidr('10.99.0.2/24') }),
        addAddress({ index: 10, cidr: parseCidr('fd99::2/64') }),
        addRoute({ gateway: parseIp('10.99.0.1'), index: 10 }),
        addRoute({ gateway: parseIp('fd99::1'), index: 10 }),
      ],
    });
    await send([setLink({ name: 'v1' }, { master: 20, up: true })]);
    expect(world.run(box, 'busybox', 'ping', '-c1', '-W2', '10.99.0.1')).toContain('1 packets received');
    expect(world.run(box, 'busybox', 'ping', '-c1', '-W2', 'fd99::1')).toContain('1 packets received');
    expect(world.run(box, 'ip', 'route')).toContain('default via 10.99.0.1 dev eth0');
  });

  it('dumps say what ip says', async () => {
    const links = parseLinks(await send([dumpLinks()]));
    const shown = JSON.parse(world.run(host, 'ip', '-j', '-d', '-s', 'link'));
    expect(links.map((l) => [l.index, l.name, l.mtuBytes, l.kind])).toEqual(
      shown.map((l: { ifindex: number; ifname: string; mtu: number; linkinfo?: { info_kind: string } }) => [
        l.ifindex,
        l.ifname,
        l.mtu,
        l.linkinfo?.info_kind,
      ]),
    );
    const veth = links.find((l) => l.name === 'v1');
    expect(veth).toMatchObject({ master: 20, peer: 10 });
    expect(veth?.stats?.rxPackets).toBeGreaterThan(0n);
    const addresses = parseAddresses(await send([dumpAddresses()])).map((a) => formatCidr(a.cidr));
    expect(addresses).toEqual(expect.arrayContaining(['127.0.0.1/8', '10.99.0.1/24', 'fd99::1/64']));
    const routes = parseRoutes(await send([dumpRoutes()]));
    expect(routes.find((r) => r.destination && formatCidr(r.destination) === '10.99.0.0/24')).toMatchObject({
      index: 20,
      table: 254,
    });
    expect(routes.every((r) => r.destination !== undefined || r.gateway === undefined || formatIp(r.gateway))).toBe(
      true,
    );
  });

  it('ports can be isolated, links of other kinds made, neighbours and forwarding entries set', async () => {
    await send([
      setBridgePort({ name: 'v1' }, { isolated: true, hairpin: true }),
      addVxlan({ name: 'vx', index: 30, vni: 42, port: 4789, local: parseIp('10.99.0.1'), learning: false }),
      addForwarding({ index: 30, ip: parseIp('10.99.0.7'), mac: new Uint8Array(6) }),
      addNeighbour({ index: 20, ip: parseIp('10.99.0.9'), mac: Uint8Array.of(2, 0, 0, 0, 0, 9) }),
      addMacvlan({ name: 'mv', index: 31, parent: 20, mode: 'bridge' }),
    ]);
    expect(world.run(host, 'bridge', '-d', 'link', 'show', 'dev', 'v1')).toMatch(/hairpin on.*isolated on/s);
    expect(world.run(host, 'ip', '-d', 'link', 'show', 'vx')).toContain('vxlan id 42 local 10.99.0.1');
    expect(world.run(host, 'bridge', 'fdb', 'show', 'dev', 'vx')).toContain('dst 10.99.0.7');
    expect(world.run(host, 'ip', 'neigh')).toContain('10.99.0.9 dev br lladdr 02:00:00:00:00:09 PERMANENT');
    expect(world.run(host, 'ip', '-d', 'link', 'show', 'mv')).toContain('macvlan mode bridge');
  });

  it('a refusal names errno, the kernel’s words and the message, and what stands behind it is not sent', async () => {
    const twice = addBridge({ name: 'br' });
    await expect(
      send([setLink({ name: 'br' }, { up: true }), twice, deleteLink({ name: 'br' })], 'add bridge br'),
    ).rejects.toThrow(/add bridge br: EEXIST.*message 2 of its batch/);
    expect(world.run(host, 'ip', 'link', 'show', 'br')).toContain('UP');
    await expect(send([deleteLink({ name: 'nosuch' })])).rejects.toMatchObject({ code: 'NETLINK_REFUSED' });
  });
});
