import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Shell } from '../book/shell.ts';
import { copyOfThisMachine } from './room/copy.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const NAME = 'nomirror';
const MINUTE_MS = 60_000;
const CLOSED = 'http://127.0.0.1:9';

/** On a copy of this machine without a network: what stands here is built, what the demo would fetch is out of reach. */
describe('make demo where a mirror cannot be reached', () => {
  let shell: Shell;

  beforeAll(async () => {
    const env = { ESTIBA_DEMO_NAME: NAME, TMPDIR: '/run/tmp', npm_config_cache: '/run/npm' };
    shell = await Shell.open({ cwd: ROOT, env, prepare: copyOfThisMachine(`/var/lib/estiba-${NAME}`) });
    await shell.run('mkdir /run/tmp && make --silent build');
  });
  afterAll(async () => {
    await shell?.[Symbol.asyncDispose]();
  });

  /** Everything it said, and how it ended. */
  async function demo(): Promise<{ said: string; code: number }> {
    const lines = await shell.run('make --silent demo; echo $?');
    return { said: lines.slice(0, -1).join('\n'), code: Number(lines.at(-1)) };
  }

  /** Processes but this shell's, files but those it keeps on purpose. */
  async function left(): Promise<string[]> {
    const processes = await shell.run(`ps -eo pid=,args= | grep -vE '^ *(1 |[0-9]+ (bash|ps|grep) )'`);
    const files = await shell.run(`ls -d /run/estiba-* /run/tmp/* /tmp/estiba-apt* 2> /dev/null`);
    const mounts = await shell.run(`grep -E 'estiba-${NAME}/|estiba-${NAME}-' /proc/self/mountinfo`);
    const links = await shell.run(`ip -brief link | grep -v ^lo; nft list tables`);
    const cgroups = ['', ...readdirSync('/sys/fs/cgroup')].map((name) => join('/sys/fs/cgroup', name, NAME));
    return [...processes, ...files, ...mounts, ...links, ...cgroups.filter((path) => existsSync(path))];
  }

  it('names the mirror of the base image, and ends its daemon', { timeout: 5 * MINUTE_MS }, async () => {
    const { said, code } = await demo();
    expect(code).not.toBe(0);
    expect(said).toContain('make demo failed at: debian:bookworm');
    expect(said).toContain('no registry can be reached for debian:bookworm');
    expect(said).toMatch(
      /A Debian package mirror did not answer\.\n {2}asked {3}http\S+\n {2}to do {3}see that `apt-get update`/,
    );
    expect(said).toContain('left    nothing runs;');
    expect(await left()).toEqual([]);
  });

  it('says so where apt has never asked one', { timeout: 5 * MINUTE_MS }, async () => {
    await shell.run(
      `find /etc/apt/sources.list* -type f -delete; echo 'deb ${CLOSED}/debian bookworm main' > /etc/apt/sources.list`,
    );
    const { said, code } = await demo();
    expect(code).not.toBe(0);
    expect(said).toContain('apt has read no Debian package sources on this host (`apt-get update` does)');
    expect(await left()).toEqual([]);
  });

  it('names the mirror of a missing package', { timeout: 5 * MINUTE_MS }, async () => {
    await shell.run('dpkg --remove --force-depends mmdebstrap');
    const policy = await shell.run('ls /usr/sbin/policy-rc.d');
    const { said, code } = await demo();
    expect(code).not.toBe(0);
    expect(said).toContain('make demo failed at: Debian packages');
    expect(said).toContain('installing mmdebstrap');
    expect(said).toContain(`A Debian package mirror did not answer.\n  asked   ${CLOSED}\n`);
    expect(await shell.run('ls /usr/sbin/policy-rc.d')).toEqual(policy);
    expect(await left()).toEqual([]);
  });

  it('names npm’s registry, and leaves no half of the packages', { timeout: 5 * MINUTE_MS }, async () => {
    await shell.run(`sed -i '/mmdebstrap/d' tools/packages.txt; rm -rf node_modules dist`);
    const [registry] = (await shell.run('npm config get registry 2> /dev/null')).slice(-1);
    const { said, code } = await demo();
    expect(code).not.toBe(0);
    expect(said).toContain('make demo failed at: Estiba itself');
    expect(said).toContain(`npm did not get its packages.\n  asked   ${new URL(registry ?? '').origin}`);
    expect(said).toContain('to do   see that `npm ping` works');
    expect(await shell.run('ls node_modules 2> /dev/null | head -3')).toEqual([]);
    expect(await left()).toEqual([]);
  });
});
