import { describe, expect, it } from 'vitest';
import { weightOfShares } from '#kernel/cgroup/convert.ts';
import type { Host } from '#kernel/cgroup/hosts.ts';
import { hybridHost, v1Host, v2Host } from '#kernel/cgroup/hosts.ts';
import { detectLayout, hierarchyOf } from '#kernel/cgroup/layout.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { pathMap, placesFor } from '#kernel/cgroup/place.ts';
import type { CgroupRequest } from '#kernel/cgroup/plan.ts';
import { delegationSteps, execDir, planCgroup, planUpdate, removeOps } from '#kernel/cgroup/plan.ts';
import type { CgroupResources } from '#kernel/cgroup/resources.ts';
import { freezeOps, freezerState, oomKills, processesIn } from '#kernel/cgroup/state.ts';
import { readStats } from '#kernel/cgroup/stats.ts';
import { treeFiles } from '#kernel/files.ts';
import { printPlan } from '#kernel/plan/print.ts';

const GIB = 2 ** 30;

const EVERYTHING: CgroupResources = {
  devices: [
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', major: 10, minor: 229, access: 'rwm' },
  ],
  cpu: { shares: 512, quota: 50_000, period: 100_000, burst: 1_000, cpus: '0-1', mems: '0', idle: 0 },
  memory: { limit: GIB, swap: 2 * GIB, reservation: GIB / 2 },
  pids: { limit: 100 },
  blockIO: {
    weight: 500,
    throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1048576 }],
    throttleWriteIOPSDevice: [{ major: 8, minor: 0, rate: 100 }],
  },
};

const HOSTS: Record<string, () => Host> = { v1: v1Host, hybrid: hybridHost, v2: v2Host };
const plan = (host: Host, request: Partial<CgroupRequest>) =>
  planCgroup({ id: 'web', ...request }, host.layout, host.files);

describe('plans for a new cgroup', () => {
  const requests: Record<string, Partial<CgroupRequest>> = {
    nothing: {},
    everything: { cgroupsPath: '/estiba/web', resources: EVERYTHING },
  };
  for (const [name, make] of Object.entries(HOSTS))
    for (const [wish, request] of Object.entries(requests))
      it(`on ${name}, asking for ${wish}`, async () => {
        const { create, join, cloneInto, warnings } = plan(make(), request);
        const text = `${printPlan({ steps: [...create, ...join] })}\nclone into: ${cloneInto ?? '-'}\n${warnings.join('\n')}`;
        await expect(text).toMatchFileSnapshot(`case/${name}-${wish}.txt`);
      });

  it('use the unified hierarchy of a hybrid host only for what lives there', () => {
    const { create, cloneInto } = plan(hybridHost(), { resources: { unified: { 'hugetlb.2MB.max': '0' } } });
    expect(cloneInto).toBe('/sys/fs/cgroup/unified/web');
    expect(printPlan({ steps: create })).toContain('write 0 to /sys/fs/cgroup/unified/web/hugetlb.2MB.max');
    expect(plan(hybridHost(), {}).cloneInto).toBeUndefined();
  });

  it('take back every directory they make and none that they find', () => {
    const { create } = plan(v2Host(), { cgroupsPath: '/system.slice/new/web' });
    const undone = create.flatMap((step) => (step.undo ?? []).map((op) => [op.op, 'path' in op ? op.path : '']));
    expect(undone).toEqual([
      ['rmdir', '/sys/fs/cgroup/system.slice/new'],
      ['removeCgroup', '/sys/fs/cgroup/system.slice/new/web'],
    ]);
  });

  it('refuse what the host cannot grant, by path', () => {
    const cases: [Host, CgroupResources, string][] = [
      [
        v1Host(),
        { rdma: { mlx5_0: { hcaHandles: 1 } } },
        '$.linux.resources.rdma: the cgroup controller rdma is not available',
      ],
      [v1Host(), { unified: { 'memory.max': '1' } }, '$.linux.resources.unified: there is no cgroup v2 hierarchy here'],
      [hybridHost(), { unified: { 'memory.max': '1' } }, 'cgroup v2 has no controller memory here'],
      [v1Host(), { blockIO: { leafWeight: 10 } }, '.blockIO.leafWeight: no kernel since 5.0 has leaf weights'],
      [v2Host(), { network: { classID: 5 } }, '.network.classID: the cgroup controller net_cls is not available'],
      [v2Host(), { memory: { swappiness: 10 } }, '.memory.swappiness: cgroup v2 has nothing like it'],
      [v2Host(), { memory: { disableOOMKiller: true } }, '.memory.disableOOMKiller'],
      [v2Host(), { cpu: { realtimeRuntime: 1000 } }, '.cpu.realtimeRuntime'],
      [v2Host(), { memory: { swap: GIB } }, '.memory.swap: counts memory and swap together'],
      [v2Host(), { memory: { limit: GIB, swap: 5 } }, '.memory.swap: 5 (memory and swap together) is less than'],
      [v1Host(), { cpu: { shares: 1 } }, '.cpu.shares: 1 is not between 2 and 262144'],
      [v1Host(), { cpu: { quota: 1000, burst: 2000 } }, '.cpu.burst: 2000 is larger than the quota'],
      [v1Host(), { blockIO: { weight: 5 } }, '.blockIO.weight: 5 is not between 10 and 1000'],
    ];
    for (const [host, resources, message] of cases) expect(() => plan(host, { resources })).toThrow(message);
  });

  it('say which wishes hold in another way', () => {
    expect(plan(v1Host(), { resources: { memory: { kernel: GIB, useHierarchy: false } } }).warnings).toEqual([
      '$.linux.resources.memory.kernel: no kernel since 5.16 limits its own memory apart; it counts in memory.limit',
      '$.linux.resources.memory.useHierarchy: no kernel since 5.11 accounts without hierarchy',
    ]);
  });

  it('refuse a frozen cgroup and warn of one with processes', () => {
    const frozen = v2Host({
      '/sys/fs/cgroup/web/cgroup.freeze': '1\n',
      '/sys/fs/cgroup/web/cgroup.events': 'populated 1\nfrozen 1\n',
    });
    expect(() => plan(frozen, { cgroupsPath: '/web' })).toThrow('cgroup unexpectedly frozen (/sys/fs/cgroup/web)');
    const busy = v2Host({ '/sys/fs/cgroup/web/cgroup.procs': '77\n' });
    expect(plan(busy, { cgroupsPath: '/web' }).warnings[0]).toContain('not empty');
  });

  it('leave hierarchies out that a user may not write to, unless a limit needs one', () => {
    const host = v2Host();
    const files = { ...host.files, writable: () => false };
    const rootless = { id: 'web', rootless: true };
    expect(planCgroup(rootless, host.layout, files)).toMatchObject({ places: [], create: [], join: [] });
    expect(() => planCgroup({ ...rootless, resources: { pids: { limit: 5 } } }, host.layout, files)).toThrow(
      '$.linux.resources.pids: this user may not make cgroups there',
    );
  });

  it('do not hand controllers down from a cgroup with processes in it', () => {
    const host = v2Host({
      '/sys/fs/cgroup/busy/cgroup.procs': '9\n',
      '/sys/fs/cgroup/busy/cgroup.controllers': 'pids io',
    });
    expect(() => plan(host, { cgroupsPath: '/busy/web', resources: { blockIO: { weight: 100 } } })).toThrow(
      '/sys/fs/cgroup/busy has processes in it, so it cannot hand io down',
    );
    expect(
      plan(host, { cgroupsPath: '/busy/web' }).create.some(
        (s) => 'path' in s && s.path.startsWith('/sys/fs/cgroup/busy/cgroup.'),
      ),
    ).toBe(false);
  });
});

describe('cgroupsPath', () => {
  const paths = (path: string | undefined, host: Host): string[] =>
    placesFor(path, 'id1', host.layout.hierarchies).map((place) => place.path);

  it('is taken from the mount when absolute, from our own cgroup when not', () => {
    expect(paths('/a/b', v2Host())).toEqual(['/a/b']);
    expect(paths('a/b', v2Host())).toEqual(['/system.slice/a/b']);
    expect(paths(undefined, v2Host())).toEqual(['/system.slice/id1']);
    expect(paths('a', v1Host('/own'))[0]).toBe('/own/a');
  });

  it('never leads out of the mount, nor to its top', () => {
    expect(paths('/../../etc/x', v2Host())).toEqual(['/etc/x']);
    expect(paths('../../../x', v2Host())).toEqual(['/system.slice/x']);
    for (const bad of ['/', '/a/..', '.', '..']) expect(() => paths(bad, v2Host())).toThrow('top of the hierarchy');
  });

  it('gives the map that runc keeps', () => {
    expect(pathMap(placesFor('/a', 'x', hybridHost().layout.hierarchies))).toMatchObject({
      memory: '/sys/fs/cgroup/memory/a',
      'name=systemd': '/sys/fs/cgroup/systemd/a',
      '': '/sys/fs/cgroup/unified/a',
    });
  });
});

describe('layouts', () => {
  it('are told by the mounts, controller by controller', () => {
    expect([v1Host(), hybridHost(), v2Host()].map((h) => h.layout.kind)).toEqual(['v1', 'hybrid', 'v2']);
    expect(hierarchyOf(hybridHost().layout, 'hugetlb')?.mount).toBe('/sys/fs/cgroup/unified');
    expect(hierarchyOf(hybridHost().layout, 'io')?.mount).toBe('/sys/fs/cgroup/blkio');
    expect(detectLayout({ mountinfo: '', cgroup: '', controllersOf: () => undefined }).kind).toBe('none');
  });

  it('know controllers that share a hierarchy, and mounts that show one twice', () => {
    const mountinfo =
      '40 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n' +
      '41 30 0:30 / /other/cpu rw - cgroup cgroup rw,cpu,cpuacct\n';
    const layout = detectLayout({ mountinfo, cgroup: '1:cpu,cpuacct:/own\n', controllersOf: () => undefined });
    expect(layout.hierarchies).toHaveLength(1);
    expect(hierarchyOf(layout, 'cpuacct')).toBe(hierarchyOf(layout, 'cpu'));
    const places = placesFor('/a', 'x', layout.hierarchies);
    expect(pathMap(places)).toEqual({ cpu: '/sys/fs/cgroup/cpu,cpuacct/a', cpuacct: '/sys/fs/cgroup/cpu,cpuacct/a' });
    expect(placesFor('a', 'x', layout.hierarchies)[0]?.path).toBe('/own/a');
  });

  it('see through mounts that show a part of the hierarchy, as in containers', () => {
    const layout = detectLayout({
      mountinfo: '40 30 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n',
      cgroup: '4:memory:/docker/abc/inner\n',
      controllersOf: () => undefined,
    });
    expect(layout.hierarchies[0]).toMatchObject({ root: '/docker/abc', own: '/inner' });
  });
});

describe('updates', () => {
  const dir = '/sys/fs/cgroup/memory/web';
  const places: CgroupPlace[] = [
    { version: 1, mount: '/sys/fs/cgroup/memory', path: '/web', controllers: ['memory'] },
    { version: 1, mount: '/sys/fs/cgroup/cpu', path: '/web', controllers: ['cpu'] },
  ];
  const files = treeFiles({
    [`${dir}/memory.limit_in_bytes`]: '1000\n',
    [`${dir}/memory.memsw.limit_in_bytes`]: '2000\n',
    '/sys/fs/cgroup/cpu/web/cpu.cfs_quota_us': '50000\n',
    '/sys/fs/cgroup/cpu/web/cpu.cfs_period_us': '100000\n',
  });
  const order = (resources: CgroupResources): string[] =>
    planUpdate(places, resources, files).map((step) => ('path' in step ? (step.path.split('/').at(-1) ?? '') : ''));

  it('raise memory and swap first when the new limit is above it, else memory first', () => {
    expect(order({ memory: { limit: 5000, swap: 6000 } })).toEqual([
      'memory.memsw.limit_in_bytes',
      'memory.limit_in_bytes',
    ]);
    expect(order({ memory: { limit: 500, swap: 600 } })).toEqual([
      'memory.limit_in_bytes',
      'memory.memsw.limit_in_bytes',
    ]);
    expect(order({ memory: { limit: -1 } })).toEqual(['memory.memsw.limit_in_bytes', 'memory.limit_in_bytes']);
  });

  it('never pass through a larger share of a CPU than the old or the new one', () => {
    expect(order({ cpu: { quota: 5_000, period: 10_000 } })).toEqual(['cpu.cfs_quota_us', 'cpu.cfs_period_us']);
    expect(order({ cpu: { quota: 500_000, period: 1_000_000 } })).toEqual(['cpu.cfs_period_us', 'cpu.cfs_quota_us']);
  });

  it('take old values back, last first', () => {
    const [step] = planUpdate(places, { memory: { limit: 500 } }, files);
    expect(step?.undo?.map((op) => (op.op === 'write' ? new TextDecoder().decode(op.data) : ''))).toEqual(['1000']);
  });

  it('keep v2’s quota when only the period changes, and refuse a limit below use when told to look', () => {
    const v2: CgroupPlace[] = [{ version: 2, mount: '/cg', path: '/w', controllers: ['cpu', 'memory'] }];
    const now = treeFiles({
      '/cg/w/cpu.max': '20000 100000\n',
      '/cg/w/memory.current': '5000\n',
      '/cg/w/memory.max': 'max\n',
    });
    const [step] = planUpdate(v2, { cpu: { period: 50_000 } }, now);
    expect(step?.op === 'write' && new TextDecoder().decode(step.data)).toBe('20000 50000');
    expect(() => planUpdate(v2, { memory: { limit: 4000, checkBeforeUpdate: true } }, now)).toThrow(
      'less than what is in use',
    );
  });
});

describe('conversions', () => {
  it('of shares go through the points that mean the same', () => {
    expect([0, 2, 1024, 262_144, 300_000].map(weightOfShares)).toEqual([1, 1, 100, 10_000, 10_000]);
    for (let shares = 2; shares < 5000; shares++)
      expect(weightOfShares(shares + 1)).toBeGreaterThanOrEqual(weightOfShares(shares));
  });
});

describe('reading', () => {
  const v2: CgroupPlace[] = [
    { version: 2, mount: '/cg', path: '/w', controllers: ['cpu', 'memory', 'pids', 'io', 'hugetlb'] },
  ];
  const files = treeFiles({
    '/cg/w/cgroup.procs': '5\n3\n',
    '/cg/w/cgroup.events': 'populated 1\nfrozen 0\n',
    '/cg/w/cgroup.freeze': '1\n',
    '/cg/w/child/cgroup.procs': '7\n',
    '/cg/w/cpu.stat': 'usage_usec 12\nuser_usec 10\nsystem_usec 2\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n',
    '/cg/w/cpu.pressure':
      'some avg10=1.50 avg60=0.00 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
    '/cg/w/memory.current': '4096\n',
    '/cg/w/memory.max': 'max\n',
    '/cg/w/memory.stat': 'file 1024\ninactive_file 512\n',
    '/cg/w/memory.events': 'low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n',
    '/cg/w/pids.current': '3\n',
    '/cg/w/pids.max': '100\n',
    '/cg/w/io.stat': '8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n',
    '/cg/w/hugetlb.2MB.current': '0\n',
    '/cg/w/hugetlb.2MB.events': 'max 0\n',
  });

  it('finds processes below, freezer and OOM counts', () => {
    expect(processesIn(v2, files)).toEqual([3, 5, 7]);
    expect(freezerState(v2, files)).toBe('freezing');
    expect(oomKills(v2, files)).toBe(2);
    expect(freezeOps(v2, true)).toMatchObject([{ op: 'write', path: '/cg/w/cgroup.freeze' }]);
    expect(removeOps(v2)).toEqual([{ op: 'removeCgroup', path: '/cg/w' }]);
  });

  it('gives statistics in one form', () => {
    expect(readStats(v2, files)).toEqual({
      cpu: {
        usageNs: 12_000,
        userNs: 10_000,
        systemNs: 2_000,
        periods: 4,
        throttledPeriods: 1,
        throttledNs: 7_000,
        pressure: {
          some: { avg10: 1.5, avg60: 0, avg300: 0, totalUs: 99 },
          full: { avg10: 0, avg60: 0, avg300: 0, totalUs: 0 },
        },
      },
      memory: {
        usageBytes: 4096,
        failures: 3,
        oomKills: 2,
        stat: { file: 1024, inactive_file: 512 },
        inactiveFileBytes: 512,
        cacheBytes: 1024,
      },
      pids: { current: 3, limit: 100 },
      io: [{ major: 8, minor: 0, readBytes: 10, writeBytes: 20, readOps: 1, writeOps: 2 }],
      hugetlb: { '2MB': { usageBytes: 0, failures: 0 } },
    });
  });

  it('sends an exec to init’s own cgroup, and nowhere out of the container’s', () => {
    expect(execDir(v2, '0::/w/init.scope\n')).toBe('/cg/w/init.scope');
    expect(execDir(v2, '0::/elsewhere\n')).toBe('/cg/w');
    expect(execDir(v2, '0::/web2\n')).toBe('/cg/w');
  });

  it('gives away the files that the kernel names, and no others', () => {
    const listed = treeFiles({
      '/sys/kernel/cgroup/delegate': 'cgroup.procs\ncgroup.threads\nmemory.reclaim\n',
      '/cg/w/memory.max': '',
    });
    const paths = delegationSteps(v2, 1000, 1000, listed).map((step) => ('path' in step ? step.path : ''));
    expect(paths).toEqual(['/cg/w', '/cg/w/cgroup.procs', '/cg/w/cgroup.threads']);
  });
});
