import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Daemon } from './daemon.ts';
import { HELLO, Room, rootfsTar, run } from './room.ts';

// The daemon's engine and registry share their images: what any tool pushes runs under `docker run` at once, what the engine has
// is pulled by every tool at once, with equal digests and without a second copy. Our engine beside the peers of matrix.test.ts.

const REG = '127.0.0.1:5000';
let room: Room;
let daemon: Daemon;
let podman: string[];
let docker: string[];

beforeAll(async () => {
  room = await Room.open();
  const nofile = await run('sh', ['-c', 'ulimit -Hn']);
  writeFileSync(
    room.path('containers.conf'),
    `[containers]\ndefault_ulimits = ["nofile=${nofile}:${nofile}", "nproc=32768:32768"]\n[engine]\ncgroup_manager = "cgroupfs"\n`,
  );
  const [store, running] = ['--root', '--runroot'];
  podman = [
    'podman',
    store,
    room.path('pd'),
    running,
    room.path('pdrun'),
    '--cgroup-manager',
    'cgroupfs',
    '--runtime',
    'runc',
  ];
  daemon = await Daemon.start(room, 'estshared', REG);
  docker = daemon.docker;
  const { tar } = await rootfsTar(room);
  await tool(docker, 'import', '-c', 'CMD ["cat","/etc/hello"]', tar, `${REG}/made/estiba:1`);
  await tool(podman, 'import', '-q', '-c', 'CMD ["cat","/etc/hello"]', tar, `${REG}/made/podman:1`);
}, 120_000);

afterAll(async () => {
  await room?.close();
  daemon?.sweep();
}, 60_000);

describe('the engine and the registry of one daemon', () => {
  it('what the engine has is inspected, pulled and run by others without a push', async () => {
    const name = `${REG}/made/estiba:1`;
    const shown = await skopeo('inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${name}`);
    await tool(podman, 'pull', '-q', '--tls-verify=false', name);
    expect(await tool(podman, 'image', 'inspect', '--format', '{{json .RepoDigests}}', name)).toContain(shown);
    expect(await tool(podman, 'run', '--rm', '--network', 'none', name)).toBe(HELLO);
    await skopeo('copy', '-q', '--src-tls-verify=false', `docker://${name}`, `oci:${room.path('layout')}:1`);
    await room.in('umoci', 'raw', 'unpack', '--image', `${room.path('layout')}:1`, room.path('unpacked'));
    expect(readFileSync(room.path('unpacked/etc/hello'), 'utf8')).toBe(`${HELLO}\n`);
  });

  it('what others push is an image of the engine at once, runs without a pull, and lies there once', async () => {
    const name = `${REG}/made/podman:1`;
    await tool(podman, 'push', '-q', '--tls-verify=false', '--digestfile', room.path('digest'), name);
    const digest = readFileSync(room.path('digest'), 'utf8').trim();
    const before = blobs();
    expect(await tool(docker, 'image', 'inspect', '--format', '{{index .RepoDigests 0}}', name)).toBe(
      `${REG}/made/podman@${digest}`,
    );
    expect(await tool(docker, 'run', '--rm', '--network', 'none', '--pull', 'never', name)).toBe(HELLO);
    expect(await tool(docker, 'pull', name)).toContain('Image is up to date');
    expect(blobs()).toEqual(before);
  });

  it('a push of what lies here sends nothing and keeps the digest', async () => {
    const name = `${REG}/made/estiba:1`;
    const before = blobs();
    const pushed = await tool(docker, 'push', name);
    const digest = /digest: (sha256:[a-f0-9]{64})/.exec(pushed)?.[1];
    expect(pushed).toContain('Layer already exists');
    expect(pushed).not.toContain('Pushed');
    expect(await skopeo('inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${name}`)).toBe(digest);
    expect(blobs()).toEqual(before);
  });

  it('a copy inside the registry is one more name, and deleting it there takes the name here', async () => {
    const copy = `${REG}/copied/podman:2`;
    const flags = ['--src-tls-verify=false', '--dest-tls-verify=false', '--preserve-digests'];
    await skopeo('copy', '-q', ...flags, `docker://${REG}/made/podman:1`, `docker://${copy}`);
    const names = (): Promise<string> => tool(docker, 'images', '--format', '{{.Repository}}:{{.Tag}}');
    expect(await names()).toContain(copy);
    await skopeo('delete', '--tls-verify=false', `docker://${copy}`);
    expect(await names()).not.toContain(copy);
    expect(await names()).toContain(`${REG}/made/podman:1`);
    expect(await tool(docker, 'run', '--rm', '--network', 'none', '--pull', 'never', `${REG}/made/podman:1`)).toBe(
      HELLO,
    );
  });
});

function blobs(): string[] {
  return readdirSync(room.path('data/blobs/sha256')).sort();
}

function tool([program = '', ...flags]: readonly string[], ...args: string[]): Promise<string> {
  return room.in(program, ...flags, ...args);
}

function skopeo(...args: string[]): Promise<string> {
  return room.in('skopeo', ...args);
}
