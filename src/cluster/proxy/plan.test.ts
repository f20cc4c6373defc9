import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { type Compiled, compileService, type SetElement, spread } from '#cluster/proxy/elements.ts';
import { Changes, Mirror } from '#cluster/proxy/mirror.ts';
import { arrange, planService } from '#cluster/proxy/plan.ts';
import { type EndpointWish, service, slice } from '#cluster/proxy/testing/objects.ts';
import type { Service, ServiceSpec } from '#spec/kubernetes/types.gen.ts';

const HERE = { nodeName: 'node-1', hostPublishes: false };
const PORTS = [{ port: 80, protocol: 'TCP' as const }];
const live = (spec: Partial<ServiceSpec>): Live<Service> =>
  service('web', { clusterIP: '10.96.0.5', clusterIPs: ['10.96.0.5'], ports: PORTS, ...spec }) as Live<Service>;
const plan = (spec: Partial<ServiceSpec>, endpoints: readonly EndpointWish[]) =>
  planService(live(spec), [slice('web', endpoints)], HERE);
const targets = (p: ReturnType<typeof plan>): string[][] => p.pools.map((pool) => pool.targets.map((t) => t.ip));

describe('what a Service wishes of the kernel', () => {
  it('ready endpoints serve; those that end do not', () => {
    expect(
      targets(plan({}, [{ ip: '10.0.0.1' }, { ip: '10.0.0.2', ready: false }, { ip: '10.0.0.3', terminating: true }])),
    ).toEqual([['10.0.0.1']]);
  });

  it('a load balancer without a pool is served at its port of every address of the host, once it was granted', () => {
    const spec: Partial<ServiceSpec> = { type: 'LoadBalancer' };
    const at = (granted: boolean) =>
      planService(
        { ...live(spec), status: granted ? { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } : {} },
        [slice('web', [{ ip: '10.0.0.1' }])],
        { ...HERE, hostPublishes: true },
      ).frontends.map(({ address, port }) => `${address ?? 'host'}:${port}`);
    expect(at(false)).toEqual(['10.96.0.5:80']);
    expect(at(true)).toEqual(['10.96.0.5:80', 'host:80']);
  });

  it('endpoints that end serve when nobody else does, and are said to be leaving', () => {
    const p = plan({}, [
      { ip: '10.0.0.1', ready: false, serving: true, terminating: true },
      { ip: '10.0.0.2', ready: false, serving: false, terminating: true },
    ]);
    expect(targets(p)).toEqual([['10.0.0.1']]);
    expect(p.pools[0]?.leaving).toBe(true);
  });

  it('traffic from outside keeps to this node when asked to, traffic from inside does not', () => {
    const p = plan({ type: 'NodePort', externalTrafficPolicy: 'Local', ports: [{ port: 80, nodePort: 30080 }] }, [
      { ip: '10.0.0.1' },
      { ip: '10.1.0.1', node: 'node-2' },
    ]);
    expect(p.frontends.map((f) => [f.address ?? 'node', f.pool])).toEqual([
      ['10.96.0.5', 'IPv4 /tcp all'],
      ['node', 'IPv4 /tcp local'],
    ]);
    expect(targets(p)).toEqual([['10.0.0.1', '10.1.0.1'], ['10.0.0.1']]);
  });

  it('a local policy without a local endpoint drops, a Service without endpoints refuses', () => {
    const local = plan({ internalTrafficPolicy: 'Local' }, [{ ip: '10.1.0.1', node: 'node-2' }]);
    expect(local.pools[0]?.whenEmpty).toBe('drop');
    expect(plan({}, []).pools[0]?.whenEmpty).toBe('reject');
  });

  it('headless Services, external names and Services of another proxy are left alone', () => {
    expect(plan({ clusterIP: 'None' }, [{ ip: '10.0.0.1' }]).frontends).toEqual([]);
    expect(plan({ type: 'ExternalName' }, []).frontends).toEqual([]);
    const foreign = live({});
    foreign.metadata.labels = { 'service.kubernetes.io/service-proxy-name': 'other' };
    expect(planService(foreign, [], HERE).frontends).toEqual([]);
  });
});

describe('slots', () => {
  it('hold exactly the wanted, and nobody who stays moves unless into a hole', () => {
    const ids = fc.uniqueArray(fc.integer({ min: 0, max: 30 }).map(String), { maxLength: 20 });
    fc.assert(
      fc.property(ids, ids, (before, wanted) => {
        const after = arrange(before, new Set(wanted));
        expect([...after].sort()).toEqual([...wanted].sort());
        const moved = before.filter((id, at) => wanted.includes(id) && after[at] !== id);
        const removed = before.filter((id) => !wanted.includes(id));
        expect(moved.length).toBeLessThanOrEqual(removed.length);
      }),
    );
  });
});

describe('session affinity', () => {
  const ids = fc.uniqueArray(
    fc.integer({ min: 1, max: 200 }).map((n) => `10.0.0.${n} 80`),
    { minLength: 1, maxLength: 12 },
  );

  it('an endpoint that goes moves only its own clients', () => {
    fc.assert(
      fc.property(ids, (all) => {
        const before = spread(all);
        const [gone, ...rest] = all;
        const after = spread(rest);
        for (const [slot, id] of before.entries()) if (rest.length > 0 && id !== gone) expect(after[slot]).toBe(id);
      }),
    );
  });

  it('clients are shared evenly', () => {
    const counts = new Map<string, number>();
    for (const id of spread(['a', 'b', 'c', 'd'])) counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const count of counts.values()) expect(count).toBeGreaterThan(96);
  });
});

describe('the mirror of the kernel’s sets', () => {
  const endpoint = fc.record({ ip: fc.integer({ min: 1, max: 6 }).map((n) => `10.0.0.${n}`), ready: fc.boolean() });
  const state = fc.uniqueArray(endpoint, { selector: (e) => e.ip, maxLength: 6 });

  it('however endpoints come and go, the sent changes lead where a fresh start would', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('a', 'b'), state), { maxLength: 12 }), (steps) => {
        const kernel = new KernelSets();
        const mirror = new Mirror();
        const pools = new Map<string, Compiled['pools']>();
        for (const [name, endpoints] of steps) {
          const at = live({ clusterIP: name === 'a' ? '10.96.0.5' : '10.96.0.6' });
          at.metadata.name = name;
          at.spec = { ...at.spec, clusterIPs: [at.spec?.clusterIP ?? ''] };
          const compiled = compileService(
            planService(at, [slice(name, endpoints)], HERE),
            pools.get(name) ?? new Map(),
          );
          pools.set(name, compiled.pools);
          const changes = new Changes();
          mirror.wish(name, compiled.elements, changes);
          kernel.apply(changes);
          kernel.expectHolds(name, compiled.elements);
        }
        expect(kernel.size).toBe(mirror.size);
      }),
    );
  });

  it('an address two Services claim belongs to the first, and to the second once the first goes', () => {
    const mirror = new Mirror();
    const claim = (value: number): SetElement[] => [
      { set: 'front4', element: { key: Uint8Array.of(1), data: Uint8Array.of(value) } },
    ];
    mirror.wish('a', claim(1), new Changes());
    expect([...mirror.wish('b', claim(2), new Changes())]).toEqual(['a']);
    expect(mirror.waitingFor('a')).toEqual(['b']);
    const kernel = new KernelSets();
    kernel.sets.set('front4 01', '01');
    const changes = new Changes();
    mirror.wish('a', [], changes);
    expect([...mirror.wish('b', claim(2), changes)]).toEqual([]);
    kernel.apply(changes);
    expect(kernel.sets.get('front4 01')).toBe('02');
  });
});

/** Sets as strict as the kernel's: adding what is there, or deleting what is not, is an error. */
class KernelSets {
  readonly sets = new Map<string, string>();

  get size(): number {
    return this.sets.size;
  }

  apply(changes: Changes): void {
    for (const { do: act, set, key, value } of changes.list()) {
      const name = `${set} ${key}`;
      expect(this.sets.has(name)).toBe(act === 'remove');
      if (act === 'remove') this.sets.delete(name);
      else this.sets.set(name, value);
    }
  }

  expectHolds(_owner: string, elements: readonly SetElement[]): void {
    for (const { set, element } of elements)
      expect(this.sets.has(`${set} ${Buffer.from(element.key).toString('hex')}`)).toBe(true);
  }
}
