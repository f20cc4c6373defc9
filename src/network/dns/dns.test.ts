import dns from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { replyTo, serverFailure } from '#network/dns/reply.ts';
import { addressOfReverse, reverseOf, Zone } from '#network/dns/zone.ts';
import type { EdgeEntry } from '#network/edge.ts';
import { formatError, questionOf } from '#spec/dns/message.ts';

const entry = (id: string, places: EdgeEntry['places'], more: Partial<EdgeEntry> = {}): EdgeEntry => ({
  id,
  upstreams: [],
  forward: true,
  places,
  holds: [],
  ...more,
});
const place = (network: string, names: string[], ...addresses: string[]) => ({
  network,
  domain: network,
  names,
  addresses,
});

describe('names of containers', () => {
  const zone = new Zone();
  zone.put(entry('web', [place('front', ['web', 'www'], '10.1.0.2', 'fd01::2')]));
  zone.put(entry('web2', [place('front', ['web2', 'www'], '10.1.0.3')]));
  zone.put(entry('db', [place('back', ['db'], '10.2.0.2')], { forward: false }));
  zone.put(
    entry('app', [place('front', ['app'], '10.1.0.9'), place('back', ['app'], '10.2.0.9')], { upstreams: ['9.9.9.9'] }),
  );

  it('are seen by those who share a network, with all who bear them', () => {
    expect(zone.answer('web', 'www', 'A')).toEqual({ kind: 'addresses', addresses: ['10.1.0.2', '10.1.0.3'] });
    expect(zone.answer('web', 'WWW.Front', 'AAAA')).toEqual({ kind: 'addresses', addresses: ['fd01::2'] });
    expect(zone.answer('app', 'db', 'A')).toEqual({ kind: 'addresses', addresses: ['10.2.0.2'] });
    expect(zone.answer('web', 'db', 'A')).toEqual({ kind: 'forward', upstreams: [] });
    expect(zone.answer('nobody', 'web', 'A')).toEqual({ kind: 'refuse' });
  });

  it('of another type are answered with nothing, so that nobody asks outside for them', () => {
    expect(zone.answer('web', 'web2', 'AAAA')).toEqual({ kind: 'nothing' });
    expect(zone.answer('web', 'web2', 'MX')).toEqual({ kind: 'nothing' });
  });

  it('are found by address', () => {
    expect(zone.answer('web2', reverseOf('10.1.0.2'), 'PTR')).toEqual({ kind: 'name', name: 'web.front' });
    expect(zone.answer('web2', reverseOf('fd01::2'), 'PTR')).toEqual({ kind: 'name', name: 'web.front' });
    expect(zone.answer('app', reverseOf('1.1.1.1'), 'PTR')).toEqual({ kind: 'forward', upstreams: ['9.9.9.9'] });
    expect(addressOfReverse(reverseOf('fd01::2'))).toBe('fd01::2');
  });

  it('of a link are known to who has it alone', () => {
    zone.put(entry('linking', [{ ...place('front', ['linking'], '10.1.0.8'), links: { sql: 'web2' } }]));
    expect(zone.answer('linking', 'sql', 'A')).toEqual({ kind: 'addresses', addresses: ['10.1.0.3'] });
    expect(zone.answer('linking', 'SQL.front', 'A')).toEqual({ kind: 'addresses', addresses: ['10.1.0.3'] });
    expect(zone.answer('web', 'sql', 'A')).toEqual({ kind: 'forward', upstreams: [] });
    zone.drop('linking');
  });

  it('of outside are nobody’s business in internal networks', () => {
    expect(zone.answer('db', 'example.org', 'A')).toEqual({ kind: 'refuse' });
  });

  it('after any puts and drops the answers are those of a zone built afresh', () => {
    const id = fc.constantFrom('a', 'b', 'c');
    const step = fc.oneof(
      fc.record({ drop: id }),
      fc.record({
        id,
        names: fc.subarray(['n', 'm', 'o']),
        addresses: fc.subarray(['10.0.0.1', '10.0.0.2']),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const worn = new Zone();
        for (const s of steps) {
          if ('drop' in s) worn.drop(s.drop);
          else worn.put(entry(s.id, [place('x', s.names, ...s.addresses)]));
        }
        const fresh = new Zone();
        for (const e of worn.entries()) fresh.put(e);
        for (const name of ['n', 'm', 'o'])
          for (const asker of ['a', 'b', 'c']) {
            const sorted = (zone: Zone): unknown => {
              const answer = zone.answer(asker, name, 'A');
              return answer.kind === 'addresses' ? answer.addresses.sort() : answer;
            };
            expect(sorted(worn)).toEqual(sorted(fresh));
          }
      }),
    );
  });
});

describe('DNS messages', () => {
  const query = dns.encode({
    type: 'query',
    id: 77,
    flags: dns.RECURSION_DESIRED,
    questions: [{ type: 'A', name: 'www' }],
  });

  it('carry the addresses, a different one first each time', () => {
    const answer = { kind: 'addresses' as const, addresses: ['10.1.0.2', '10.1.0.3'] };
    const first = (turn: number): unknown =>
      dns.decode(Buffer.from(replyTo(query, answer, { stream: false, turn }))).answers?.[0];
    expect(first(0)).toMatchObject({ type: 'A', name: 'www', data: '10.1.0.2' });
    expect(first(1)).toMatchObject({ type: 'A', name: 'www', data: '10.1.0.3' });
  });

  it('that do not fit a datagram are cut and marked, so that the client comes by TCP', () => {
    const answer = { kind: 'addresses' as const, addresses: Array.from({ length: 60 }, (_, i) => `10.1.0.${i + 1}`) };
    expect(dns.decode(Buffer.from(replyTo(query, answer, { stream: false, turn: 0 }))).flag_tc).toBe(true);
    expect(dns.decode(Buffer.from(replyTo(query, answer, { stream: true, turn: 0 }))).answers).toHaveLength(60);
  });

  it('failures keep id and question', () => {
    const failed = dns.decode(Buffer.from(serverFailure(query)));
    expect(failed).toMatchObject({ id: 77, rcode: 'SERVFAIL', questions: [{ name: 'www' }] });
    const none = dns.decode(Buffer.from(replyTo(query, { kind: 'refuse' }, { stream: false, turn: 0 })));
    expect(none).toMatchObject({ id: 77, rcode: 'NXDOMAIN' });
  });

  it('any bytes are a question or are not; none throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 12, maxLength: 64 }), (junk) => {
        if (questionOf(junk) === undefined) expect(formatError(junk)).toHaveLength(12);
      }),
    );
  });
});
