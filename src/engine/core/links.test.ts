import { describe, expect, it } from 'vitest';
import { linkedNames, linkVariables, oldLinks, parseLink } from '#engine/core/links.ts';
import type { ContainerRecord } from '#engine/core/record.ts';

const record = (change: { id: string; name: string; links?: string[]; network?: string; ports?: string[] }) =>
  ({
    id: change.id,
    name: change.name,
    spec: {
      namespaces: { network: { kind: 'private' } },
      network: { endpoints: [{ network: change.network ?? 'bridge' }], links: change.links ?? [] },
    },
    process: { exposedPorts: change.ports ?? [], env: ['PATH=/bin', 'USER=me', 'HOME=/'] },
    endpoints: { bridge: { ipv4: '172.17.0.2' } },
  }) as unknown as ContainerRecord;

describe('old links', () => {
  it('are read as clients write them and as inspect shows them', () => {
    expect(['db:store', 'db', '/db:/web/store'].map(parseLink)).toEqual([
      { target: 'db', alias: 'store' },
      { target: 'db', alias: 'db' },
      { target: 'db', alias: 'store' },
    ]);
  });

  it('belong to the default bridge alone', () => {
    expect(oldLinks(record({ id: 'a', name: 'web', links: ['db'] }).spec)).toHaveLength(1);
    expect(oldLinks(record({ id: 'a', name: 'web', links: ['db'], network: 'app' }).spec)).toEqual([]);
  });

  it('give their target one more name', () => {
    const records = [
      record({ id: 'abc', name: 'db' }),
      record({ id: 'x', name: 'web', links: ['db:store', 'ab:too'] }),
    ];
    expect(linkedNames(records)).toEqual(new Map([['abc', ['/web/store', '/web/too']]]));
  });

  it('tell where each exposed port is, the lowest first, and what the target was told', () => {
    const target = record({ id: 'a', name: 'db', ports: ['53/udp', '53/tcp', '80/tcp'] });
    const [first, ...rest] = linkVariables('web', 'my-db', target);
    expect(first).toBe('MY_DB_PORT=tcp://172.17.0.2:53');
    expect(rest).toContain('MY_DB_PORT_80_TCP_ADDR=172.17.0.2');
    expect(rest).toContain('MY_DB_PORT_53_UDP=udp://172.17.0.2:53');
    expect(rest.slice(-2)).toEqual(['MY_DB_NAME=/web/my-db', 'MY_DB_ENV_USER=me']);
  });

  it('tell three ports in a row as a range too', () => {
    const ports = ['80/tcp', '81/tcp', '82/tcp', '90/tcp', '91/tcp'];
    const told = linkVariables('web', 'db', record({ id: 'a', name: 'db', ports }));
    expect(told.filter((v) => /_START=|_END=/.test(v))).toEqual([
      'DB_PORT_80_TCP_START=tcp://172.17.0.2:80',
      'DB_PORT_80_TCP_PORT_START=80',
      'DB_PORT_80_TCP_END=tcp://172.17.0.2:82',
      'DB_PORT_80_TCP_PORT_END=82',
    ]);
  });
});
