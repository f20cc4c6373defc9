import { describe, expect, it } from 'vitest';
import { createRequest } from '#engine/api/docker/create.ts';
import { checkBody } from '#spec/docker/body.ts';

const create = (body: object): ReturnType<typeof createRequest> =>
  createRequest(checkBody('ContainerCreate', { Image: 'busybox', ...body }));
const host = (HostConfig: object): ReturnType<typeof createRequest> => create({ HostConfig });

describe('createRequest', () => {
  it('takes a plain request with Docker defaults', () => {
    const { spec, warnings } = create({ Cmd: ['echo', 'hi'], Env: ['A=b'] });
    expect(spec).toMatchObject({
      image: 'busybox',
      process: { args: ['echo', 'hi'], env: ['A=b'], tty: false },
      network: { endpoints: [{ network: 'bridge' }] },
      restart: { name: 'no' },
      shmBytes: 67108864,
      logging: { driver: 'json-file' },
    });
    expect(warnings).toEqual([]);
  });

  it('reads binds, mounts, tmpfs and anonymous volumes', () => {
    const { spec } = create({
      Volumes: { '/anon': {}, '/data': {} },
      HostConfig: {
        Binds: ['/src:/dst:ro,rslave', 'vol:/data:nocopy', '/u:/u:uid=7,gid=8'],
        Mounts: [
          {
            Type: 'bind',
            Source: '/a',
            Target: '/b/../c',
            ReadOnly: true,
            BindOptions: { ReadOnlyForceRecursive: true },
          },
          {
            Type: 'volume',
            Source: 'v2',
            Target: '/v2',
            VolumeOptions: { Subpath: 'x', DriverConfig: { Name: 'local', Options: { size: '1m' } } },
          },
          { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1024, Mode: 0o700 } },
        ],
        Tmpfs: { '/run': 'ro,size=64k' },
      },
    });
    expect(spec.mounts).toEqual([
      {
        type: 'bind',
        source: '/src',
        target: '/dst',
        readonly: 'recursive',
        propagation: 'rslave',
        recursive: true,
        createSource: true,
      },
      { type: 'volume', name: 'vol', target: '/data', readonly: false, noCopy: true, labels: {} },
      {
        type: 'bind',
        source: '/u',
        target: '/u',
        readonly: false,
        recursive: true,
        createSource: true,
        owner: { uid: 7, gid: 8 },
      },
      { type: 'bind', source: '/a', target: '/c', readonly: 'force-recursive', recursive: true, createSource: false },
      {
        type: 'volume',
        name: 'v2',
        target: '/v2',
        readonly: false,
        noCopy: false,
        subpath: 'x',
        driver: { name: 'local', options: { size: '1m' } },
        labels: {},
      },
      { type: 'tmpfs', target: '/t', options: ['size=1024', 'mode=700'], readonly: false },
      { type: 'tmpfs', target: '/run', options: ['size=64k'], readonly: 'top' },
      { type: 'volume', name: '', target: '/anon', readonly: false, noCopy: false, labels: {} },
    ]);
  });

  it('reads networks, ports and names', () => {
    const { spec } = create({
      ExposedPorts: { '90/udp': {} },
      HostConfig: {
        NetworkMode: 'app',
        PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }], '81': [] },
        ExtraHosts: ['db:1.2.3.4'],
      },
      NetworkingConfig: {
        EndpointsConfig: { app: { Aliases: ['web'], IPAMConfig: { IPv4Address: '10.0.0.5' } }, other: null },
      },
    });
    expect(spec.network).toMatchObject({
      endpoints: [
        { network: 'app', aliases: ['web'], ipv4: '10.0.0.5' },
        { network: 'other', aliases: [] },
      ],
      ports: {
        '90/udp': [],
        '80/tcp': [{ hostIp: '127.0.0.1', hostPort: '8080' }],
        '81/tcp': [{ hostIp: '', hostPort: '' }],
      },
    });
  });

  it('tells compose from docker, and keeps the request word for word', () => {
    const { spec } = create({ Labels: { 'com.docker.compose.project': 'shop' } });
    expect(spec.origin).toMatchObject({ by: 'compose', request: { Image: 'busybox' } });
  });

  it('reads security options in both spellings', () => {
    const profile = '{"defaultAction":"SCMP_ACT_ALLOW"}';
    expect(
      host({ SecurityOpt: ['no-new-privileges', `seccomp=${profile}`, 'label=disable'] }).spec.security,
    ).toMatchObject({
      noNewPrivileges: true,
      seccomp: { profile: { defaultAction: 'SCMP_ACT_ALLOW' } },
    });
    expect(host({ SecurityOpt: ['seccomp:unconfined', 'systempaths=unconfined'] }).spec.security).toMatchObject({
      seccomp: 'unconfined',
      maskedPaths: [],
      readonlyPaths: [],
    });
  });

  const bad: [object, string][] = [
    [{ Image: '' }, '$.Image: "" must name an image'],
    [{ HostConfig: { Binds: ['/a:/b:/c:d'] } }, '$.HostConfig.Binds[0]: "/a:/b:/c:d" is not SOURCE:TARGET[:OPTIONS]'],
    [{ HostConfig: { Binds: ['/a:b'] } }, 'has a target that is not an absolute path'],
    [{ HostConfig: { Binds: ['/a:/'] } }, 'has / as its target'],
    [{ HostConfig: { Binds: ['a/b:/c'] } }, 'has "a/b", which is neither'],
    [{ HostConfig: { Binds: ['/a:/b:ro,rw'] } }, 'is both ro and rw'],
    [{ HostConfig: { Binds: ['/a:/b:fast'] } }, 'has the unknown option fast'],
    [{ HostConfig: { Binds: ['/a:/b', '/c:/b'] } }, 'Duplicate mount point'],
    [
      { HostConfig: { Mounts: [{ Type: 'npipe', Target: '/x' }] } },
      '$.HostConfig.Mounts[0].Type: "npipe" is none of bind, volume, tmpfs',
    ],
    [
      { HostConfig: { Mounts: [{ Type: 'tmpfs', Target: '/x', Source: '/y' }] } },
      '$.HostConfig.Mounts[0].Source: "/y" must be empty',
    ],
    [{ HostConfig: { Memory: 1000 } }, 'minimum memory limit of 6MB'],
    [{ HostConfig: { MemorySwap: 10_000_000 } }, '$.HostConfig.MemorySwap: 10000000 needs a memory limit'],
    [{ HostConfig: { NanoCpus: 1, CpuQuota: 5000 } }, '$.HostConfig.NanoCpus'],
    [
      { HostConfig: { RestartPolicy: { Name: 'sometimes' } } },
      '$.HostConfig.RestartPolicy.Name: "sometimes" is none of',
    ],
    [{ HostConfig: { AutoRemove: true, RestartPolicy: { Name: 'always' } } }, 'contradicts the restart policy always'],
    [{ HostConfig: { PortBindings: { '99999/tcp': [] } } }, 'is no port such as 80/tcp'],
    [{ HostConfig: { PortBindings: { '80/tcp': [{ HostPort: 'http' }] } } }, 'is no host port'],
    [{ HostConfig: { PidMode: 'shared' } }, '$.HostConfig.PidMode: "shared" is none of'],
    [
      { HostConfig: { Ulimits: [{ Name: 'files', Soft: 1, Hard: 1 }] } },
      '$.HostConfig.Ulimits[0].Name: "files" is no limit',
    ],
    [{ HostConfig: { Ulimits: [{ Name: 'nofile', Soft: 2, Hard: 1 }] } }, 'is above the hard limit'],
    [{ HostConfig: { SecurityOpt: ['apparmor=strict'] } }, 'AppArmor profile strict is not supported'],
    [{ HostConfig: { SecurityOpt: ['magic=1'] } }, '$.HostConfig.SecurityOpt[0]: "magic=1" is none of'],
    [{ HostConfig: { SecurityOpt: ['seccomp=/etc/profile.json'] } }, 'is no seccomp profile'],
    [{ HostConfig: { DeviceCgroupRules: ['c 1:2'] } }, 'is no device rule'],
    [{ HostConfig: { DeviceRequests: [{ Driver: 'nvidia' }] } }, '--gpus and other device requests is not supported'],
    [{ HostConfig: { UTSMode: 'host' }, Hostname: 'x' }, 'contradicts UTSMode host'],
    [{ HostConfig: { NetworkMode: 'container:x', PublishAllPorts: true } }, 'contradicts NetworkMode container'],
    [{ HostConfig: { LogConfig: { Type: 'syslog' } } }, "logger: no log driver named 'syslog' is registered"],
    [{ HostConfig: { LogConfig: { Config: { 'max-size': 'big' } } } }, 'is no size such as 10m'],
    [{ HostConfig: { LogConfig: { Config: { 'max-file': '0' } } } }, 'is not a number of files'],
    [{ HostConfig: { LogConfig: { Config: { colour: 'x' } } } }, 'is no option here'],
    [{ HostConfig: { LogConfig: { Config: { compress: 'yes' } } } }, 'is neither true nor false'],
    [{ HostConfig: { LogConfig: { Config: { compress: '1', 'max-file': '1' } } } }, 'contradicts a max-file of 1'],
    [{ HostConfig: { LogConfig: { Config: { tag: '{{.Foo}}' } } } }, 'has more than {{.ID}}'],
    [{ HostConfig: { LogConfig: { Config: { mode: 'non-blocking' } } } }, 'no line is dropped'],
    [{ HostConfig: { LogConfig: { Config: { 'env-regex': '(' } } } }, 'is no regular expression'],
    [{ WorkingDir: 'src' }, '$.WorkingDir: "src" is not an absolute path'],
    [{ Healthcheck: { Test: ['curl'] } }, '$.Healthcheck.Test'],
    [{ Healthcheck: { Interval: 5 } }, '$.Healthcheck.Interval: 5 is below one millisecond'],
    [
      { NetworkingConfig: { EndpointsConfig: { app: { IPAMConfig: { LinkLocalIPs: ['10.1.2.3'] } } } } },
      '$.NetworkingConfig.EndpointsConfig["app"].IPAMConfig.LinkLocalIPs[0]',
    ],
  ];
  it.each(bad)('%j is refused by path', (body, message) => {
    expect(() => create(body)).toThrow(message);
  });

  it('takes what is said of the network `default` for the main one, whether that is named or not', () => {
    const NetworkingConfig = { EndpointsConfig: { default: { MacAddress: '02:00:00:00:00:09' } } };
    for (const HostConfig of [{}, { NetworkMode: 'default' }])
      expect(create({ HostConfig, NetworkingConfig }).spec.network.endpoints).toMatchObject([
        { network: 'bridge', mac: '02:00:00:00:00:09' },
      ]);
  });

  it('names the runtime that is asked for, of which the engine knows whether it is there', () => {
    expect(host({ Runtime: 'runc' }).spec.runtime).toBe('runc');
    expect(create({ Runtime: 'runc' }).spec.runtime).toBe('runc'); // docker-py's place for it
    expect(host({}).spec.runtime).toBeUndefined();
  });
});
