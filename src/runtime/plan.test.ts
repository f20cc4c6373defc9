import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Files, treeFiles } from '#kernel/files.ts';
import { namespaceFlags } from '#kernel/linux/namespaces.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { printPlan } from '#kernel/plan/print.ts';
import { lacking, OWN_VOCABULARY, toldVocabulary } from '#kernel/plan/vocabulary.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import type { Host } from '#runtime/host.ts';
import { type CreateOptions, planCreate } from '#runtime/plan-create.ts';
import { planExec } from '#runtime/plan-exec.ts';
import { checkConfig, type OciConfig, parseConfig } from '#spec/oci/config.ts';

/** A machine without containers, on paper: nothing of the one the tests run on is looked at. */
function paperHost(change: Partial<Host> = {}): Host {
  const directories = new Set(['/b/rootfs', '/b/rootfs/tmp']);
  const look: Host['look'] = (path) =>
    directories.has(path) ? { kind: 'directory', mode: path.endsWith('/tmp') ? 0o41777 : 0o40755 } : undefined;
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
    landlock: () => 7,
    resctrl: () => undefined,
    cgroups: { kind: 'none', hierarchies: [] },
    look,
    lookInside: (root, path) => look(`${root}${path}`),
    readInside: () => undefined,
    mountOf: () => ({ point: '/', shared: true }),
    mountsOfType: () => ['/proc', '/sys'],
    sameFile: () => false,
    ...change,
  };
}

const NO_FILES: Files = treeFiles({});

const OPTIONS: CreateOptions = {
  id: 'c1',
  bundle: '/b',
  root: '/run/oci',
  created: '2026-01-02T03:04:05.000Z',
  owner: { uid: 0, name: 'root' },
};

const caseConfig = (name: string): OciConfig =>
  parseConfig(readFileSync(new URL(`./case/${name}/config.json`, import.meta.url), 'utf8'));

/** The record in the plan holds the whole configuration again; a golden file wants it once. */
const golden = (plan: Plan): string => printPlan(plan).replace(/write "\{.*?" to/, 'write RECORD to');

describe('a configuration becomes a plan', () => {
  it.each([
    ['minimal', {}],
    ['rich', { start: 'foreground', pidFile: '/run/c1.pid' }],
  ] as const)('%s', async (name, options) => {
    const { plan } = planCreate(caseConfig(name), { ...OPTIONS, ...options }, paperHost());
    encodePlan(plan); // the executor would take it
    await expect(golden(plan)).toMatchFileSnapshot(`./case/${name}/plan.txt`);
  });

  it.each([
    ['network, as every container of a bridge does', ['network'], {}, false],
    ['what a pod shares', ['network', 'ipc', 'uts'], {}, false],
    ['a PID namespace, which only a child is born in', ['network', 'pid'], {}, true],
    ['network, where an ordinary user has no right to come back', ['network'], { rootless: true }, true],
  ] as const)('and one that joins %s', (_, joined, change, middle) => {
    const config = caseConfig('minimal');
    const namespaces = (config.linux?.namespaces ?? []).filter(({ type }) => !joined.some((t) => t === type));
    const join = joined.map((type) => ({ type, path: `/run/ns/${type}` }));
    const { plan } = planCreate(
      { ...config, linux: { ...config.linux, namespaces: [...namespaces, ...join] } },
      OPTIONS,
      paperHost(change),
    );
    encodePlan(plan);
    expect(plan.steps.some(({ op }) => op === 'fork')).toBe(middle);
    const entering = plan.steps.flatMap((s) => (s.op === 'setns' || s.op === 'clone' ? [s] : []));
    const clone = entering.findIndex(({ op }) => op === 'clone');
    const visited = entering.slice(0, clone).map((s) => (s.op === 'setns' ? s.type : 0));
    const returned = entering.slice(clone + 1).map((s) => (s.op === 'setns' ? s.type : 0));
    expect(visited).toHaveLength(joined.length);
    // Who visits comes back before anything else, and on the way out of a failure too; the middle process just ends.
    expect(returned).toEqual(middle ? [] : visited);
    const undone = entering
      .slice(0, clone)
      .flatMap(({ undo = [] }) => undo.map((u) => (u.op === 'setns' ? u.type : 0)));
    expect(undone).toEqual(returned);
  });

  it('and an exec one that enters what the container has', async () => {
    const config = caseConfig('minimal');
    const { record } = planCreate(config, OPTIONS, paperHost());
    const process = { cwd: '/', args: ['sh'], user: { uid: 1, gid: 1 }, env: ['HOME=/'], terminal: true };
    const init = { pid: 77, startTime: 4711 };
    const { plan } = planExec(
      record,
      config,
      process,
      { init, path: 'flags', foreground: true },
      paperHost(),
      NO_FILES,
    );
    encodePlan(plan);
    await expect(golden(plan)).toMatchFileSnapshot('./case/exec/plan.txt');
  });

  it('and an exec one that a shim of an older build knows as well', async () => {
    const config = caseConfig('minimal');
    const { record } = planCreate(config, OPTIONS, paperHost());
    const process = { cwd: '/', args: ['sh'], user: { uid: 1, gid: 1 }, env: ['HOME=/'], oomScoreAdj: 5 };
    const init = { pid: 77, startTime: 4711 };
    const knows = toldVocabulary(Buffer.alloc(0));
    const { plan } = planExec(record, config, process, { init, path: 'exec', knows }, paperHost(), NO_FILES);
    encodePlan(plan);
    expect(lacking(plan, knows)).toEqual([]);
    await expect(golden(plan)).toMatchFileSnapshot('./case/exec-older/plan.txt');
  });

  describe('and an exec one in which only init takes a place among the counted', () => {
    const place = (controller: string) =>
      ({ version: 1, mount: `/sys/fs/cgroup/${controller}`, path: '/c1', controllers: [controller] }) as const;
    const config = caseConfig('minimal');
    const { record } = planCreate(config, OPTIONS, paperHost());
    /** Of the steps that enter or make something, who takes them. */
    const entering = (change: Partial<Host>, knows = OWN_VOCABULARY): string[] => {
      const { plan } = planExec(
        { ...record, cgroups: [place('memory'), place('pids')] },
        config,
        { cwd: '/', args: ['sh'], user: { uid: 1, gid: 1 }, env: ['HOME=/'], oomScoreAdj: 7 },
        { init: { pid: 77, startTime: 4711 }, path: 'flags', knows },
        paperHost(change),
        NO_FILES,
      );
      encodePlan(plan);
      return plan.steps.flatMap((step) =>
        step.op === 'joinCgroup'
          ? [`${step.where} ${step.path}`]
          : ['openProcess', 'fork', 'enterProcess', 'clone', 'cloneInto', 'writeProc', 'setuid'].includes(step.op)
            ? [`${step.where} ${step.op}`]
            : [],
      );
    };
    const [memory, pids] = ['/sys/fs/cgroup/memory/c1', '/sys/fs/cgroup/pids/c1'];
    const throughMiddle = [
      ['host openProcess', 'host fork'],
      [`middle ${memory}`, 'middle writeProc', 'middle enterProcess', 'middle clone'],
      [`init ${pids}`, 'init setuid'],
    ].flat();
    const oursBut = (...other: string[]): Partial<Host> => ({
      sameFile: (a) => !other.some((type) => a.endsWith(`/ns/${type}`)),
    });

    it('born there by the executor itself, where it can come back', () => {
      expect(entering(oursBut('pid', 'mnt', 'net', 'cgroup'))).toEqual([
        'host openProcess',
        'host cloneInto',
        'host writeProc',
        `init ${memory}`,
        `init ${pids}`,
        'init setuid',
      ]);
    });

    it('born like any child where nothing is the container’s own', () => {
      expect(entering(oursBut())).toContain('host clone');
    });

    it.each([
      ['a user namespace', oursBut('pid', 'mnt', 'user')],
      ['clocks of its own', oursBut('pid', 'mnt', 'time')],
      ['an ordinary user', { ...oursBut('pid', 'mnt'), rootless: true }],
    ])('through a process of its own for %s', (_, change) => {
      expect(entering(change)).toEqual(throughMiddle);
    });

    it('through a process of its own, one namespace after the other, on a kernel before 5.8', () => {
      expect(entering({ ...oursBut('pid', 'mnt'), entersByPidfd: false })).toEqual(
        throughMiddle.filter((step) => !/openProcess|enterProcess/.test(step)),
      );
    });

    it('who is cloned into a cgroup enters its namespace itself: from within the kernel would not let it be born there', () => {
      const unified = { version: 2, mount: '/sys/fs/cgroup', path: '/c1', controllers: ['memory'] } as const;
      const { plan } = planExec(
        { ...record, cgroups: [unified] },
        config,
        { cwd: '/', args: ['sh'], user: { uid: 0, gid: 0 }, env: ['HOME=/'] },
        { init: { pid: 77, startTime: 4711 }, path: 'flags' },
        paperHost(oursBut('pid', 'cgroup')),
        treeFiles({ '/proc/77/cgroup': '0::/c1\n' }),
      );
      encodePlan(plan);
      const born = plan.steps.filter((step) => step.op === 'cloneInto' || step.op === 'enterProcess');
      expect(born.map((step) => [step.where, step.types])).toEqual([
        ['host', namespaceFlags(['pid'])],
        ['init', namespaceFlags(['cgroup'])],
      ]);
    });

    it('through a process of its own in a shim that cannot clone into it', () => {
      const knows = new Set([...OWN_VOCABULARY].filter((name) => name !== 'cloneInto'));
      expect(entering(oursBut('pid', 'mnt'), knows)).toEqual(throughMiddle);
    });
  });

  it('with a wish behind every step', () => {
    const { plan } = planCreate(caseConfig('rich'), OPTIONS, paperHost());
    expect(plan.steps.filter((step) => step.because === '')).toEqual([]);
  });

  it('without a mount namespace every mount hangs below one that the undo takes away', () => {
    const config = { ...caseConfig('minimal'), linux: {} };
    const { plan, record } = planCreate(config, OPTIONS, paperHost());
    const bind = plan.steps.find((step) => step.op === 'mount' && step.where === 'host');
    expect(bind?.undo).toEqual([{ op: 'umount', target: '/b/rootfs', flags: 2 }]);
    expect(record.ownsRootMount).toBe(true);
  });

  it('warns of capabilities it cannot grant, and leaves them out', () => {
    const { warnings } = planCreate(caseConfig('rich'), OPTIONS, paperHost());
    expect(warnings.join('\n')).toContain('CAP_TELEPATHY');
    expect(warnings.join('\n')).toContain('effective capabilities must be permitted: [CAP_KILL]');
  });
});

describe('order that security stands on', () => {
  const steps = planCreate(caseConfig('rich'), OPTIONS, paperHost()).plan.steps;
  const at = (op: string): number => steps.findIndex((step) => step.op === op);

  it('CVE-2024-21626: descriptors close before the program is looked for, the directory is checked to be inside', () => {
    expect(at('closeFds')).toBeLessThan(at('lookup'));
    expect(
      steps
        .filter((s) => s.op === 'chdir' && s.because === '$.process.cwd')
        .every((s) => s.op === 'chdir' && s.inside & 1),
    ).toBe(true);
  });

  it('CVE-2019-16884, CVE-2025-52881: sysctls are written before the root changes, through the host’s own proc', () => {
    const sysctl = steps.findIndex((s) => s.op === 'write' && s.path.startsWith('/proc/sys/'));
    expect(sysctl).toBeGreaterThan(0);
    expect(sysctl).toBeLessThan(at('pivotRoot'));
  });

  it('CVE-2025-52881: the label is written while proc is the host’s, and an exec makes sure of the container’s', () => {
    const labelled: OciConfig = { ...caseConfig('minimal') };
    const process = { cwd: '/', args: ['sh'], user: { uid: 0, gid: 0 }, apparmorProfile: 'docker-default' };
    const host = paperHost({ apparmor: true });
    const made = planCreate({ ...labelled, process }, OPTIONS, host);
    const written = (all: Plan['steps']): number => all.findIndex((s) => s.op === 'write' && s.path.includes('/attr/'));
    expect(written(made.plan.steps)).toBeLessThan(made.plan.steps.findIndex((s) => s.op === 'pivotRoot'));
    const init = { pid: 7, startTime: 1 };
    const exec = planExec(made.record, labelled, process, { init, path: 'flags' }, host, NO_FILES).plan.steps;
    expect(exec[written(exec) - 1]).toMatchObject({ op: 'checkProc', path: '/proc/self/attr/apparmor/exec' });
  });

  it('CVE-2023-27561: proc is mounted where no link leads, and looked at again after the root has changed', () => {
    const proc = steps.find((s) => s.op === 'mountAt' && s.type === 'proc');
    expect(proc?.op === 'mountAt' && proc.create & 0x100).toBeTruthy();
    expect(at('checkProc')).toBeGreaterThan(at('pivotRoot'));
  });

  it('CVE-2022-29162: inheritable capabilities are those of the configuration, none come by default', () => {
    const exec = planExec(
      planCreate(caseConfig('minimal'), OPTIONS, paperHost()).record,
      caseConfig('minimal'),
      {
        cwd: '/',
        args: ['sh'],
        user: { uid: 0, gid: 0 },
        capabilities: { bounding: ['CAP_KILL'], permitted: ['CAP_KILL'] },
      },
      { init: { pid: 7, startTime: 1 }, path: 'flags' },
      paperHost(),
      NO_FILES,
    ).plan.steps.find((s) => s.op === 'capset');
    expect(exec?.op === 'capset' && exec.inheritable).toBe(0n);
  });

  it('groups go before gid, gid before uid, and the bounding set before all of them', () => {
    expect([at('capBounding'), at('setgroups'), at('capset'), at('capAmbient')]).toEqual(
      [at('capBounding'), at('setgroups'), at('capset'), at('capAmbient')].toSorted((a, b) => a - b),
    );
  });
});

const minimal = caseConfig('minimal');
const withLinux = (linux: object): OciConfig => checkConfig({ ...minimal, linux: { ...minimal.linux, ...linux } });
const withMount = (mount: object): OciConfig => checkConfig({ ...minimal, mounts: [mount] });

describe('what this machine or the kernel cannot do is an error that names its path', () => {
  it.each<[string, OciConfig, Partial<Host>, string]>([
    [
      'a mount over part of /proc',
      withMount({ destination: '/proc/sys', source: '/x', options: ['bind'] }),
      {},
      '$.mounts[0].destination: "/proc/sys" cannot be mounted because it is inside /proc',
    ],
    [
      'something else as /proc',
      withMount({ destination: '/proc', type: 'tmpfs' }),
      {},
      '$.mounts[0].destination: "/proc" may only be covered by proc itself',
    ],
    [
      'the same by dots',
      withMount({ destination: '/a/../proc/sys', source: '/x', options: ['bind'] }),
      {},
      'is inside /proc',
    ],
    [
      'an idmap without mappings',
      withMount({ destination: '/x', source: '/x', options: ['bind', 'idmap'] }),
      {},
      '$.mounts[0].options',
    ],
    [
      'an idmap on a tmpfs',
      withMount({ destination: '/x', type: 'tmpfs', options: ['idmap'] }),
      {},
      'which only a bind mount can have',
    ],
    [
      'a link as /proc',
      minimal,
      { look: () => ({ kind: 'link', mode: 0o120777 }) },
      'must be mounted on ordinary directory',
    ],
    [
      'a sysctl of the host',
      withLinux({ sysctl: { 'kernel.panic': '1' } }),
      {},
      '$.linux.sysctl["kernel.panic"]: "1" is not in a separate kernel namespace',
    ],
    [
      'a sysctl without its namespace',
      withLinux({ sysctl: { 'net.core.somaxconn': '1' } }),
      {},
      'needs a network namespace',
    ],
    ['a sysctl that climbs', withLinux({ sysctl: { 'net/../kernel/panic': '1' } }), {}, 'is not a parameter name'],
    ['resctrl', withLinux({ intelRdt: {} }), {}, '$.linux.intelRdt: no resctrl file system is mounted'],
    ['no root file system', minimal, { look: () => undefined }, '$.root.path: "rootfs" does not exist: /b/rootfs'],
  ])('%s', (_name, config, change, says) => {
    expect(() => planCreate(config, OPTIONS, paperHost(change))).toThrow(says);
  });

  it('an AppArmor profile or SELinux label for the process, where the kernel has neither', () => {
    const labelled = (field: string): OciConfig =>
      checkConfig({ ...minimal, process: { ...minimal.process, [field]: 'x' } });
    expect(() => planCreate(labelled('apparmorProfile'), OPTIONS, paperHost())).toThrow('without AppArmor');
    expect(() => planCreate(labelled('selinuxLabel'), OPTIONS, paperHost())).toThrow('without SELinux');
  });
});
