import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from './daemon.ts';
import { HELLO, type Room, Room as RoomClass, rootfsTar, run, startOurs, until } from './room.ts';

// Every tool pushes to our registry, every tool takes what every tool pushed; digests are the same everywhere.

const REG = '127.0.0.1:5000';
let room: Room;
let podman: string[];
let buildah: string[];
let docker: string[];
let estiba: string[];
let daemon: Daemon;

beforeAll(async () => {
  room = await RoomClass.open();
  // Podman asks for a million files; hard limits cannot be raised on hosts without CAP_SYS_RESOURCE.
  const nofile = await run('sh', ['-c', 'ulimit -Hn']);
  writeFileSync(
    room.path('containers.conf'),
    `[containers]\ndefault_ulimits = ["nofile=${nofile}:${nofile}", "nproc=32768:32768"]\n[engine]\ncgroup_manager = "cgroupfs"\n`,
  );
  podman = [
    'podman',
    '--root',
    room.path('pd'),
    '--runroot',
    room.path('pdrun'),
    '--cgroup-manager',
    'cgroupfs',
    '--runtime',
    'runc',
  ];
  buildah = ['buildah', '--root', room.path('bd'), '--runroot', room.path('bdrun')];
  docker = ['docker', '-H', `unix://${room.path('docker.sock')}`];
  await startOurs(room, REG);
  mkdirSync(room.path('docker'));
  room.start(
    'dockerd',
    'dockerd',
    '--data-root',
    room.path('docker'),
    '--exec-root',
    room.path('exec'),
    '--pidfile',
    room.path('dockerd.pid'),
    '-H',
    `unix://${room.path('docker.sock')}`,
    '--storage-driver',
    'overlay2',
    '--iptables=false',
    '--bridge=none',
    '--exec-opt',
    'native.cgroupdriver=cgroupfs',
    '--oom-score-adjust',
    '0',
  );
  await until('dockerd', async () => (await tool(docker, 'version', '--format', '{{.Server.Version}}')) !== '');
  // Its own registry is elsewhere: here it is one more client.
  daemon = await Daemon.start(room, 'estmatrix', '127.0.0.1:5001');
  estiba = daemon.docker;
  await makeAll();
}, 180_000);

afterAll(async () => {
  await room?.close();
  daemon?.sweep();
}, 60_000);

const MAKERS = ['podman', 'buildah', 'umoci', 'docker', 'skopeo', 'estiba'] as const;
const digests = new Map<string, string>();

async function makeAll(): Promise<void> {
  const { tar, folder } = await rootfsTar(room);
  await tool(podman, 'import', '-q', '-c', 'CMD ["cat","/etc/hello"]', tar, name('podman'));
  await tool(podman, 'push', '-q', '--tls-verify=false', '--digestfile', room.path('digest'), name('podman'));
  digests.set('podman', readFileSync(room.path('digest'), 'utf8').trim());

  const container = await tool(buildah, 'from', 'scratch');
  await tool(buildah, 'add', '-q', container, tar, '/');
  await tool(buildah, 'config', '--cmd', 'cat /etc/hello', container);
  await tool(buildah, 'commit', '-q', container, name('buildah'));
  await tool(buildah, 'push', '-q', '--tls-verify=false', '--digestfile', room.path('digest'), name('buildah'));
  digests.set('buildah', readFileSync(room.path('digest'), 'utf8').trim());

  const layout = room.path('layout');
  await room.in('umoci', 'init', '--layout', layout);
  await room.in('umoci', 'new', '--image', `${layout}:1`);
  await room.in('umoci', 'unpack', '--image', `${layout}:1`, room.path('bundle'));
  await room.in('cp', '-a', `${folder}/.`, room.path('bundle/rootfs/'));
  await room.in('umoci', 'repack', '--image', `${layout}:1`, room.path('bundle'));
  await room.in('umoci', 'config', '--image', `${layout}:1`, '--config.cmd', 'cat', '--config.cmd', '/etc/hello');
  await skopeo('copy', '-q', '--dest-tls-verify=false', `oci:${layout}:1`, `docker://${name('umoci')}`);
  const index = JSON.parse(readFileSync(`${layout}/index.json`, 'utf8')) as { manifests: { digest: string }[] };
  digests.set('umoci', index.manifests[0]?.digest ?? '');

  await tool(docker, 'import', '-c', 'CMD ["cat","/etc/hello"]', tar, name('docker'));
  const pushed = await tool(docker, 'push', name('docker'));
  digests.set('docker', /digest: (sha256:[a-f0-9]{64})/.exec(pushed)?.[1] ?? '');

  await tool(estiba, 'import', '-c', 'CMD ["cat","/etc/hello"]', tar, name('estiba'));
  const sent = await tool(estiba, 'push', name('estiba'));
  digests.set('estiba', /digest: (sha256:[a-f0-9]{64})/.exec(sent)?.[1] ?? '');

  await skopeo(
    'copy',
    '-q',
    '--src-tls-verify=false',
    '--dest-tls-verify=false',
    '--format',
    'oci',
    `docker://${name('docker')}`,
    `docker://${name('skopeo')}`,
  );
  digests.set(
    'skopeo',
    await skopeo('inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${name('skopeo')}`),
  );
}

describe.each(MAKERS)('an image made and pushed by %s', (maker) => {
  it('has the digest its maker says, for skopeo and in every list', async () => {
    const shown = JSON.parse(await skopeo('inspect', '--tls-verify=false', `docker://${name(maker)}`)) as {
      Digest: string;
      RepoTags: string[];
    };
    expect([shown.Digest, shown.RepoTags]).toEqual([digests.get(maker), ['1']]);
    expect(JSON.parse(await skopeo('list-tags', '--tls-verify=false', `docker://${REG}/made/${maker}`))).toMatchObject({
      Tags: ['1'],
    });
  });

  it('is pulled and run by podman', async () => {
    await tool(podman, 'pull', '-q', '--tls-verify=false', `${REG}/made/${maker}@${digests.get(maker)}`);
    await tool(podman, 'pull', '-q', '--tls-verify=false', name(maker));
    expect(await tool(podman, 'image', 'inspect', '--format', '{{json .RepoDigests}}', name(maker))).toContain(
      digests.get(maker),
    );
    expect(await tool(podman, 'run', '--rm', '--network', 'none', name(maker))).toBe(HELLO);
  });

  it('is pulled and run by docker', async () => {
    await tool(docker, 'rmi', '-f', name(maker)).catch(() => 'was not there');
    const output = await tool(docker, 'pull', name(maker));
    expect(output).toContain(`Digest: ${digests.get(maker)}`);
    expect(await tool(docker, 'run', '--rm', '--network', 'none', name(maker))).toBe(HELLO);
  });

  it('is pulled and run by our engine', async () => {
    await tool(estiba, 'rmi', '-f', name(maker)).catch(() => 'was not there');
    const output = await tool(estiba, 'pull', name(maker));
    expect(output).toContain(`Digest: ${digests.get(maker)}`);
    const [digest] = JSON.parse(
      await tool(estiba, 'image', 'inspect', '--format', '{{json .RepoDigests}}', name(maker)),
    );
    expect(digest).toBe(`${REG}/made/${maker}@${digests.get(maker)}`);
    expect(await tool(estiba, 'run', '--rm', '--network', 'none', name(maker))).toBe(HELLO);
  });

  it('is pulled by buildah and is a base to build on', async () => {
    const container = await tool(buildah, 'from', '-q', '--pull-always', '--tls-verify=false', name(maker));
    expect(await tool(buildah, 'inspect', '--format', '{{.FromImageDigest}}', container)).toBe(digests.get(maker));
    const mounted = await tool(buildah, 'mount', container);
    expect(await room.in('cat', `${mounted}/etc/hello`)).toBe(HELLO);
    await tool(buildah, 'rm', container);
  });

  it('is copied by skopeo to a layout that umoci unpacks, and back with the same digest', async () => {
    const layout = room.path(`copy-${maker}`);
    await skopeo(
      'copy',
      '-q',
      '--src-tls-verify=false',
      '--format',
      'oci',
      `docker://${name(maker)}`,
      `oci:${layout}:1`,
    );
    await room.in('umoci', 'unpack', '--image', `${layout}:1`, room.path(`unpacked-${maker}`));
    expect(await room.in('cat', room.path(`unpacked-${maker}/rootfs/etc/hello`))).toBe(HELLO);
    await skopeo(
      'copy',
      '-q',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      '--preserve-digests',
      `docker://${name(maker)}`,
      `docker://${REG}/copied/${maker}:2`,
    );
    expect(
      await skopeo('inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${REG}/copied/${maker}:2`),
    ).toBe(digests.get(maker));
  });

  it('is deleted by skopeo where it was copied to, and stays where it was', async () => {
    await skopeo('delete', '--tls-verify=false', `docker://${REG}/copied/${maker}:2`);
    await expect(skopeo('inspect', '--tls-verify=false', `docker://${REG}/copied/${maker}:2`)).rejects.toThrow(
      'manifest unknown',
    );
    await skopeo('inspect', '--tls-verify=false', `docker://${name(maker)}`);
  });
});

it('the catalog lists what was pushed', async () => {
  const { repositories } = JSON.parse(await room.in('wget', '-qO-', `http://${REG}/v2/_catalog`)) as {
    repositories: string[];
  };
  expect(repositories).toEqual(expect.arrayContaining(MAKERS.map((m) => `made/${m}`)));
});

function name(maker: string): string {
  return `${REG}/made/${maker}:1`;
}

function tool([program = '', ...first]: string[], ...args: string[]): Promise<string> {
  return room.in(program, ...first, ...args);
}

function skopeo(...args: string[]): Promise<string> {
  return room.in('skopeo', ...args);
}
