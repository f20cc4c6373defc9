import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import { addVeth, parseLinks, setLink } from '#kernel/netlink/link.ts';
import { addAddress, addRoute, parseAddresses, parseRoutes } from '#kernel/netlink/route.ts';
import { answers, attr, attributeList, attributes, decode, encode, nested, str, u32 } from '#kernel/netlink/wire.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('netlink messages', () => {
  it('a veth pair with its peer in another namespace is this one message', () => {
    const message = addVeth({
      name: 'v0',
      master: 7,
      up: true,
      peer: { name: 'eth0', index: 10, netns: { pid: 4242 } },
    });
    expect(
      hex(encode([message]))
        .replace(/(.{32})/g, '$1\n')
        .trim(),
    ).toMatchSnapshot();
  });

  it('links, addresses and routes are read back as they were written', () => {
    const received = [
      ...decode(
        encode([
          setLink({ index: 3 }, { newName: 'eth0', mtuBytes: 1400, master: 9, up: true, alias: 'for web' }),
          addAddress({ index: 3, cidr: parseCidr('10.1.2.3/24') }),
          addAddress({ index: 3, cidr: parseCidr('fd00::3/64') }),
          addRoute({ gateway: parseIp('10.1.2.1'), index: 3 }),
          addRoute({ destination: parseCidr('fd01::/48'), gateway: parseIp('fd00::1'), metric: 7 }),
        ]),
      ),
    ];
    expect(received.map((message) => message.sequence)).toEqual([1, 2, 3, 4, 5]);
    expect(parseLinks(received)).toMatchObject([
      { index: 3, name: 'eth0', mtuBytes: 1400, master: 9, alias: 'for web' },
    ]);
    expect(parseAddresses(received)).toEqual([
      { index: 3, cidr: parseCidr('10.1.2.3/24') },
      { index: 3, cidr: parseCidr('fd00::3/64') },
    ]);
    expect(parseRoutes(received)).toEqual([
      { gateway: parseIp('10.1.2.1'), index: 3, table: 254 },
      { destination: parseCidr('fd01::/48'), gateway: parseIp('fd00::1'), metric: 7, table: 254 },
    ]);
  });

  it('a refusal is thrown with errno, the kernel’s words and its place in the batch', () => {
    const refusal = encode([{ type: 2, flags: 0x300, body: [] }]);
    const body = new Uint8Array(20);
    new DataView(body.buffer).setInt32(0, -17, true);
    new DataView(body.buffer).setUint32(4, 16, true);
    new DataView(body.buffer).setUint32(12, 3, true);
    const message = new Uint8Array([...refusal, ...body, ...str(1, 'no room')]);
    new DataView(message.buffer).setUint32(0, message.length, true);
    expect(() => answers(message, 'add link')).toThrow('add link: EEXIST (no room), message 3 of its batch');
  });

  it('bytes that were cut or made up never lead a reader out of them', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (junk) => {
        for (const read of [() => [...decode(junk)], () => attributeList(junk)]) {
          try {
            read();
          } catch (error) {
            expect(error).toMatchObject({ code: 'NETLINK_TRUNCATED' });
          }
        }
      }),
    );
  });

  it('attributes are padded to four bytes and nest', () => {
    const outer = nested(5, [attr(1, Uint8Array.of(1, 2, 3)), u32(2, 0xfffffffe)]);
    expect(outer.length % 4).toBe(0);
    const inner = attributes(attributes(outer).get(5) ?? new Uint8Array());
    expect([...(inner.get(1) ?? [])]).toEqual([1, 2, 3]);
    expect(hex(inner.get(2) ?? new Uint8Array())).toBe('feffffff');
  });
});
