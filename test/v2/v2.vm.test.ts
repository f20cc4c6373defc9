import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { detectLayout } from '#kernel/cgroup/layout.ts';
import type { CgroupPlan } from '#kernel/cgroup/plan.ts';
import { planCgroup, planUpdate, removeOps } from '#kernel/cgroup/plan.ts';
import type { CgroupResources } from '#kernel/cgroup/resources.ts';
import { freezeOps } from '#kernel/cgroup/state.ts';
import { treeFiles } from '#kernel/files.ts';
import { CLONE_INTO_CGROUP } from '#kernel/linux/namespaces.ts';
import { findExecutor } from '#kernel/plan/execute.ts';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';
import { decodeResults, stepFailure } from '#kernel/plan/result.ts';
import { OWN_VOCABULARY } from '#kernel/plan/vocabulary.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import { dockerDefaultProfile, resolveProfile } from '#kernel/seccomp/docker.ts';
import type { Host } from '#runtime/host.ts';
import { planCreate } from '#runtime/plan-create.ts';
import { planExec } from '#runtime/plan-exec.ts';
import { ASK, encodeOptions } from '#shim/frames.ts';
import { parseConfig } from '#spec/oci/config.ts';
import { base } from '../suites/compare/base.ts';
import { runMachine } from './machine.ts';

// Pure cgroup v2 on a real kernel: this machine's hierarchies stay as they are mounted, so a virtual machine without KVM
// boots Debian's cloud kernel. Node is too slow there: plans are made here, from facts as that machine has them, and
// `estiba-init run` executes them there. All cases run in one boot; each `it` looks at what they said.

const MIB = 2 ** 20;
const CONTROLLERS = 'cpuset cpu io memory hugetlb pids rdma misc';
const facts = treeFiles({
  '/sys/fs/cgroup/cgroup.controllers': CONTROLLERS,
  '/sys/fs/cgroup/cgroup.subtree_control': '',
  '/sys/fs/cgroup/cgroup.procs': '1\n',
});
const layout = detectLayout({
  mountinfo: '30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
  cgroup: '0::/\n',
  controllersOf: () => CONTROLLERS,
});

const plans: Record<string, Plan> = {};
const script: string[] = [`say controllers $(cat /sys/fs/cgroup/cgroup.controllers)`];

const step = (op: Op, where: Step['where'] = 'host'): Step => ({ ...op, where, because: 'test/v2' });
const opsPlan = (ops: readonly Op[]): Plan => ({ steps: ops.map((op) => step(op)) });

/** A process of its own pid and mount namespaces, born in the cgroup, that runs a shell script. */
function container(cgroup: CgroupPlan, shell: string): Plan {
  const [O_CLOEXEC, O_DIRECTORY, O_PATH] = [0x8_0000, 0x1_0000, 0x20_0000];
  const [NEWNS, NEWPID] = [0x2_0000n, 0x2000_0000n];
  return {
    steps: [
      ...cgroup.create,
      step({ op: 'open', into: 1, path: cgroup.cloneInto ?? '', flags: O_PATH | O_DIRECTORY | O_CLOEXEC, mode: 0 }),
      step({ op: 'clone', flags: NEWNS | NEWPID | CLONE_INTO_CGROUP, cgroup: 1, sibling: 0 }),
      ...cgroup.join,
      step({ op: 'exec', path: '/bin/sh', argv: ['sh', '-c', shell], env: ['PATH=/bin'] }, 'init'),
      step({ op: 'waitInit', timeoutMs: 30_000 }),
    ],
  };
}

/** Makes the plans of a case and its lines of script: run in front, or with `meanwhile` beside it. */
function scenario(
  name: string,
  resources: CgroupResources,
  shell: string,
  meanwhile?: (cgroup: CgroupPlan) => string,
): void {
  const cgroup = planCgroup({ id: name, cgroupsPath: `/estiba/${name}`, resources }, layout, facts);
  const say = `say() { echo "@@ ${name}.$*"; }; cg=/sys/fs/cgroup/estiba/${name}; `;
  plans[name] = container(cgroup, say + shell);
  plans[`${name}-remove`] = opsPlan(removeOps(cgroup.places));
  script.push(meanwhile ? `plan ${name} &\n${meanwhile(cgroup)}\nwait` : `plan ${name}`);
  script.push(`say ${name}.pids $(cat /sys/fs/cgroup/estiba/${name}/pids.events)`);
  script.push(`say ${name}.events $(cat /sys/fs/cgroup/estiba/${name}/memory.events)`);
  script.push(`plan ${name}-remove`, `[ -e /sys/fs/cgroup/estiba/${name} ] && say ${name}.left yes`);
}

scenario(
  'limits',
  {
    memory: { limit: 64 * MIB, swap: 96 * MIB, reservation: 32 * MIB },
    cpu: { shares: 1024, quota: 50_000, period: 100_000, burst: 10_000, cpus: '0', mems: '0' },
    pids: { limit: 20 },
    unified: { 'memory.high': `${48 * MIB}` },
  },
  `say cgroup $(cat /proc/self/cgroup)
   for f in memory.max memory.swap.max memory.low memory.high cpu.max cpu.max.burst cpu.weight cpuset.cpus pids.max; do say $f $(cat $cg/$f); done
   say procs $(wc -l < $cg/cgroup.procs); say allowed $(grep Cpus_allowed_list /proc/self/status)
   (i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done) 2>/dev/null; exit 7`,
);

// Every container of ours may use null and zero, make nodes, and open nothing else.
const PROBE = `null() { echo x > /dev/null && echo ok; }; kmsg() { head -c 0 < /dev/kmsg && echo ok; }; `;
scenario(
  'devices',
  {
    devices: [
      { allow: false, access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: 11, access: 'w' },
    ],
  },
  `${PROBE} say null $(null 2>&1); say kmsg $(kmsg 2>&1); say write $(echo hello > /dev/kmsg && echo ok)
   mknod /tmp/loop b 7 0 && say mknod ok; say loop $(head -c 1 /tmp/loop 2>&1 | tail -c 60)`,
);
scenario(
  'refilter',
  {},
  `${PROBE} say before $(kmsg 2>&1); touch /tmp/refilter.ready; while [ ! -e /tmp/refilter.go ]; do sleep 0.1; done; say after $(kmsg 2>&1)`,
  (cgroup) => {
    const rule = { allow: true, type: 'c', major: 1, minor: 11, access: 'r' } as const;
    plans['refilter-update'] = { steps: planUpdate(cgroup.places, { devices: [rule] }, facts) };
    return `while [ ! -e /tmp/refilter.ready ]; do sleep 0.1; done; plan refilter-update; touch /tmp/refilter.go`;
  },
);
scenario(
  'freezer',
  {},
  `while [ ! -e /tmp/freezer.stop ]; do echo >> /tmp/freezer.ticks; sleep 0.05; done`,
  (cgroup) => {
    plans['freezer-freeze'] = opsPlan(freezeOps(cgroup.places, true));
    plans['freezer-thaw'] = opsPlan(freezeOps(cgroup.places, false));
    return `while [ ! -s /tmp/freezer.ticks ]; do sleep 0.1; done
plan freezer-freeze; sleep 0.5
say freezer.state $(cat /sys/fs/cgroup/estiba/freezer/cgroup.events)
a=$(wc -l < /tmp/freezer.ticks); sleep 1; b=$(wc -l < /tmp/freezer.ticks); say freezer.moved $((b-a))
plan freezer-thaw; sleep 0.5; c=$(wc -l < /tmp/freezer.ticks); say freezer.thawed $((c>b)); touch /tmp/freezer.stop`;
  },
);
scenario(
  'oom',
  { memory: { limit: 16 * MIB, swap: 16 * MIB } },
  `dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; say dd $?`,
);
// The same behind a shim: what it writes as the container's exit is what a daemon tells of it.
const shimmed = planCgroup(
  { id: 'shimmed', cgroupsPath: '/estiba/shimmed', resources: { memory: { limit: 16 * MIB, swap: 16 * MIB } } },
  layout,
  facts,
);
plans['shimmed-remove'] = opsPlan(removeOps(shimmed.places));
script.push(
  `mkdir /tmp/shim
estiba-init spawner /tmp/spawner.sock > /tmp/spawner.out & spawner=$!
while [ ! -s /tmp/spawner.out ]; do sleep 0.1; done
say shimmed.asked $(ask /tmp/spawner.sock < /plans/shimmed.frame; echo $?)
n=0; while [ ! -e /tmp/shim/exit ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done
say shimmed.exit $(cat /tmp/shim/exit)
kill $spawner; wait $spawner
plan shimmed-remove; [ -e /sys/fs/cgroup/estiba/shimmed ] && say shimmed.left yes`,
);

/** A request to the spawner for a shim, as `Spawner.create` sends it. */
function shimFrame(): Buffer {
  const options = encodeOptions({ dir: '/tmp/shim', oom: '/sys/fs/cgroup/estiba/shimmed' });
  const { steps } = container(shimmed, 'dd if=/dev/zero of=/dev/null bs=64M count=1');
  const plan = encodePlan({ steps: steps.filter((s) => s.op !== 'waitInit') });
  const head = Buffer.alloc(12);
  head.writeUInt32LE(options.length + plan.length);
  head[4] = ASK.shim;
  return Buffer.concat([head, options, plan]);
}

scenario(
  'update',
  { memory: { limit: 64 * MIB, swap: 64 * MIB }, pids: { limit: 10 } },
  `touch /tmp/update.ready; while [ ! -e /tmp/update.go ]; do sleep 0.1; done; for f in memory.max memory.swap.max pids.max cpu.max; do say $f $(cat $cg/$f); done`,
  (cgroup) => {
    const wish = { memory: { limit: 128 * MIB, swap: -1 }, pids: { limit: -1 }, cpu: { quota: 20_000 } };
    plans['update-it'] = { steps: planUpdate(cgroup.places, wish, facts) };
    return `while [ ! -e /tmp/update.ready ]; do sleep 0.1; done; plan update-it; touch /tmp/update.go`;
  },
);
scenario('kill', {}, `(while :; do sleep 1; done) & while :; do sleep 1; done`, (cgroup) => {
  plans['kill-all'] = opsPlan([{ op: 'killCgroup', path: cgroup.cloneInto ?? '', signal: 9 }]);
  return `while ! grep -q populated.1 /sys/fs/cgroup/estiba/kill/cgroup.events; do sleep 0.1; done; sleep 0.5; plan kill-all`;
});
// A whole container as `estiba-oci run` would plan it: root file system, cgroup namespace, and its cgroup mounted.
const WHOLE = `say() { echo "@@ whole.$*"; }
say cgroup $(cat /proc/self/cgroup); say mount $(grep ' /sys/fs/cgroup ' /proc/self/mountinfo)
say max $(cat /sys/fs/cgroup/memory.max) $(cat /sys/fs/cgroup/pids.max); say write $(mkdir /sys/fs/cgroup/mine 2>&1)
say root $(ls /); say seccomp $(grep ^Seccomp: /proc/self/status); exit 5`;
const whole = wholeContainer();
plans['whole'] = whole.plan;
plans['whole-remove'] = opsPlan(removeOps(whole.places));
script.push('plan whole', 'plan whole-remove', '[ -e /sys/fs/cgroup/estiba/whole ] && say whole.left yes');

// An exec into such a container, both ways; its pid is known in that machine alone, which puts it into the plan.
const here = wholeContainer('here', ['sleep', '60']);
plans['here'] = here.plan;
plans['here-remove'] = opsPlan(removeOps(here.places));
script.push(
  `pid_into() { p=$2; for at in $(cat /plans/$1.at); do
  printf "$(printf '\\\\x%02x' $((p & 255)) $((p >> 8 & 255)) $((p >> 16 & 255)) $((p >> 24 & 255)))" | dd of=/plans/$1 bs=1 seek=$at conv=notrunc 2>/dev/null
done; }`,
  'plan here & until [ "$(cat /proc/$(head -n1 /sys/fs/cgroup/estiba/here/cgroup.procs)/comm)" = sleep ]; do sleep 0.1; done 2>/dev/null',
  'init=$(head -n1 /sys/fs/cgroup/estiba/here/cgroup.procs)',
  'for way in inside through; do pid_into here-$way $init; plan here-$way; done',
  'kill -9 $init; wait; plan here-remove; [ -e /sys/fs/cgroup/estiba/here ] && say here.left yes',
);
const SOME_PID = 0x7a6b_5c4d;
const places: Record<string, number[]> = {};
for (const [way, lacks] of [
  ['here-inside', ''],
  ['here-through', 'cloneInto'],
] as const) {
  const { plan } = planExec(
    here.record,
    here.config,
    {
      cwd: '/',
      args: [
        'sh',
        '-c',
        `echo "@@ ${way}.cgroup $(cat /proc/self/cgroup)"; echo "@@ ${way}.init $(cat /proc/1/comm)"; exit 6`,
      ],
      env: ['PATH=/bin'],
      user: { uid: 0, gid: 0 },
      oomScoreAdj: 5,
    },
    {
      init: { pid: SOME_PID, startTime: 0 },
      path: 'flags',
      foreground: true,
      knows: new Set([...OWN_VOCABULARY].filter((name) => name !== lacks)),
    },
    { ...guest(), sameFile: (path) => /\/(user|time)$/.test(path) },
    treeFiles({ [`/proc/${SOME_PID}/cgroup`]: '0::/estiba/here\n' }),
  );
  plans[way] = plan;
  const [bytes, pid] = [encodePlan(plan), Buffer.alloc(4)];
  pid.writeUInt32LE(SOME_PID);
  places[way] = [];
  for (let at = bytes.indexOf(pid); at >= 0; at = bytes.indexOf(pid, at + 1)) places[way].push(at);
}

function wholeContainer(id = 'whole', args = ['sh', '/whole.sh']) {
  const config = base(`/estiba/${id}`);
  config.linux.namespaces.push({ type: 'cgroup' });
  config.mounts.push({
    destination: '/sys/fs/cgroup',
    type: 'cgroup',
    source: 'cgroup',
    options: ['ro', 'nosuid', 'noexec', 'nodev'],
  });
  Object.assign(config.linux['resources'] as object, { memory: { limit: 32 * MIB }, pids: { limit: 30 } });
  config.linux['seccomp'] = resolveProfile(dockerDefaultProfile(), [], { nodeArch: 'x64', kernelRelease: '6.1.0' });
  config.process.args = args;
  const resources = config.linux['resources'] as CgroupResources;
  const cgroups = planCgroup({ id, cgroupsPath: `/estiba/${id}`, resources }, layout, facts);
  const options = {
    id,
    bundle: '/bundle',
    root: '/run/state',
    created: '2026-01-01T00:00:00Z',
    owner: { uid: 0, name: 'root' },
  };
  const parsed = parseConfig(JSON.stringify(config));
  const { plan, record } = planCreate(parsed, { ...options, cgroups, start: 'foreground' }, guest());
  return { plan, record, config: parsed, places: cgroups.places };
}

function compiled(source: string): Buffer {
  const dir = mkdtempSync(join(tmpdir(), 'estiba-v2-cc-'));
  try {
    execFileSync('cc', ['-O1', '-static', '-o', join(dir, 'program'), source]);
    return readFileSync(join(dir, 'program'));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** That machine, as the planner sees it. */
function guest(): Host {
  const directory = { kind: 'directory', mode: 0o40755 } as const;
  return {
    uid: 0,
    gid: 0,
    rootless: false,
    arch: 'x86_64',
    capabilities: (1n << 41n) - 1n,
    allCapabilities: (1n << 41n) - 1n,
    apparmor: false,
    selinux: false,
    entersByPidfd: true,
    landlock: () => 0,
    resctrl: () => undefined,
    cgroups: layout,
    look: () => directory,
    lookInside: (_root, path) => (path === '/' || /^\/(bin|dev|proc|sys|tmp)$/.test(path) ? directory : undefined),
    readInside: () => undefined,
    mountOf: () => ({ point: '/', shared: false }),
    mountsOfType: () => [],
    sameFile: () => false,
  };
}

// A step that fails takes back what was made: the limit is refused by the kernel, the directory must be gone.
plans['refused'] = {
  steps: planCgroup(
    { id: 'refused', cgroupsPath: '/estiba-refused/a', resources: { unified: { 'memory.max': 'much' } } },
    layout,
    facts,
  ).create,
};
script.push('plan refused', '[ -e /sys/fs/cgroup/estiba-refused ] && say refused.left yes');
script.push('rmdir /sys/fs/cgroup/estiba && say parent.removed yes');

describe('pure cgroup v2, on Debian’s cloud kernel', () => {
  let said = new Map<string, string>();
  const result = (name: string) => {
    const [code, encoded = ''] = (said.get(`result ${name}`) ?? '').split(' ');
    const { records } = decodeResults(Buffer.from(encoded, 'base64'));
    return { code: Number(code), records };
  };
  const exitOf = (name: string): number | undefined => {
    const status = result(name).records.find((record) => record.kind === 'exited')?.status;
    return status === undefined ? undefined : status & 0x7f ? 128 + (status & 0x7f) : status >> 8;
  };

  beforeAll(async () => {
    const root = fileURLToPath(new URL('../../', import.meta.url));
    execFileSync(`${root}test/v2/kernel.sh`, [`${root}.cache/v2`]);
    said = await runMachine({
      kernel: `${root}.cache/v2/vmlinuz`,
      executor: findExecutor(),
      busybox: '/bin/busybox',
      plans: {
        ...Object.fromEntries(Object.entries(plans).map(([name, plan]) => [name, encodePlan(plan)])),
        'shimmed.frame': shimFrame(),
        ...Object.fromEntries(Object.entries(places).map(([name, at]) => [`${name}.at`, Buffer.from(at.join(' '))])),
      },
      programs: { ask: compiled(`${root}test/v2/ask.c`) },
      rootfs: { 'whole.sh': WHOLE },
      script: `${script.join('\n')}\n`,
    });
  }, 180_000);

  it('carries out every plan, but the one that is meant to fail', () => {
    const failed = Object.entries(plans).flatMap(([name, plan]) => {
      const failure = result(name).records.find((record) => record.kind === 'failed');
      return failure ? [`${name}: ${JSON.stringify(stepFailure(plan, failure))}`] : [];
    });
    expect(failed.filter((line) => !line.startsWith('refused'))).toEqual([]);
    expect(failed).toHaveLength(1);
    expect(failed[0]).toContain('EINVAL');
  });

  it('is the machine that the plans were made for', () => {
    expect(said.get('controllers')).toBe(CONTROLLERS);
  });

  it('has the limits in its files, and the process is born in the cgroup', () => {
    const value = (file: string) => said.get(`limits.${file}`);
    expect(value('cgroup')).toBe('0::/estiba/limits');
    expect(value('memory.max')).toBe(String(64 * MIB));
    expect(value('memory.swap.max')).toBe(String(32 * MIB));
    expect(value('memory.low')).toBe(String(32 * MIB));
    expect(value('memory.high')).toBe(String(48 * MIB));
    expect(value('cpu.max')).toBe('50000 100000');
    expect(value('cpu.max.burst')).toBe('10000');
    expect(value('cpu.weight')).toBe('100');
    expect(value('cpuset.cpus')).toBe('0');
    expect(value('allowed')).toContain('0');
    expect(value('pids.max')).toBe('20');
  });

  it('stops a fork bomb, and hands the exit code on', () => {
    expect(Number(/max (\d+)/.exec(said.get('limits.pids') ?? '')?.[1])).toBeGreaterThan(0);
    expect(exitOf('limits')).toBe(7);
  });

  it('lets a container use the devices it was given, and no others', () => {
    expect(said.get('devices.null')).toBe('ok');
    expect(said.get('devices.write')).toBe('ok');
    expect(said.get('devices.kmsg')).toContain('not permitted');
    expect(said.get('devices.mknod')).toBe('ok');
    expect(said.get('devices.loop')).toContain('not permitted');
  });

  it('replaces the device filter of a running container', () => {
    expect(said.get('refilter.before')).toContain('not permitted');
    expect(said.get('refilter.after')).toBe('ok');
  });

  it('freezes and thaws', () => {
    expect(said.get('freezer.state')).toContain('frozen 1');
    expect(said.get('freezer.moved')).toBe('0');
    expect(said.get('freezer.thawed')).toBe('1');
    expect(exitOf('freezer')).toBe(0);
  });

  it('counts what the OOM killer took', () => {
    expect(said.get('oom.events')).toMatch(/oom_kill [1-9]/);
    expect(exitOf('oom') === 137 || said.get('oom.dd') === '137').toBe(true);
  });

  it('marks the exit of a container behind a shim when it has killed for memory', () => {
    expect(said.get('shimmed.asked')).toBe('0');
    expect(said.get('shimmed.exit')).toMatch(/^\d+ 1 \d+$/);
  });

  it('changes limits while a container runs', () => {
    expect(said.get('update.memory.max')).toBe(String(128 * MIB));
    expect(said.get('update.memory.swap.max')).toBe('max');
    expect(said.get('update.pids.max')).toBe('max');
    expect(said.get('update.cpu.max')).toBe('20000 100000');
  });

  it('kills all of a cgroup at once', () => {
    expect(exitOf('kill')).toBe(137);
  });

  it('runs a whole container that sees its own cgroup as the top, and may not change it', () => {
    expect(exitOf('whole')).toBe(5);
    expect(said.get('whole.cgroup')).toBe('0::/');
    expect(said.get('whole.mount')).toMatch(/ \/ \/sys\/fs\/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 /);
    expect(said.get('whole.max')).toBe(`${32 * MIB} 30`);
    expect(said.get('whole.write')).toContain('Read-only file system');
    expect(said.get('whole.root')).toBe('bin dev proc sys tmp whole.sh');
    expect(said.get('whole.seccomp')).toBe('Seccomp: 2');
  });

  it.each(['here-inside', 'here-through'])(
    '%s: an exec is born in the container’s cgroup, and sees it as the top',
    (way) => {
      expect(exitOf(way)).toBe(6);
      expect(said.get(`${way}.cgroup`)).toBe('0::/');
      expect(said.get(`${way}.init`)).toBe('sleep');
    },
  );

  it('leaves no cgroup behind', () => {
    expect([...said.keys()].filter((key) => key.endsWith('.left'))).toEqual([]);
    expect(said.get('parent.removed')).toBe('yes');
  });
});
