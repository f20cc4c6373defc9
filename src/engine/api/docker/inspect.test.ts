import { describe, expect, it } from 'vitest';
import { parseDurationNs } from '#base/units.ts';
import { createRequest } from '#engine/api/docker/create.ts';
import { inspectContainer } from '#engine/api/docker/inspect.ts';
import { containerSummary, selectContainers, statusText } from '#engine/api/docker/list.ts';
import { dockerTime, humanDuration, parseTime } from '#engine/api/docker/time.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { type ContainerRecord, type ContainerState, FRESH_STATE } from '#engine/core/record.ts';
import { checkBody } from '#spec/docker/body.ts';
import { parseFilters } from '#spec/docker/filters.ts';

const T0 = Date.UTC(2026, 0, 2, 3, 4, 5);

function record(name: string, body: object = {}, state: Partial<ContainerState> = {}): ContainerRecord {
  const { spec } = createRequest(checkBody('ContainerCreate', { Image: 'busybox', Cmd: ['top', '-b'], ...body }));
  return {
    id: name.padEnd(64, '0'),
    name,
    createdAtMs: T0,
    spec,
    process: applyImage(spec, { Env: ['PATH=/bin'], Labels: { from: 'image' } }),
    image: { id: 'sha256:1', reference: 'busybox' },
    hostname: name,
    state: { ...FRESH_STATE, phase: 'running', pid: 42, startedAtMs: T0, ...state },
    mounts: [
      {
        type: 'volume',
        name: 'v',
        driver: 'local',
        source: '/d/v',
        target: '/data',
        readonly: false,
        propagation: '',
        mode: 'z',
        wish: { type: 'volume', name: 'v', target: '/data', readonly: false, noCopy: false, labels: {} },
      },
    ],
    endpoints: {
      bridge: {
        networkId: 'n1',
        endpointId: 'e1',
        ipv4: '172.17.0.2',
        prefix4: 16,
        gateway4: '172.17.0.1',
        mac: '02:42:ac:11:00:02',
        aliases: [],
        links: [],
        driverOptions: {},
      },
    },
    ports: [
      { containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 },
      { containerPort: 53, protocol: 'udp' },
    ],
  };
}

const places = {
  logPath: '/l',
  hostsPath: '/h',
  hostnamePath: '/n',
  resolvConfPath: '/r',
  execIds: [],
  sandboxKey: '/run/ns',
  graph: undefined,
};

describe('inspection', () => {
  it('shows the request again, with defaults where it said nothing, and the state of now', () => {
    const seen = inspectContainer(
      record('web', { Labels: { a: 'b' }, HostConfig: { Binds: ['vol:/data'], Memory: 64 << 20 } }),
      places,
    );
    expect(seen).toMatchObject({
      Name: '/web',
      Path: 'top',
      Args: ['-b'],
      Created: '2026-01-02T03:04:05Z',
      State: { Status: 'running', Running: true, Pid: 42, ExitCode: 0, FinishedAt: '0001-01-01T00:00:00Z' },
      HostConfig: {
        Binds: ['vol:/data'],
        Memory: 67108864,
        MemorySwap: 134217728,
        NetworkMode: 'bridge',
        RestartPolicy: { Name: 'no' },
      },
      Config: { Cmd: ['top', '-b'], Entrypoint: null, Labels: { a: 'b', from: 'image' }, Env: ['PATH=/bin'] },
      NetworkSettings: {
        IPAddress: '172.17.0.2',
        Ports: { '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }], '53/udp': null },
      },
      Mounts: [{ Type: 'volume', Name: 'v', Destination: '/data', RW: true }],
    });
  });

  it('shows no addresses, ports or pid of what does not run', () => {
    const seen = inspectContainer(
      record('web', {}, { phase: 'exited', exitCode: 137, finishedAtMs: T0 + 1.5 }),
      places,
    );
    expect(seen).toMatchObject({
      State: { Status: 'exited', Running: false, Pid: 0, ExitCode: 137, FinishedAt: '2026-01-02T03:04:05.0015Z' },
      NetworkSettings: { IPAddress: '', Ports: {}, Networks: { bridge: { IPAddress: '', NetworkID: 'n1' } } },
    });
  });
});

describe('docker ps', () => {
  const now = T0 + 3 * 60_000;
  const all = [
    record('web', { Labels: { tier: 'front' } }),
    record('db', {}, { phase: 'exited', exitCode: 1, finishedAtMs: T0 }),
    record('new', {}, { phase: 'created', startedAtMs: 0 }),
  ];
  const select = (filters: object, changes: object = {}): string[] =>
    selectContainers(all, {
      all: false,
      limit: 0,
      filters: parseFilters(JSON.stringify(filters)),
      ancestors: () => new Set(['sha256:1']),
      nowMs: now,
      ...changes,
    }).map((r) => r.name);

  it('has a line as Docker words it', () => {
    expect(containerSummary(all[0] as ContainerRecord, now)).toMatchObject({
      Names: ['/web'],
      Command: 'top -b',
      State: 'running',
      Status: 'Up 3 minutes',
      Ports: [
        { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' },
        { PrivatePort: 53, Type: 'udp' },
      ],
    });
    expect(all.map((r) => statusText(r, now))).toEqual(['Up 3 minutes', 'Exited (1) 3 minutes ago', 'Created']);
  });

  it.each([
    [{}, ['web']],
    [{ status: ['exited'] }, ['db']],
    [{ exited: ['1'] }, ['db']],
    [{ name: ['^/we'] }, ['web']],
    [{ label: ['tier=front'] }, ['web']],
    [{ label: ['tier=back'] }, []],
    [{ publish: ['8000-9000'] }, ['web']],
    [{ expose: ['53/udp'] }, ['web']],
    [{ network: ['bridge'] }, ['web']],
    [{ volume: ['/data'] }, ['web']],
    [{ ancestor: ['busybox'] }, ['web']],
    [{ health: ['none'] }, ['web']],
    [{ id: ['we'] }, ['web']],
  ])('selects by %j', (filters, names) => expect(select(filters)).toEqual(names));

  it('refuses filters it does not know', () => {
    expect(() => select({ colour: ['red'] })).toThrow('filters.colour');
    expect(() => select({ status: ['asleep'] })).toThrow('filters.status: "asleep" is none of');
    expect(() => select({ before: ['nobody'] })).toThrow('No such container');
  });

  it('takes the youngest with a limit', () => expect(select({}, { limit: 2 })).toHaveLength(2));
});

describe('times', () => {
  it.each([
    [0, 'Less than a second'],
    [1_000, '1 second'],
    [59_000, '59 seconds'],
    [60_000, 'About a minute'],
    [3_600_000, 'About an hour'],
    [86_400_000, '24 hours'],
    [3 * 86_400_000, '3 days'],
    [20 * 86_400_000, '2 weeks'],
    [100 * 86_400_000, '3 months'],
    [900 * 86_400_000, '2 years'],
  ])('%d ms is %s', (ms, text) => {
    expect(humanDuration(ms)).toBe(text);
  });

  it('print and read as Docker does', () => {
    expect([dockerTime(0), dockerTime(T0), dockerTime(T0 + 0.25)]).toEqual([
      '0001-01-01T00:00:00Z',
      '2026-01-02T03:04:05Z',
      '2026-01-02T03:04:05.00025Z',
    ]);
    expect([
      parseTime('1.5', 0, parseDurationNs),
      parseTime('10s', T0, parseDurationNs),
      parseTime('2026-01-02T03:04:05Z', 0, parseDurationNs),
      parseTime('never', 0, parseDurationNs),
    ]).toEqual([1500, T0 - 10_000, T0, undefined]);
  });
});
