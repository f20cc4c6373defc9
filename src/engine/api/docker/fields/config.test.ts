import { describe, expect, it } from 'vitest';
import { createRequest } from '#engine/api/docker/create.ts';
import { CREATE } from '#engine/api/docker/fields/create.fates.ts';
import { merged, withValue } from '#engine/api/docker/fields/fates.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { ociConfig } from '#engine/core/oci.ts';
import { SeccompProfiles } from '#engine/core/seccomp-profiles.ts';
import { checkBody } from '#spec/docker/body.ts';

/** What a run is not told by config.json: who acts on it, and the test that shows it. */
const ELSEWHERE: Readonly<Record<string, readonly string[]>> = {
  'network-source.ts, on the kernel in networks.host.test.ts': [
    'HostConfig.PortBindings',
    'HostConfig.PublishAllPorts',
    'HostConfig.Dns',
    'HostConfig.DnsOptions',
    'HostConfig.DnsSearch',
    'HostConfig.ExtraHosts',
    'HostConfig.Links',
    'NetworkingConfig',
    'MacAddress',
    'ExposedPorts',
    'Dns',
  ],
  'volume-source.ts, on the kernel in volume-source.host.test.ts': [
    'HostConfig.Binds',
    'HostConfig.Mounts',
    'HostConfig.Tmpfs',
    'HostConfig.VolumesFrom',
    'HostConfig.VolumeDriver',
    'Volumes',
  ],
  'devices.ts looks up the nodes; docker-py.test.ts': ['HostConfig.Devices'],
  'user.ts looks up names in the container’s files; docker-cli.test.ts': ['User', 'HostConfig.GroupAdd'],
  'launch.ts gives the host name and the streams; docker-cli.test.ts': ['Hostname', 'OpenStdin', 'StdinOnce'],
  'containers.ts, in containers.test.ts and life.test.ts': [
    'HostConfig.AutoRemove',
    'HostConfig.RestartPolicy',
    'Healthcheck',
    'Shell',
    'StopSignal',
    'StopTimeout',
    'Image',
    'Labels',
    'name',
  ],
  'making.ts chooses its ids, the network makes it; userns.host.test.ts': ['HostConfig.UsernsMode'],
  'runtimes.ts; foreign.host.test.ts': ['HostConfig.Runtime', 'Runtime'],
  'the shim, in log-reader.ts and shim.host.test.ts': ['HostConfig.LogConfig'],
  'the wish is answered by a warning: Linux has no such limit': [
    'HostConfig.KernelMemory',
    'HostConfig.KernelMemoryTCP',
  ],
  'no endpoint is asked for: create.test.ts': ['NetworkDisabled'],
};

function configOf(body: object): unknown {
  const { spec } = createRequest(checkBody('ContainerCreate', body));
  return ociConfig({
    id: 'c1',
    spec,
    process: applyImage(spec, { Cmd: ['sh'] }),
    user: { uid: 0, gid: 0, additionalGids: [], home: '/root' },
    hostname: 'c1',
    rootfs: '/rootfs',
    mounts: [],
    files: [],
    join: {},
    cgroupsPath: `${spec.resources.cgroupParent ?? '/estiba'}/c1`,
    devices: [],
    profiles: new SeccompProfiles({ nodeArch: 'x64', kernelRelease: '6.18.0' }),
    host: {
      nodeArch: 'x64',
      kernelRelease: '6.18.0',
      bounding: ['CAP_CHOWN', 'CAP_KILL', 'CAP_SYS_ADMIN'],
      cgroupVersion: 1,
      deviceNumbers: (path) => ({ major: 8, minor: path.charCodeAt(path.length - 1) }),
      initBinary: '/usr/lib/estiba/estiba-init',
    },
  });
}

describe('what a create asks for', () => {
  const elsewhere = Object.values(ELSEWHERE).flat();
  const isElsewhere = (path: string): boolean =>
    elsewhere.some((name) => path === name || ['.', '[', '{'].some((mark) => path.startsWith(`${name}${mark}`)));

  it.each(
    Object.entries(CREATE).flatMap(([path, f]) =>
      f.fate === 'works' && !isElsewhere(path) ? [[path, f] as const] : [],
    ),
  )('%s is in config.json', (path, { value, beside = {}, key }) => {
    const least = merged(beside, { Image: 'base' });
    expect(configOf(withValue(least, path, value, key))).not.toEqual(configOf(least));
  });
});
