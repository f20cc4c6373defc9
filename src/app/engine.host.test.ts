import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { createRequest } from '#engine/api/docker/create.ts';
import { Containers } from '#engine/core/containers.ts';
import { Events } from '#engine/core/events.ts';
import { FakeNode, networkless } from '#engine/core/fakes.ts';
import { parseLines } from '#engine/core/log-reader.ts';
import type { NodeParts, ProcessSource } from '#engine/core/parts.ts';
import { ShimProcesses } from '#engine/core/processes.ts';
import { ContainerRegistry } from '#engine/core/registry.ts';
import { hostFiles } from '#kernel/files.ts';
import { CAPABILITIES } from '#kernel/linux/names.ts';
import { findExecutor } from '#kernel/plan/execute.ts';
import { SeccompCache } from '#kernel/seccomp/cache.ts';
import { readHost } from '#runtime/host-linux.ts';
import { Spawner } from '#shim/spawner.ts';
import { checkBody } from '#spec/docker/body.ts';
import { memoryStore } from '#storage/memory.ts';

const BUSYBOX = '/bin/busybox';
const CGROUP_PARENT = `estiba-engine-test-${process.pid}`;

describe('the engine on real shims', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-engine-'));
  const rootfs = join(directory, 'rootfs');
  const store = memoryStore(systemClock);
  let spawner: Spawner;

  beforeAll(async () => {
    if (!existsSync(BUSYBOX)) throw new Error('busybox-static is missing: tools/setup.sh test installs it');
    for (const name of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp']) mkdirSync(join(rootfs, name), { recursive: true });
    cpSync(BUSYBOX, join(rootfs, 'bin/busybox'));
    for (const applet of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n')) {
      if (applet !== 'busybox') symlinkSync('busybox', join(rootfs, 'bin', applet));
    }
    writeFileSync(join(rootfs, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n');
    writeFileSync(join(rootfs, 'etc/group'), 'root:x:0:\napp:x:1000:\n');
    spawner = await Spawner.start(join(directory, 'spawner.sock'));
  });
  afterAll(async () => {
    await spawner.quit();
    rmSync(directory, { recursive: true });
    // The parent of all containers' cgroups is the daemon's to remove when it is uninstalled; here that is this test.
    for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
      const parent = join('/sys/fs/cgroup', hierarchy, CGROUP_PARENT);
      if (existsSync(parent)) rmdirSync(parent);
    }
  });

  /** `cut` changes what is done to processes: a daemon that is killed leaves things half done. */
  async function engine(cut: (real: ProcessSource) => Partial<ProcessSource> = () => ({})): Promise<Containers> {
    const fake = new FakeNode();
    const host = readHost({ uid: 0, gid: 0 });
    const processes = new ShimProcesses({
      spawner,
      shims: join(directory, 'shims'),
      root: join(directory, 'oci'),
      host: () => host,
      files: hostFiles,
      seccomp: new SeccompCache({ native: host.arch }),
      clock: systemClock,
    });
    const real: ProcessSource = {
      create: (id, config, io, how) => processes.create(id, config, io, how),
      planCgroups: (...of) => processes.planCgroups(...of),
      find: (id) => processes.find(id),
      list: () => processes.list(),
      execExit: (...of) => processes.execExit(...of),
      end: (id) => processes.end(id),
      remove: (id) => processes.remove(id),
    };
    const parts: NodeParts = {
      ...fake.parts,
      images: {
        find: async (reference) => ({
          id: 'sha256:1',
          reference,
          config: { Env: ['PATH=/bin'] },
          target: '',
          architecture: 'amd64',
        }),
      },
      roots: {
        ...fake.parts.roots,
        mount: async () => rootfs,
        readFile: async (_, path) => {
          try {
            return await readFile(join(rootfs, path), 'utf8');
          } catch (error) {
            if (errnoOf(error) === 'ENOENT') return '';
            throw error;
          }
        },
      },
      network: networkless(fake.parts.network),
      processes: { ...real, ...cut(real) },
    };
    return new Containers({
      parts,
      registry: await ContainerRegistry.open(store),
      events: new Events(() => BigInt(Date.now()) * 1_000_000n),
      clock: systemClock,
      random: systemRandom,
      log: logger('engine', silentSink),
      host: {
        nodeArch: process.arch,
        kernelRelease: readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
        bounding: CAPABILITIES().filter((_, i) => (host.capabilities >> BigInt(i)) & 1n),
        cgroupVersion: 1,
        deviceNumbers: () => ({ major: 8, minor: 0 }),
        initBinary: findExecutor(),
      },
      settings: {
        cgroupParent: `/${CGROUP_PARENT}`,
        logPath: (id) => join(directory, 'logs', `${id}.log`),
        logLeavings: () => [],
        stopGraceMs: 10_000,
        devices: async () => [],
      },
    });
  }

  const spec = (body: object) =>
    createRequest(checkBody('ContainerCreate', { Image: 'busybox', HostConfig: { NetworkMode: 'none' }, ...body }))
      .spec;
  const output = (id: string): string =>
    parseLines(readFileSync(join(directory, 'logs', `${id}.log`)), 'json')
      .map((l) => l.text.toString())
      .join('');

  it('runs a program with its user, limits, powers and name, and keeps what it said', async () => {
    const containers = await engine();
    const script =
      'id; hostname; grep -E "CapBnd|NoNewPrivs|Seccomp:" /proc/self/status; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ulimit -n; echo oops >&2; exit 3';
    const { id } = await containers.create(
      'first',
      spec({
        Cmd: ['sh', '-c', script],
        User: 'app',
        Hostname: 'boat',
        HostConfig: {
          NetworkMode: 'none',
          Memory: 64 << 20,
          SecurityOpt: ['no-new-privileges'],
          Ulimits: [{ Name: 'nofile', Soft: 99, Hard: 99 }],
        },
      }),
    );
    const ended = containers.wait(id, 'next-exit');
    await containers.start(id);
    await expect(ended).resolves.toEqual({ exitCode: 3 });
    expect(output(id)).toBe(
      'uid=1000(app) gid=1000(app) groups=1000(app)\nboat\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n67108864\n99\noops\n'.replace(
        /^/,
        '',
      ),
    );
    await containers.remove(id, { force: false, volumes: true });
    await containers.close();
  });

  it('executes again as the container’s users are now, in the last place of its pids limit', async () => {
    const containers = await engine();
    const { id } = await containers.create(
      'guests',
      spec({ Cmd: ['sleep', '1000'], HostConfig: { NetworkMode: 'none', PidsLimit: 2 } }),
    );
    await containers.start(id);
    const attach = { stdin: false, stdout: true, stderr: true };
    const run = async (user: string, script: string): Promise<string> => {
      const asked = { argv: ['sh', '-c', script], env: [], tty: false, privileged: false, attach, user };
      const { id: exec } = containers.execs.create(id, asked);
      let said: Promise<string> | undefined;
      await containers.execs.start(exec, ({ streams }) => {
        said = text(streams.stdout);
      });
      return `${await containers.execs.wait(exec)} ${(await said)?.trim()}`;
    };
    const whoami = 'exec id -u';
    for (const uid of [1234, 1234, 1235]) {
      expect(await run('0', `echo guest:x:${uid}:7::/:/bin/sh > /etc/passwd`)).toBe('0 ');
      expect(await run('guest', whoami)).toBe(`0 ${uid}`);
    }
    await containers.remove(id, { force: true, volumes: true });
    await containers.close();
  });

  it('stops, kills, pauses, updates, executes in and attaches to it; then nothing is left', async () => {
    const containers = await engine();
    const { id } = await containers.create(
      'busy',
      spec({ Cmd: ['sh', '-c', 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.05; done'] }),
    );
    await containers.start(id);
    const exec = containers.execs.create(id, {
      argv: ['sh', '-c', 'echo in $HOSTNAME; exit 7'],
      env: [],
      tty: false,
      privileged: false,
      attach: { stdin: false, stdout: true, stderr: true },
    });
    let said = '';
    await containers.execs.start(exec.id, ({ streams }) =>
      streams.stdout.on('data', (chunk) => {
        said += chunk;
      }),
    );
    expect(await containers.execs.wait(exec.id)).toBe(7);
    await expect.poll(() => said).toBe(`in ${id.slice(0, 12)}\n`); // its end is known before its stream's
    await containers.pause(id);
    expect(readFileSync(`/sys/fs/cgroup/freezer/${CGROUP_PARENT}/${id}/freezer.state`, 'utf8').trim()).toBe('FROZEN');
    await containers.unpause(id);
    await containers.update(id, { resources: { memoryBytes: 32 << 20 } });
    expect(readFileSync(`/sys/fs/cgroup/memory/${CGROUP_PARENT}/${id}/memory.limit_in_bytes`, 'utf8').trim()).toBe(
      String(32 << 20),
    );
    await containers.stop(id);
    expect(containers.find(id).state).toMatchObject({ phase: 'exited', exitCode: 0 });
    expect(output(id)).toBe('ready\nbye\n');
    await containers.start(id);
    await containers.kill(id);
    expect(containers.find(id).state.exitCode).toBe(137);
    await containers.remove(id, { force: false, volumes: true });
    await expect.poll(() => readdirSync(join(directory, 'shims'))).toEqual([]);
    await expect.poll(() => readdirSync(join(directory, 'oci'))).toEqual([]);
    await expect.poll(() => existsSync(`/sys/fs/cgroup/memory/${CGROUP_PARENT}/${id}`)).toBe(false);
  });

  it('says why a program cannot run, and leaves the container as it was', async () => {
    const containers = await engine();
    const { id } = await containers.create('wrong', spec({ Cmd: ['no-such-program'] }));
    await expect(containers.start(id)).rejects.toThrow(/no-such-program/);
    expect(containers.find(id).state).toMatchObject({ phase: 'created', exitCode: 127 });
    await containers.remove(id, { force: false, volumes: true });
    await expect.poll(() => readdirSync(join(directory, 'shims'))).toEqual([]);
  });

  it('comes back after the daemon was killed: same process, no line lost, its exit code known', async () => {
    const before = await engine();
    const { id } = await before.create(
      'survivor',
      spec({ Cmd: ['sh', '-c', 'i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 9'] }),
    );
    await before.start(id);
    const { pid } = before.find(id).state;
    before.close(); // what a killed daemon leaves: everything outside it
    const after = await engine();
    await after.recover();
    expect(after.find(id).state).toMatchObject({ phase: 'running', pid });
    await expect(after.wait(id, 'next-exit')).resolves.toEqual({ exitCode: 9 });
    expect(output(id)).toBe(Array.from({ length: 40 }, (_, i) => `line ${i}\n`).join(''));
    await after.remove(id, { force: true, volumes: true });
  });

  it('lets a program begin whose daemon was killed after the record of its start and before the start', async () => {
    const wordless = ({ create }: ProcessSource): Partial<ProcessSource> => ({
      create: async (...of) => Object.assign(await create(...of), { start: never }),
    });
    const before = await engine(wordless);
    const { id } = await before.create('wordless', spec({ Cmd: ['sh', '-c', 'echo I run; exec sleep 1000'] }));
    void before.start(id);
    await expect.poll(() => before.find(id).state.phase).toBe('running');
    expect(output(id)).toBe('');
    for (let daemon = 0; daemon < 2; daemon++) {
      const after = await engine();
      await after.recover();
      expect(after.find(id).state.phase).toBe('running');
      await expect.poll(() => output(id)).toBe('I run\n'); // once
    }
    await (await engine()).remove(id, { force: true, volumes: true });
  });

  it('ends the shim that a killed daemon left at its work, whatever it has made by then', async () => {
    for (const leadMs of [0, 1, 2, 4, 8, 50]) {
      const early = ({ create }: ProcessSource): Partial<ProcessSource> => ({
        create: async (...of) => {
          void create(...of).catch(() => undefined); // what we do below may cut it off
          return never();
        },
      });
      const before = await engine(early);
      const { id } = await before.create('early', spec({ Cmd: ['sleep', '1000'] }));
      void before.start(id);
      await expect.poll(() => before.find(id).state.phase, { interval: 0 }).toBe('starting');
      await expect.poll(() => existsSync(join(directory, 'shims', id)), { interval: 0 }).toBe(true);
      await sleep(leadMs);
      const after = await engine();
      await after.recover();
      expect(after.find(id).state).toMatchObject({ phase: 'created', exitCode: 0 });
      await after.remove(id, { force: false, volumes: true });
      await expect.poll(() => readdirSync(join(directory, 'shims'))).toEqual([]);
      await expect.poll(() => readdirSync(join(directory, 'oci'))).toEqual([]);
      await expect.poll(() => existsSync(`/sys/fs/cgroup/memory/${CGROUP_PARENT}/${id}`)).toBe(false);
      // The spawner itself; a worker that has helped it rests for two seconds.
      await expect.poll(() => forkedFrom(directory), { timeout: 10_000 }).toBe(1);
    }
  });
});

/** Processes whose command line names the directory: the spawner, and its children until they are containers. */
function forkedFrom(directory: string): number {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory);
    } catch {
      return false; // it has ended
    }
  }).length;
}

/** What a daemon that was killed has not come to. */
function never(): Promise<never> {
  return new Promise(() => undefined);
}
