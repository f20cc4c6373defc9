import { describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { applyImage } from '#engine/core/image-defaults.ts';
import { audit } from '#engine/core/insight/audit.ts';
import { exposed, reachTargets } from '#engine/core/insight/exposed.ts';
import type { KernelView } from '#engine/core/insight/kernel-view.ts';
import { show } from '#engine/core/insight/show.ts';
import { why } from '#engine/core/insight/why.ts';
import { xray } from '#engine/core/insight/xray.ts';
import type { OciHost } from '#engine/core/oci.ts';
import { PLAIN_RESOURCES, plainSpec } from '#engine/core/plain-spec.ts';
import { type ContainerRecord, type ContainerState, FRESH_STATE } from '#engine/core/record.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';
import { treeFiles } from '#kernel/files.ts';
import { capabilityMask } from '#kernel/linux/names.ts';

const T0 = Date.UTC(2026, 0, 1);
const DEFAULT_CAPS =
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE';

function record(changes: Partial<ContainerSpec>, state: Partial<ContainerState> = {}): ContainerRecord {
  const spec = plainSpec({ image: 'web:1', ...changes });
  const process = applyImage(spec, { Cmd: ['serve'], Env: ['PATH=/bin'] });
  return {
    id: 'a'.repeat(64),
    name: 'web',
    createdAtMs: T0,
    spec,
    process,
    image: { id: 'sha256:1', reference: 'web:1' },
    hostname: 'a'.repeat(12),
    state: { ...FRESH_STATE, phase: 'running', pid: 7, startedAtMs: T0, ...state },
    mounts: spec.mounts.map((wish) => ({
      type: wish.type,
      ...(wish.type === 'volume' ? { name: wish.name, driver: 'local' } : {}),
      source: wish.type === 'bind' ? wish.source : '',
      target: wish.target,
      readonly: wish.readonly !== false,
      propagation: '',
      mode: '',
      wish,
    })),
    endpoints: {},
    ports: [],
  };
}

function kernel(changes: Partial<KernelView> = {}): KernelView {
  const none = 0n;
  const bounding = capabilityMask(DEFAULT_CAPS.split(' ').map((name) => `CAP_${name}`));
  return {
    status: {
      name: 'serve',
      uids: [0, 0, 0, 0],
      gids: [0, 0, 0, 0],
      groups: [],
      nsPids: [7, 1],
      capabilities: { inheritable: none, permitted: none, effective: none, bounding, ambient: none },
      noNewPrivs: false,
      seccomp: 2,
      seccompFilters: 1,
      threads: 1,
      cpusAllowed: '0-1',
      memsAllowed: '0',
    },
    namespaces: {
      network: 'net:[2]',
      pid: 'pid:[2]',
      ipc: 'ipc:[2]',
      uts: 'uts:[2]',
      cgroup: 'cgroup:[2]',
      user: 'user:[1]',
    },
    hostNamespaces: {
      network: 'net:[1]',
      pid: 'pid:[1]',
      ipc: 'ipc:[1]',
      uts: 'uts:[1]',
      cgroup: 'cgroup:[1]',
      user: 'user:[1]',
    },
    mounts: [],
    cgroups: [],
    use: {},
    pids: [7],
    rlimits: {},
    listeners: [],
    ...changes,
  };
}

function bind(source: string, target: string): MountSpec {
  return { type: 'bind', source, target, readonly: 'recursive', recursive: true, createSource: true };
}

const HOST: OciHost = {
  nodeArch: 'x64',
  kernelRelease: '6.18.0',
  bounding: ['CAP_SYS_ADMIN'],
  cgroupVersion: 2,
  deviceNumbers: () => ({ major: 8, minor: 0 }),
  initBinary: '/init',
};

const look = (of: ContainerRecord, k: KernelView | undefined) =>
  xray({ record: of, kernel: k, neighbours: [], sandbox: undefined, networks: [], firewallNotes: [], host: HOST });

describe('an X-ray', () => {
  it('marks nothing where the kernel has it as it was wished', () => {
    const { sees, mayDo, mayUse } = look(record({}), kernel());
    expect([...sees, ...mayDo, ...mayUse].filter((line) => line.wished !== undefined)).toEqual([]);
    expect(sees.find((l) => l.topic === 'namespace.network')).toEqual({
      topic: 'namespace.network',
      because: 'default',
      value: 'its own',
    });
  });

  it('marks what the kernel has otherwise, with the wish beside it', () => {
    const of = record({
      resources: { ...PLAIN_RESOURCES, memoryBytes: 64 << 20 },
      security: { ...plainSpec().security, capDrop: ['NET_RAW'] },
      mounts: [bind('/srv', '/data')],
    });
    const stranger = { mountPoint: '/opt/x', fsType: 'ext4', source: '/dev/sda1', options: 'rw' };
    const k = kernel({
      namespaces: { ...kernel().namespaces, network: 'net:[1]' },
      mounts: [
        { ...MOUNT, mountPoint: '/data', options: 'rw,relatime' },
        { ...MOUNT, ...stranger },
        { ...MOUNT, mountPoint: '/proc', fsType: 'proc' },
      ],
      use: {
        memory: {
          usageBytes: 1,
          limitBytes: 128 << 20,
          failures: 0,
          oomKills: 0,
          stat: {},
          inactiveFileBytes: 0,
          cacheBytes: 0,
        },
      },
    });
    const { sees, mayDo, mayUse } = look(of, k);
    const marked = [...sees, ...mayDo, ...mayUse].filter((line) => line.wished !== undefined);
    expect(marked.map(({ topic, name, value, wished }) => [topic, name, value, wished])).toEqual([
      ['namespace.network', undefined, 'of the host', 'its own'],
      ['mount', '/data', '/srv, writable', '/srv, read-only'],
      ['mount', '/opt/x', 'ext4 /dev/sda1, writable', 'nothing'],
      ['capabilities', undefined, expect.stringContaining('net_raw'), expect.not.stringContaining('net_raw')],
      ['limit.memory', undefined, '128 MiB', '64 MiB'],
    ]);
  });
});

const MOUNT = {
  id: 1,
  parentId: 0,
  major: 0,
  minor: 0,
  root: '/',
  mountPoint: '/',
  options: 'rw',
  propagation: [],
  fsType: 'overlay',
  source: 'none',
  superOptions: 'rw',
};

function health(test: string[]) {
  return { test, intervalNs: 0, timeoutNs: 0, startPeriodNs: 0, startIntervalNs: 0, retries: 0 };
}

describe('why a container', () => {
  const of = (r: ContainerRecord, more: Partial<Parameters<typeof why>[0]> = {}) =>
    why({
      record: r,
      kernel: undefined,
      lastLines: ['boom'],
      firewallNotes: [],
      bridges: [],
      nowMs: T0 + 60_000,
      ...more,
    }).findings;
  const ended = (state: Partial<ContainerState>, changes: Partial<ContainerSpec> = {}) =>
    record(changes, { phase: 'exited', finishedAtMs: T0, ...state });
  const listening = (address: string) => kernel({ listeners: [{ protocol: 'tcp', address, port: 80, uid: 0 }] });
  const published = (): ContainerRecord => ({
    ...record({}),
    ports: [
      { containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 },
      { containerPort: 80, protocol: 'tcp', hostIp: '::', hostPort: 8080 },
    ],
  });

  it.each([
    [
      'OOM_KILLED',
      ended({ exitCode: 137, oomKilled: true }, { resources: { ...PLAIN_RESOURCES, memoryBytes: 16 << 20 } }),
    ],
    ['EXITED_WITH_ERROR', ended({ exitCode: 3 })],
    ['EXITED_BY_ITSELF', ended({ exitCode: 0 })],
    ['KILLED_BY_SIGNAL', ended({ exitCode: 139 })],
    ['STOPPED_BY_HAND', ended({ exitCode: 143, stoppedByHand: true })],
    ['END_NOT_SEEN', ended({ exitCode: 255 })],
    ['NEVER_STARTED', record({}, { phase: 'created', startedAtMs: 0 })],
    ['COMMAND_NOT_FOUND', record({}, { phase: 'created', startedAtMs: 0, exitCode: 127, error: 'x: not found' })],
    ['START_FAILED', record({}, { phase: 'created', startedAtMs: 0, exitCode: 128, error: 'port taken' })],
    ['RESTARTING', ended({ phase: 'restarting', exitCode: 1, restartCount: 4 })],
  ])('ended: %s', (code, r) => {
    const [first] = of(r);
    expect(first).toMatchObject({ code, next: expect.arrayContaining([expect.stringMatching(/\w/)]) });
  });

  it('does not answer at a port: published or not, heard or not, and by whom', () => {
    expect(of(published(), { kernel: kernel() }).map((f) => f.code)).toEqual(['NOBODY_LISTENS']);
    expect(of(published(), { kernel: listening('127.0.0.1') }).map((f) => f.code)).toEqual(['LISTENS_ON_LOOPBACK']);
    expect(of(published(), { kernel: listening('0.0.0.0') }).map((f) => f.code)).toEqual(['RUNNING']);
    expect(of(published(), { kernel: listening('::'), port: 80 })[0]).toMatchObject({
      code: 'NO_SUCH_PORT',
      evidence: ['published: 8080 → 80/tcp'],
    });
  });

  it('does not reach others, nor they it, by whose forward rule and with which commands', () => {
    const says = 'policy drop at the forward hook';
    const fix = 'iptables -I FORWARD -i e0 -j ACCEPT; iptables -I FORWARD -o e0 -j ACCEPT';
    const note = { kind: 'forward-drop' as const, where: 'ip filter FORWARD', says, fix, bridges: ['e0'] };
    const world = { kernel: kernel(), firewallNotes: [note] };
    expect(of(record({}), { ...world, bridges: ['e0', 'e-1'] })).toEqual([
      {
        code: 'HOST_FIREWALL',
        fact: "the host's firewall stops its traffic to and from other machines: ip filter FORWARD",
        cause: says,
        evidence: [],
        next: ['iptables -I FORWARD -i e0 -j ACCEPT', 'iptables -I FORWARD -o e0 -j ACCEPT'],
      },
    ]);
    expect(of(record({}), { ...world, bridges: ['e-1'] }).map((f) => f.code)).toEqual(['RUNNING']);
  });

  it('is unhealthy: the check, its last words and how to run it', () => {
    const r = record({ health: health(['CMD-SHELL', 'curl -f localhost']) });
    const log = [{ startMs: 0, endMs: 1, exitCode: 7, output: 'connection refused\n' }];
    r.state.health = { status: 'unhealthy', failingStreak: 3, log };
    expect(of(r, { kernel: kernel() })).toEqual([
      expect.objectContaining({
        code: 'UNHEALTHY',
        evidence: ['last check: exit code 7', 'connection refused'],
        next: ['docker exec web curl -f localhost', 'docker logs --tail 50 web'],
      }),
    ]);
  });
});

describe('what is exposed', () => {
  it('says from where each published port can be reached, and whether somebody listens', () => {
    const ports: ContainerRecord['ports'] = [
      { containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 },
      { containerPort: 81, protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8081 },
      { containerPort: 82, protocol: 'tcp' },
    ];
    const r = { ...record({}), ports };
    const ways = [{ links: ['eth0', '*'], open: ['10.9.0.0/16'], depends: [] }];
    const { ports: found } = exposed({
      records: [r],
      listeners: new Map([[r.id, [{ protocol: 'tcp', address: '0.0.0.0', port: 80, uid: 0 }]]]),
      hostAddresses: ['127.0.0.1', '10.0.0.5', 'fd00::5'],
      firewallNotes: [],
      reach: new Map([['tcp 8080 10.0.0.5', ways]]),
    });
    expect(found.map(({ from, unjudged }) => ({ from, unjudged }))).toEqual([
      { from: [{ at: ['10.0.0.5:8080'], ways }], unjudged: ['127.0.0.1:8080'] },
      { from: [], unjudged: ['127.0.0.1:8081'] },
    ]);
    const to = (_: string, family: 4 | 6) => ({ bridge: 'e0', address: family === 4 ? '172.17.0.2' : undefined });
    const behind = (port: number) => ({ bridge: 'e0', address: '172.17.0.2', port });
    expect(reachTargets([r], ['127.0.0.1', '10.0.0.5', 'fd00::5'], to)).toEqual([
      { protocol: 'tcp', port: 8080, address: '127.0.0.1', behind: behind(80) },
      { protocol: 'tcp', port: 8080, address: '10.0.0.5', behind: behind(80) },
      { protocol: 'tcp', port: 8081, address: '127.0.0.1', behind: behind(81) },
    ]);
    const anyV6 = { ...r, ports: [{ containerPort: 80, protocol: 'tcp' as const, hostIp: '::', hostPort: 8080 }] };
    expect(reachTargets([anyV6], ['fd00::5'], to)).toEqual([{ protocol: 'tcp', port: 8080, address: 'fd00::5' }]);
    expect(
      found.map(({ hostPort, reach, answersAt, listening }) => ({ hostPort, reach, answersAt, listening })),
    ).toEqual([
      {
        hostPort: 8080,
        reach: 'whoever reaches this host',
        answersAt: ['127.0.0.1:8080', '10.0.0.5:8080'],
        listening: true,
      },
      { hostPort: 8081, reach: 'this host', answersAt: ['127.0.0.1:8081'], listening: false },
    ]);
  });
});

describe('the audit', () => {
  const [ours, theirs] = ['a'.repeat(64), 'b'.repeat(64)];
  const places = { dataRoot: '/d', runRoot: '/r', daemon: 'estiba', cgroupParents: ['/sys/fs/cgroup/memory/estiba'] };
  const known = {
    ids: new Set([ours]),
    cgroupGroups: new Set(['kubepods/podstarting']),
    running: new Set([ours]),
    volumes: new Set(['known']),
    links: new Set(['estiba0', 'estiba-1']),
    namespaces: new Set(['/r/netns/1']),
  };
  const mount = (point: string): string => `1 0 0:1 / ${point} rw - ext4 /dev/x rw\n`;
  const clean = {
    [`/r/shims/${ours}/state`]: '',
    [`/r/oci/${ours}/`]: '',
    [`/d/containers/${ours}/log`]: '',
    '/d/volumes/known/_data/x': '',
    '/sys/class/net/estiba0': '',
    '/sys/class/net/eth0': '',
    [`/sys/fs/cgroup/memory/estiba/${ours}/cgroup.procs`]: '7\n',
    '/sys/fs/cgroup/memory/estiba/cgroup.procs': '',
    '/proc/self/mountinfo':
      mount('/') + mount(`/r/roots/${ours}`) + mount('/r/netns/1') + mount('/d/volumes/known/_data'),
  };

  it('finds nothing on a host that is as the records say', () => {
    expect(audit(known, places, treeFiles(clean)).findings).toEqual([]);
  });

  it('finds what is left, what is strange and what is missing, and how to take away what nobody owns', () => {
    const files = treeFiles({
      ...clean,
      [`/r/oci/${theirs}/state`]: '',
      [`/sys/fs/cgroup/memory/estiba/${theirs}/cgroup.procs`]: '',
      '/sys/fs/cgroup/memory/estiba/odd/cgroup.procs': '99\n',
      '/sys/class/net/estiba-2': '',
      '/d/volumes/forgotten/_data/x': '',
      '/proc/self/mountinfo': `${clean['/proc/self/mountinfo']}${mount(`/r/roots/${theirs}`)}`,
    });
    const { findings } = audit({ ...known, running: new Set([ours, theirs]) }, places, files);
    expect(findings.map((f) => [f.kind, f.what, f.cleanup?.says ?? ''])).toEqual([
      ['orphan', 'runtime states', `remove /r/oci/${theirs} and all below`],
      ['orphan', 'cgroup', `remove cgroup /sys/fs/cgroup/memory/estiba/${theirs}`],
      ['stranger', 'cgroup', ''],
      ['orphan', 'mount', `umount /r/roots/${theirs}`],
      ['orphan', 'link', ''],
      ['stranger', 'volume', ''],
      ['missing', 'shim', ''],
    ]);
  });
});

describe('the audit of a node with pods', () => {
  const [ours, theirs] = ['a'.repeat(64), 'b'.repeat(64)];
  const root = '/sys/fs/cgroup/memory/estiba';
  const places = { dataRoot: '/d', runRoot: '/r', daemon: 'estiba', cgroupParents: [root] };
  const known = {
    ids: new Set([ours]),
    cgroupGroups: new Set(['kubepods/podstarting']),
    running: new Set<string>(),
    volumes: new Set<string>(),
    links: new Set<string>(),
    namespaces: new Set<string>(),
  };
  const groups = (...paths: [path: string, procs?: string][]): Record<string, string> =>
    Object.fromEntries(paths.map(([path, procs = '']) => [`${root}/${path}/cgroup.procs`, procs]));

  it('leaves the groups of pods alone, with pods and without', () => {
    const files = treeFiles(
      groups(
        ['kubepods'],
        ['kubepods/burstable'],
        ['kubepods/besteffort'],
        ['kubepods/podstarting'],
        ['kubepods/burstable/podlive'],
        [`kubepods/burstable/podlive/${ours}`, '7\n'],
        [`kubepods/burstable/podlive/${ours}/made-inside`, '8\n'],
      ),
    );
    expect(audit(known, places, files).findings).toEqual([]);
  });

  it('finds a pod that is gone, as one finding, and what is left in a pod that lives', () => {
    const files = treeFiles(
      groups(
        ['kubepods'],
        ['kubepods/besteffort'],
        ['kubepods/besteffort/podgone'],
        [`kubepods/besteffort/podgone/${theirs}`],
        ['kubepods/podlive'],
        [`kubepods/podlive/${ours}`, '7\n'],
        [`kubepods/podlive/${theirs}`],
        ['kubepods/pododd', '99\n'],
      ),
    );
    const { findings } = audit(known, places, files);
    expect(findings.map((f) => [f.kind, f.where.slice(root.length + 1)])).toEqual([
      ['orphan', 'kubepods/besteffort/podgone'],
      ['orphan', `kubepods/podlive/${theirs}`],
      ['stranger', 'kubepods/pododd'],
    ]);
  });
});

describe('a container shown elsewhere', () => {
  const plain = plainSpec();
  const rich = record({
    process: { ...plain.process, args: ['serve', '--greeting', 'it’s $HOME'], user: '1000:1000', env: ['A=b c'] },
    health: { ...health(['CMD-SHELL', 'true']), intervalNs: 5e9 },
    mounts: [
      bind('/srv/data', '/data'),
      { type: 'volume', name: 'cache', target: '/cache', readonly: false, noCopy: false, labels: {} },
      { type: 'tmpfs', target: '/run', options: ['size=1m'], readonly: false },
    ],
    network: {
      ...plain.network,
      endpoints: [{ network: 'bridge', aliases: [], links: [], driverOptions: {} }],
      ports: { '80/tcp': [{ hostIp: '127.0.0.1', hostPort: '8080' }] },
    },
    resources: { ...PLAIN_RESOURCES, memoryBytes: 64 << 20, nanoCpus: 1.5e9 },
    security: { ...plain.security, capAdd: ['NET_ADMIN'] },
    restart: { name: 'on-failure', maxRetries: 3, onUnhealthy: false },
  });

  it('as docker run is a command that a shell takes as it stands', async () => {
    expect((await show(rich, 'docker-run')).split(' \\\n  ')).toEqual([
      'docker run',
      '--detach',
      '--name=web',
      '--user=1000:1000',
      "'--env=A=b c'",
      '--volume=/srv/data:/data:ro',
      '--mount=type=volume,source=cache,target=/cache',
      '--tmpfs=/run:size=1m',
      '--publish=127.0.0.1:8080:80',
      '--memory=67108864',
      '--cpus=1.5',
      '--cap-add=NET_ADMIN',
      '--restart=on-failure:3',
      '--health-cmd=true',
      '--health-interval=5s',
      "web:1 serve --greeting 'it’s $HOME'\n",
    ]);
  });

  it('as docker run has what else was wished', async () => {
    const endpoint = {
      network: 'app',
      aliases: ['a'],
      mac: '02:00:00:00:00:09',
      gwPriority: 2,
      links: [],
      driverOptions: { k: 'v' },
    };
    const text = await show(
      record({
        annotations: { note: 'x' },
        namespaces: { ...plain.namespaces, cgroup: { kind: 'host' } },
        network: { ...plain.network, ports: { '90/udp': [] }, endpoints: [endpoint] },
        security: { ...plain.security, maskedPaths: [], readonlyPaths: [] },
      }),
      'docker-run',
    );
    expect(text.split(' \\\n  ')).toEqual(
      expect.arrayContaining([
        '--annotation=note=x',
        '--cgroupns=host',
        '--network=name=app,alias=a,mac-address=02:00:00:00:00:09,gw-priority=2,driver-opt=k=v',
        '--expose=90/udp',
        '--security-opt=systempaths=unconfined',
      ]),
    );
  });

  it('as a Compose file keeps its dollars', async () => {
    const file = parse(await show(rich, 'compose'));
    expect(file.services.web).toMatchObject({
      image: 'web:1',
      command: ['serve', '--greeting', 'it’s $$HOME'],
      ports: ['127.0.0.1:8080:80'],
      volumes: ['/srv/data:/data:ro', { type: 'volume', source: 'cache', target: '/cache' }],
      cpus: 1.5,
      restart: 'on-failure:3',
    });
    expect(file.volumes).toEqual({ cache: { external: true } });
    const low = { ...rich, spec: { ...rich.spec, process: { ...rich.spec.process, user: '5:10' } } };
    expect(await show(low, 'compose')).toContain('user: "5:10"\n'); // a number of base sixty in YAML 1.1
  });

  it('as Kubernetes objects says what it cannot say', async () => {
    const text = await show(rich, 'kubernetes');
    const [pod, service] = parseAllDocuments(text).map((d) => d.toJS());
    expect(pod).toMatchObject({
      kind: 'Pod',
      spec: {
        restartPolicy: 'OnFailure',
        containers: [
          {
            securityContext: { runAsUser: 1000, runAsGroup: 1000, capabilities: { add: ['NET_ADMIN'] } },
            resources: { limits: { memory: '67108864', cpu: '1500m' } },
            livenessProbe: { exec: { command: ['/bin/sh', '-c', 'true'] }, periodSeconds: 5 },
          },
        ],
        volumes: [
          { name: 'volume-0', hostPath: { path: '/srv/data' } },
          { name: 'volume-1', persistentVolumeClaim: { claimName: 'cache' } },
          { name: 'volume-2', emptyDir: { medium: 'Memory' } },
        ],
      },
    });
    expect(service).toMatchObject({
      kind: 'Service',
      spec: { ports: [{ port: 80, targetPort: 80, protocol: 'TCP' }] },
    });
    expect(text).toContain('# not said here: its claims have to be made');
  });
});
