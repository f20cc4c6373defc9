import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { OwnCertificates } from '#cluster/ingress/own-certificates.ts';

const DAY_MS = 86_400_000;

describe('certificates of our own authority', () => {
  it('one a host, forgotten with it, made anew long before it ends', async () => {
    const clock = new FakeClock(0);
    const issued: string[] = [];
    const own = new OwnCertificates(clock, (host) => ({ certificate: `${host} ${issued.push(host)}`, key: '' }));
    const told: string[] = [];
    const stop = own.keepFresh((_, { certificate }) => told.push(certificate));
    expect([own.of('a').certificate, own.of('b').certificate, own.of('a').certificate]).toEqual(['a 1', 'b 2', 'a 1']);
    own.keepOnly((host) => host === 'a');
    for (let day = 0; day < 179; day++) await clock.advance(DAY_MS);
    expect(told).toEqual([]);
    await clock.advance(DAY_MS);
    expect(told).toEqual(['a 3']);
    expect([own.of('a').certificate, own.of('b').certificate]).toEqual(['a 3', 'b 4']);
    stop();
    for (let day = 0; day < 400; day++) await clock.advance(DAY_MS);
    expect(told).toEqual(['a 3']);
  });
});
