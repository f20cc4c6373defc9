import { describe, expect, it } from 'vitest';
import { containerCapabilities, DEFAULT_CAPABILITIES } from '#engine/core/capabilities.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { type OciInputs, ociConfig } from '#engine/core/oci.ts';
import { plainSpec } from '#engine/core/plain-spec.ts';
import { SeccompProfiles } from '#engine/core/seccomp-profiles.ts';
import type { ContainerSpec, MountSpec } from '#engine/core/spec.ts';
import { resolveUser } from '#engine/core/user.ts';
import { CAPABILITIES } from '#kernel/linux/names.ts';

const containerSpec = (changes: Partial<ContainerSpec> = {}): ContainerSpec =>
  plainSpec({ image: 'busybox', ...changes });

function inputs(spec: ContainerSpec, changes: Partial<OciInputs> = {}): OciInputs {
  return {
    id: 'c1',
    spec,
    process: applyImage(spec, { Cmd: ['sh'], Env: ['PATH=/bin'] }),
    user: { uid: 0, gid: 0, additionalGids: [], home: '/root' },
    hostname: 'c1',
    rootfs: '/rootfs',
    mounts: [],
    files: [{ path: '/etc/hosts', source: '/run/c1/hosts' }],
    join: {},
    cgroupsPath: '/estiba/c1',
    devices: [],
    profiles: new SeccompProfiles({ nodeArch: 'x64', kernelRelease: '6.18.0' }),
    host: {
      nodeArch: 'x64',
      kernelRelease: '6.18.0',
      bounding: CAPABILITIES(),
      cgroupVersion: 1,
      deviceNumbers: () => ({ major: 8, minor: 0 }),
      initBinary: '/usr/lib/estiba/estiba-init',
    },
    ...changes,
  };
}

describe('applyImage', () => {
  const image = {
    Entrypoint: ['/entry'],
    Cmd: ['a'],
    Env: ['PATH=/x', 'LANG=C'],
    WorkingDir: '/w',
    User: 'app',
    Healthcheck: { Test: ['CMD', 'ok'], Retries: 5 },
  };

  it("joins the image's command with the container's as Docker does", () => {
    const argv = (process: object): string[] =>
      applyImage(containerSpec({ process: { ...containerSpec().process, ...process } }), image).argv;
    expect(argv({})).toEqual(['/entry', 'a']);
    expect(argv({ args: ['b'] })).toEqual(['/entry', 'b']);
    expect(argv({ entrypoint: ['/own'] })).toEqual(['/own']);
    expect(argv({ entrypoint: [], args: ['b'] })).toEqual(['b']);
    expect(() => argv({ entrypoint: [] })).toThrow('no command specified');
  });

  it('joins the environment by name; a bare name takes it away; a terminal has TERM', () => {
    const spec = containerSpec({ process: { ...containerSpec().process, env: ['LANG', 'A=b', 'PATH=/y'], tty: true } });
    expect(applyImage(spec, image).env).toEqual(['PATH=/y', 'TERM=xterm', 'A=b']);
  });

  it('inherits each part of a health check on its own', () => {
    const own = { test: [], intervalNs: 7, timeoutNs: 0, startPeriodNs: 0, startIntervalNs: 0, retries: 0 };
    expect(applyImage(containerSpec({ health: own }), image).health).toMatchObject({
      test: ['CMD', 'ok'],
      intervalNs: 7,
      retries: 5,
      timeoutNs: 30e9,
    });
    expect(applyImage(containerSpec({ health: { ...own, test: ['NONE'] } }), image).health).toBeUndefined();
  });
});

describe('containerCapabilities', () => {
  const caps = (capAdd: string[], capDrop: string[], privileged = false): string[] =>
    containerCapabilities({ privileged, capAdd, capDrop }, ['CAP_CHOWN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN']);

  it('are the fourteen by default, and only what was added after dropping all', () => {
    expect(caps([], [])).toEqual(DEFAULT_CAPABILITIES);
    expect(caps(['net_raw'], ['ALL'])).toEqual(['CAP_NET_RAW']);
    expect(caps(['sys_admin'], ['CAP_CHOWN'])).toEqual([
      ...DEFAULT_CAPABILITIES.filter((c) => c !== 'CAP_CHOWN'),
      'CAP_SYS_ADMIN',
    ]);
  });

  it('never exceed what this machine can give, privileged or ALL', () => {
    expect(caps([], [], true)).toEqual(['CAP_CHOWN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN']);
    expect(caps(['all'], ['net_raw'])).toEqual(['CAP_CHOWN', 'CAP_SYS_ADMIN']);
  });

  it('name what does not exist', () => expect(() => caps(['fly'], [])).toThrow('unknown capability: "fly"'));
});

describe('resolveUser', () => {
  const files = {
    passwd: 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n1000:x:7:7::/odd:/bin/sh\n',
    group: 'root:x:0:\nstaff:x:50:app,root\ndisk:x:6:app\n',
  };
  it.each([
    ['', { uid: 0, gid: 0, additionalGids: [], home: '/root' }],
    ['app', { uid: 1000, gid: 1001, additionalGids: [1001, 50, 6], home: '/home/app' }],
    ['app:staff', { uid: 1000, gid: 50, additionalGids: [50], home: '/home/app' }],
    ['1000', { uid: 7, gid: 7, additionalGids: [7], home: '/odd' }],
    ['4242', { uid: 4242, gid: 0, additionalGids: [0], home: '/' }],
    ['4242:4243', { uid: 4242, gid: 4243, additionalGids: [4243], home: '/' }],
  ])('%j', (wish, user) => expect(resolveUser(wish, files)).toMatchObject(wish === '' ? { uid: 0, gid: 0 } : user));

  it('refuses names and numbers that cannot be', () => {
    expect(() => resolveUser('nobody', files)).toThrow('unable to find user nobody');
    expect(() => resolveUser('app:none', files)).toThrow('unable to find group none');
    expect(() => resolveUser('4294967295', files)).toThrow('unable to find user');
  });

  it('adds the groups of --group-add', () =>
    expect(resolveUser('app', files, ['9', 'staff']).additionalGids).toEqual([1001, 50, 6, 9]));
});

describe('ociConfig', () => {
  it('has the namespaces, mounts and limits of a plain container', async () => {
    const config = ociConfig(
      inputs(
        containerSpec({
          resources: { ...containerSpec().resources, memoryBytes: 64 * 2 ** 20, nanoCpus: 5e8, pids: 20 },
        }),
      ),
    );
    const { seccomp, ...linux } = config.linux ?? {};
    expect(seccomp?.defaultAction).toBe('SCMP_ACT_ERRNO');
    const text = `${JSON.stringify({ ...config, linux }, null, 2)}\n`;
    await expect(text).toMatchFileSnapshot('golden/plain.json');
  });

  it('gives a privileged container no filter, no masks and all devices', () => {
    const config = ociConfig(inputs(containerSpec({ security: { ...containerSpec().security, privileged: true } })));
    expect(config.linux).toMatchObject({
      maskedPaths: [],
      readonlyPaths: [],
      resources: { devices: [{ allow: true, access: 'rwm' }] },
    });
    expect(config.linux?.seccomp).toBeUndefined();
    expect(config.process?.capabilities?.bounding).toEqual(CAPABILITIES());
  });

  it('gives another user than root nothing but the bounding set', () => {
    const config = ociConfig(inputs(containerSpec(), { user: { uid: 5, gid: 5, additionalGids: [], home: '/' } }));
    expect(config.process?.capabilities).toEqual({
      bounding: DEFAULT_CAPABILITIES,
      permitted: [],
      effective: [],
      inheritable: [],
      ambient: [],
    });
  });

  it('joins namespaces by path, leaves those of the host away, and keeps the shared /dev/shm', () => {
    const spec = containerSpec({
      namespaces: {
        ...containerSpec().namespaces,
        network: { kind: 'container', id: 'x' },
        pid: { kind: 'host' },
        ipc: { kind: 'container', id: 'x' },
      },
    });
    const config = ociConfig(
      inputs(spec, { join: { network: '/proc/9/ns/net', ipc: '/proc/9/ns/ipc' }, shmSource: '/run/x/shm' }),
    );
    expect(config.linux?.namespaces).toEqual([
      { type: 'mount' },
      { type: 'network', path: '/proc/9/ns/net' },
      { type: 'ipc', path: '/proc/9/ns/ipc' },
      { type: 'uts' },
      { type: 'cgroup' },
    ]);
    expect(config.mounts?.find((m) => m.destination === '/dev/shm')).toMatchObject({
      type: 'bind',
      source: '/run/x/shm',
    });
    expect(config.linux?.sysctl).toEqual({});
  });

  it("lets the user's own mounts replace ours, and puts the reaper where any image can have it", () => {
    const tmpfs: MountSpec = { type: 'tmpfs', target: '/dev/shm', options: [], readonly: false };
    const config = ociConfig(
      inputs(containerSpec({ init: true, mounts: [tmpfs] }), {
        mounts: [{ destination: '/dev/shm', type: 'tmpfs', source: 'tmpfs' }],
      }),
    );
    expect(config.mounts?.filter((m) => m.destination === '/dev/shm')).toHaveLength(1);
    expect(config.process?.args).toEqual(['/dev/estiba-init', 'init', '--', 'sh']);
  });

  it('binds our files over a volume at /etc, which would hide them, and the reaper outside a /dev of the user’s', () => {
    const mount = (target: string) =>
      ({ type: 'bind', source: target, target, options: [], readonly: false }) as unknown as MountSpec;
    const bind = (destination: string) => ({ destination, type: 'bind', source: destination, options: ['rbind'] });
    const targets = ['/a', '/dev', '/etc', '/etc/app'];
    const config = ociConfig(
      inputs(containerSpec({ init: true, mounts: targets.map(mount) }), {
        mounts: targets.map(bind),
        files: [{ path: '/etc/hosts', source: '/f/hosts' }],
      }),
    );
    const order = config.mounts?.map((m) => m.destination).filter((d) => !/^.(proc|sys|dev.)/.test(d));
    expect(order).toEqual(['/dev', '/etc', '/etc/hosts', '/sbin/docker-init', '/a', '/dev', '/etc/app']);
    expect(config.process?.args?.[0]).toBe('/sbin/docker-init');
  });
});
