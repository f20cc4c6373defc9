import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { examplesOf } from '../book/chapter.ts';
import { expectSaid, Shell } from '../book/shell.ts';
import { waitFor } from '../cluster/machine.ts';
import { BuildDaemon, ESTIBA, run } from './build/daemon.ts';
import { ROOT, section } from './readme.ts';

const MINUTE_MS = 60_000;
const NAME = 'sysdtest';
const TABLES = 'nft list tables';

/** A small Debian that boots. What a container of systemd's has to be told: https://systemd.io/CONTAINER_INTERFACE. */
const DOCKERFILE = `FROM debian:trixie
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\
  systemd systemd-sysv dbus nodejs curl ca-certificates iproute2 nftables procps
# The kernel is the host's.
RUN systemctl mask systemd-modules-load.service
ENV container=docker
STOPSIGNAL SIGRTMIN+3
# systemd 257 still knows cgroup v1, which this machine may have, when it is told to.
CMD ["/sbin/init", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
`;

/**
 * The README's 'With systemd', word for word: Debian 13 with its own systemd as the first process, in a privileged container of ours, and
 * our package in it. Package mirrors are reached through our own NAT.
 */
describe('the Debian package, where systemd starts the daemon', () => {
  // Not below /tmp, over which a booting Debian mounts a file system of its own.
  const room = `/var/tmp/estiba-systemd-${process.pid}`;
  const dist = join(room, 'dist');
  const examples = examplesOf(section('### With systemd'));
  let next = 0;
  let host: BuildDaemon;
  let shell: Shell;
  let web = '';
  /** Those that its own network came with. */
  let tables: string[] | undefined;

  const estiba = (...args: string[]): Promise<string> => run(ESTIBA, args, { env: host.env() });
  /** One command on the machine, by itself. */
  const there = (...command: string[]): Promise<string> => estiba('exec', 'box', ...command);
  const webPid = (): Promise<string> => there('estiba', 'inspect', '--format', '{{.State.Pid}}', 'first');
  const isActive = async (): Promise<boolean> =>
    (await there('systemctl', 'is-active', 'estiba').catch(() => '')) === 'active';

  beforeAll(async () => {
    await run('make', ['deb'], { cwd: ROOT });
    mkdirSync(dist, { recursive: true });
    cpSync(packageOf(ROOT), join(dist, 'estiba_1_test.deb'));
    host = await BuildDaemon.start(NAME);
    mkdirSync(join(room, 'image'));
    writeFileSync(join(room, 'image/Dockerfile'), DOCKERFILE);
    await estiba('build', '--quiet', '--tag', 'box', join(room, 'image'));
    const places = [
      '--tmpfs',
      '/run',
      '--tmpfs',
      '/tmp',
      '--volume',
      'state:/var/lib/estiba',
      '--volume',
      `${room}:${room}`,
    ];
    await estiba('run', '--detach', '--privileged', '--name', 'box', ...places, 'box');
    await booted();
  }, 20 * MINUTE_MS);

  afterAll(async () => {
    await shell?.[Symbol.asyncDispose]();
    try {
      if (host) await estiba('rm', '--force', '--volumes', 'box');
    } finally {
      await host?.stop();
      rmSync(room, { recursive: true, force: true });
    }
  });

  /** `degraded` when a unit failed: which one, then, is told. */
  async function booted(): Promise<void> {
    // Nothing answers in it yet, nor while it boots.
    const state = (): Promise<string> => there('sh', '-c', 'systemctl is-system-running; true').catch(() => '');
    await waitFor('a boot', 3 * MINUTE_MS, async () => ['running', 'degraded'].includes(await state()));
    expect(await there('systemctl', '--failed', '--plain', '--no-legend')).toBe('');
    shell = await Shell.open({ cwd: room, hostNetwork: true, scripts: room });
    const { ESTIBA_RUN_ROOT: root = '' } = host.env();
    await shell.become(`${ESTIBA} --run-root ${root} exec -i -w ${room} box bash --norc`);
    tables ??= await shell.run(TABLES);
  }

  /** The next commands of the README, up to one that begins so. `make` has been run outside: the tree is not there. */
  async function readOn(to: string): Promise<void> {
    for (;;) {
      const example = examples[next++];
      if (!example) throw new Error(`the README has no further command '${to}'`);
      if (!example.command.startsWith('make ')) expectSaid('README.md', example, await shell.run(example.command));
      if (example.command.startsWith(to)) return;
    }
  }

  it('is installed, started and there when systemctl comes back', { timeout: 10 * MINUTE_MS }, async () => {
    await readOn('systemctl enable');
    expect(await there('estiba', 'ps', '--quiet')).toBe('');
    const unit = await there(
      'systemctl',
      'show',
      'estiba',
      '--property',
      'KillMode,Delegate,Type,UnitFileState,NRestarts',
    );
    expect(unit.split('\n').toSorted()).toEqual([
      'Delegate=yes',
      'KillMode=process',
      'NRestarts=0',
      'Type=notify',
      'UnitFileState=enabled',
    ]);
    expect(await there('systemctl', 'status', '--no-pager', 'estiba')).toMatch(
      /Loaded: loaded \(.*; enabled;[\s\S]*Active: active \(running\)/,
    );
    expect(await snapshots()).toHaveLength(1);
  });

  it('runs a container, and a restart of the unit leaves it running', { timeout: 5 * MINUTE_MS }, async () => {
    await readOn('curl');
    web = await webPid();
    await readOn('curl');
    expect(await webPid()).toBe(web);
    expect(await there('journalctl', '--no-pager', '--unit', 'estiba')).not.toMatch(/Z error /);
  });

  it('is started again by systemd when it is killed, and finds the container', { timeout: 5 * MINUTE_MS }, async () => {
    await there('systemctl', 'kill', '--signal', 'KILL', '--kill-whom', 'main', 'estiba');
    expect(await there('curl', '-s', 'http://127.0.0.1:8086')).toBe('still here');
    const restarts = (): Promise<string> => there('systemctl', 'show', 'estiba', '--property', 'NRestarts', '--value');
    await waitFor('a restart', MINUTE_MS, async () => (await restarts()) === '1' && (await isActive()));
    expect(await webPid()).toBe(web);
  });

  it('is upgraded under a running container', { timeout: 5 * MINUTE_MS }, async () => {
    const daemon = await there('systemctl', 'show', 'estiba', '--property', 'MainPID', '--value');
    newerPackage(dist);
    await readOn('estiba ps');
    expect(await there('dpkg-query', '--show', '--showformat', '${Version}', 'estiba')).toBe('99.0.0');
    expect(await there('systemctl', 'show', 'estiba', '--property', 'MainPID', '--value')).not.toBe(daemon);
    expect(await webPid()).toBe(web);
    expect(await there('curl', '-s', 'http://127.0.0.1:8086')).toBe('still here');
  });

  it('takes its snapshot again when dpkg brings another Node.js', { timeout: 5 * MINUTE_MS }, async () => {
    await shell.run('rm /usr/lib/estiba/dist/planner-*.blob');
    await there('dpkg-trigger', '--by-package=nodejs', '/usr/bin/node');
    await there('dpkg', '--configure', '--pending');
    expect(await snapshots()).toHaveLength(1);
  });

  it('lets the machine go down, and comes back with it and its container', { timeout: 10 * MINUTE_MS }, async () => {
    await shell[Symbol.asyncDispose]();
    // systemd itself waits for what does not end for 90 s.
    await estiba('stop', '--time', '80', 'box');
    expect(await estiba('inspect', '--format', '{{.State.ExitCode}}', 'box')).not.toBe('137');
    await estiba('start', 'box');
    await booted();
    await waitFor('the daemon', MINUTE_MS, isActive);
    // Not up again yet: refused.
    const answer = (): Promise<string> => there('curl', '-s', 'http://127.0.0.1:8086').catch(() => '');
    await waitFor('the container', MINUTE_MS, async () => (await answer()) === 'still here');
  });

  it('is removed with all that it brought', { timeout: 5 * MINUTE_MS }, async () => {
    await readOn('apt-get purge');
    expect(next).toBe(examples.length);
    const files = `find / -xdev -iname '*estiba*' -not -path '/proc/*' -not -path '${room}*'`;
    const looks = [
      files,
      `cut -d' ' -f2 /proc/mounts | grep estiba | grep -v ^${room}`,
      'ip -brief link | grep estiba',
      'pgrep -fa estiba',
    ];
    for (const look of looks) expect([look, ...(await shell.run(look))]).toEqual([look]);
    expect(await shell.run(TABLES)).toEqual(tables);
    expect(await shell.run('ls -d /sys/fs/cgroup/*/estiba /sys/fs/cgroup/estiba 2> /dev/null')).toEqual([]);
    expect((await shell.run('systemctl status estiba')).join()).toContain('could not be found');
  });

  const snapshots = async (): Promise<string[]> =>
    (await there('ls', '/usr/lib/estiba/dist')).split('\n').filter((name) => name.endsWith('.blob'));
});

function packageOf(tree: string): string {
  const found = readdirSync(join(tree, 'dist')).filter((name) => name.endsWith('.deb'));
  if (found.length !== 1) throw new Error(`dist has ${found.length} packages for Debian`);
  return join(tree, 'dist', found[0] ?? '');
}

/** The same, with a higher version, in its place. */
function newerPackage(dist: string): void {
  const [stage, path] = [join(dist, 'stage'), packageOf(join(dist, '..'))];
  const script = `dpkg-deb --raw-extract ${path} ${stage} && sed -i 's/^Version: .*/Version: 99.0.0/' ${stage}/DEBIAN/control
    rm ${path} && dpkg-deb -Znone --root-owner-group --build ${stage} ${dist}/estiba_2_test.deb && rm -r ${stage}`;
  const { status, stderr } = spawnSync('sh', ['-ec', script], { encoding: 'utf8' });
  if (status !== 0 || !existsSync(join(dist, 'estiba_2_test.deb'))) throw new Error(stderr);
}
