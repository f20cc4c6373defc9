import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { merged, planPolicies, type Range, without } from '#cluster/proxy/policy.ts';
import type { NetworkPolicy, NetworkPolicySpec, Pod } from '#spec/kubernetes/types.gen.ts';

const pod = (namespace: string, name: string, ip: string, spec: Partial<Pod['spec']> = {}): Pod => ({
  metadata: { namespace, name, labels: { app: name } },
  spec: { containers: [{ name: 'c', image: 'i', ports: [{ name: 'http', containerPort: 8080 }] }], ...spec },
  status: { phase: 'Running', podIP: ip },
});
const namespaces = ['a', 'b'].map((name) => ({ metadata: { name, labels: { name } }, spec: {} }));
const pods = [pod('a', 'web', '10.0.0.1'), pod('a', 'db', '10.0.0.2'), pod('b', 'web', '10.0.1.1')];
const policy = (spec: NetworkPolicySpec): NetworkPolicy => ({ metadata: { namespace: 'a', name: 'p' }, spec });
const plan = (spec: NetworkPolicySpec) => planPolicies({ policies: [policy(spec)], pods, namespaces });
const addresses = (ranges: readonly Range[] | undefined): string[] =>
  (ranges ?? []).map(({ first, last }) => `${first.toString(16)}-${last.toString(16)}`);

describe('what a policy wishes', () => {
  it('an empty selector and no rule: everybody in the namespace is closed, nobody elsewhere', () => {
    const { rules, subjects } = plan({ podSelector: {} });
    expect(rules).toEqual([]);
    expect(subjects.map((s) => [s.ip, s.direction])).toEqual([
      ['10.0.0.1', 'ingress'],
      ['10.0.0.2', 'ingress'],
    ]);
  });

  it('peers are pods here, pods of chosen namespaces, both at once, or addresses with holes', () => {
    const from = (peer: NonNullable<NonNullable<NetworkPolicySpec['ingress']>[number]['from']>[number]) =>
      addresses(plan({ podSelector: {}, ingress: [{ from: [peer] }] }).rules[0]?.peers?.[4]);
    expect(from({ podSelector: { matchLabels: { app: 'web' } } })).toEqual(['a000001-a000001']);
    expect(from({ namespaceSelector: { matchLabels: { name: 'b' } } })).toEqual(['a000101-a000101']);
    expect(from({ namespaceSelector: {}, podSelector: { matchLabels: { app: 'web' } } })).toEqual([
      'a000001-a000001',
      'a000101-a000101',
    ]);
    expect(from({ ipBlock: { cidr: '192.0.2.0/30', except: ['192.0.2.1/32'] } })).toEqual([
      'c0000200-c0000200',
      'c0000202-c0000203',
    ]);
  });

  it('ports are numbers, ranges, or names that each pod has its own number for', () => {
    const ports = plan({
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ ports: [{ port: 80 }, { port: 100, endPort: 200, protocol: 'UDP' }, { port: 'http' }] }],
    }).rules[0]?.ports;
    expect(ports).toEqual([
      { protocol: 'tcp', first: 80, last: 80 },
      { protocol: 'udp', first: 100, last: 200 },
      { protocol: 'tcp', first: 8080, last: 8080, pod: '10.0.0.1' },
    ]);
  });

  it('pods on the host’s network and pods that are over are nobody’s', () => {
    const gone = { ...pod('a', 'old', '10.0.0.9'), status: { phase: 'Succeeded' as const, podIP: '10.0.0.9' } };
    const host = pod('a', 'host', '192.0.2.1', { hostNetwork: true });
    expect(planPolicies({ policies: [policy({ podSelector: {} })], pods: [gone, host], namespaces }).subjects).toEqual(
      [],
    );
  });
});

describe('ranges of addresses', () => {
  const range = fc
    .tuple(fc.nat(60), fc.nat(20))
    .map(([first, length]) => ({ first: BigInt(first), last: BigInt(first + length) }));
  const all = (ranges: readonly Range[]): number[] =>
    Array.from({ length: 100 }, (_, n) => n).filter((n) =>
      ranges.some((r) => BigInt(n) >= r.first && BigInt(n) <= r.last),
    );

  it('merging keeps every address and leaves no two that touch', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 8 }), (ranges) => {
        const out = merged(ranges);
        expect(all(out)).toEqual(all(ranges));
        for (const [n, r] of out.entries()) if (n > 0) expect(r.first).toBeGreaterThan((out[n - 1]?.last ?? 0n) + 1n);
      }),
    );
  });

  it('holes are cut out, nothing else', () => {
    fc.assert(
      fc.property(range, fc.array(range, { maxLength: 5 }), (whole, holes) => {
        expect(all(without(whole, holes))).toEqual(all([whole]).filter((n) => !all(holes).includes(n)));
      }),
    );
  });
});
