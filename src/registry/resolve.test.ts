import { describe, expect, it } from 'vitest';
import { proxyFor, proxySettings } from '#registry/client/proxy.ts';
import { delayBeforeRetry, RETRIES, retryAfter } from '#registry/client/retry.ts';
import { isInsecure, parseTable, resolveName, withDockerFlags } from '#registry/resolve.ts';
import { formatReference } from '#spec/image/reference.ts';

const table = await parseTable(
  `
default: registry.corp/hub
aliases: { web: registry.corp/team/web:1 }
registries:
  docker.io: { mirrors: [http://127.0.0.1:5000, mirror.corp/dockerhub] }
  ghcr.io: { mirrors: [mirror.corp/ghcr], only: mirrors }
insecure: [registry.local:5000, 10.0.0.0/8, lab.corp]
rules:
  - { deny: docker.io/library/evil, because: it is }
  - { allow: registry.corp/** }
  - { allow: "docker.io/**" }
  - { allow: "ghcr.io/**" }
  - { deny: "**" }
`,
  'registries.yaml',
);
const named = (text: string): string => formatReference(resolveName(text, table).reference);

describe('names', () => {
  it('aliases stand for a whole first name and keep the tag that was written', () => {
    expect(named('web')).toBe('registry.corp/team/web:1');
    expect(named('web:2')).toBe('registry.corp/team/web:2');
    expect(named('web/sub')).toBe('registry.corp/hub/web/sub');
  });

  it('the default registry takes unqualified names, and docker.io stays docker.io where it was written', () => {
    expect(named('debian:12')).toBe('registry.corp/hub/debian:12');
    expect(named('docker.io/debian:12')).toBe('docker.io/library/debian:12');
  });

  it('mirrors come first, in order, each with its own path; a registry may have nothing but mirrors', () => {
    const hosts = (text: string) =>
      resolveName(text, table).endpoints.map((e) => `${e.schemes.join('|')}://${e.host}/${e.prefix}`);
    expect(hosts('docker.io/debian')).toEqual([
      'http://127.0.0.1:5000/',
      'https://mirror.corp/dockerhub/',
      'https://registry-1.docker.io/',
    ]);
    expect(hosts('ghcr.io/a/b')).toEqual(['https://mirror.corp/ghcr/']);
  });

  it('a refusal names the rule and its reason; the first that fits decides', () => {
    const denied = (text: string) => expect(() => resolveName(text, table));
    denied('docker.io/evil:1').toThrow(
      'docker.io/library/evil:1 is denied by the rule "deny: docker.io/library/evil" (it is)',
    );
    denied('quay.io/x/y').toThrow('"deny: **"');
    denied('docker.io/good').not.toThrow();
  });

  it("Docker's flags mean what they mean there: a mirror of docker.io, hosts and networks without TLS", () => {
    const flagged = withDockerFlags(
      {},
      { registryMirrors: ['https://m.corp'], insecureRegistries: ['192.168.0.0/16'] },
    );
    expect(resolveName('debian', flagged).endpoints.map((e) => e.role)).toEqual(['mirror', 'registry']);
    expect(resolveName('quay.io/x/y', flagged).endpoints).toHaveLength(1);
    expect(isInsecure('192.168.7.7:5000', flagged)).toBe(true);
  });

  it.each([
    ['registry.local:5000', true],
    ['registry.local', false],
    ['lab.corp:1234', true],
    ['10.1.2.3:5000', true],
    ['11.1.2.3', false],
    ['127.0.0.9:80', true],
    ['localhost:5000', true],
    ['[::1]:5000', true],
    ['example.com', false],
  ])('%s may be spoken to without TLS: %s', (host, expected) => {
    expect(isInsecure(host, table)).toBe(expected);
  });

  it('a table that does not fit its shape says where', async () => {
    await expect(parseTable('rules: [{ allow: a, deny: b }]', 'f')).rejects.toThrow(
      /\$\.rules\[0\].*needs either allow or deny/,
    );
    await expect(parseTable('registries: { a.b: { mirrors: ["ftp://x y"] } }', 'f')).rejects.toThrow(/is not \[http/);
  });
});

describe('proxies', () => {
  const settings = proxySettings({
    HTTPS_PROXY: 'proxy.corp:3128',
    http_proxy: 'http://u:p@proxy.corp',
    NO_PROXY: 'corp.example, .sub.net:8443,10.0.0.0/8,fd00::/8',
  });
  it.each([
    ['https://ghcr.io/', 'http://proxy.corp:3128'],
    ['http://ghcr.io/', 'http://u:p@proxy.corp'],
    ['https://corp.example/', undefined],
    ['https://a.corp.example/', undefined],
    ['https://notcorp.example/', 'http://proxy.corp:3128'],
    ['https://a.sub.net:8443/', undefined],
    ['https://a.sub.net/', 'http://proxy.corp:3128'],
    ['https://10.9.9.9/', undefined],
    ['https://[fd00::5]/', undefined],
    ['http://127.0.0.1:5000/', undefined],
    ['https://localhost/', undefined],
  ])('%s goes through %s', (url, expected) => {
    expect(proxyFor(new URL(url), settings)?.href.replace(/\/$/, '')).toBe(expected);
  });
});

describe('retries', () => {
  it('wait longer each time, not all alike, and not longer than a user would', () => {
    expect([1, 2, 3, 4].map((n) => delayBeforeRetry(RETRIES, n, 0, undefined))).toEqual([250, 500, 1000, undefined]);
    expect(delayBeforeRetry(RETRIES, 1, 0.99, undefined)).toBeLessThan(130);
    expect(delayBeforeRetry(RETRIES, 1, 0, 5_000)).toBe(5_000);
    expect(delayBeforeRetry(RETRIES, 1, 0, 3_600_000)).toBeUndefined();
    expect(retryAfter('120', 0)).toBe(120_000);
    expect(retryAfter('Thu, 01 Jan 1970 00:01:00 GMT', 10_000)).toBe(50_000);
  });
});
