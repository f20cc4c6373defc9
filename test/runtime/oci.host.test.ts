import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Bundle, makeBundle } from './bundle.ts';

const OCI = fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));
const ID = `estiba-oci-test-${process.pid}`;

let bundle: Bundle;
beforeEach(() => {
  bundle = makeBundle('oci');
});
afterEach(() => {
  oci('delete', '--force', ID);
  bundle[Symbol.dispose]();
});

function oci(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(OCI, ['--root', join(bundle.dir, 'state'), ...args], {
    cwd: bundle.dir,
    encoding: 'utf8',
    // Pipes that a container outlives would keep us waiting: it gets none of them unless it ends first.
    stdio: args[0] === 'create' ? 'ignore' : ['ignore', 'pipe', 'pipe'],
    timeout: 20_000,
  });
  return { code: status, out: stdout ?? '', err: stderr ?? '' };
}

function run(change: Parameters<Bundle['config']>[0]): ReturnType<typeof oci> {
  bundle.write(bundle.config(change));
  return oci('run', ID);
}

describe('the life of a container', () => {
  it('created, running, stopped, gone', () => {
    bundle.write(
      bundle.config((config) => {
        if (config.process) config.process.args = ['sleep', '60'];
      }),
    );
    expect(oci('create', ID).code).toBe(0);
    expect(JSON.parse(oci('state', ID).out)).toMatchObject({ id: ID, status: 'created', bundle: bundle.dir });
    expect(oci('start', ID).code).toBe(0);
    expect(oci('start', ID).err).toContain('cannot start an already running container');
    expect(oci('delete', ID).err).toContain(`cannot delete container ${ID} that is not stopped: running`);
    expect(oci('exec', ID, 'sh', '-c', 'exit 42').code).toBe(42);
    expect(oci('pause', ID).code).toBe(0);
    expect(oci('exec', ID, 'true').err).toContain('cannot exec in a paused container');
    expect(oci('resume', ID).code).toBe(0);
    expect(oci('kill', ID, 'KILL').code).toBe(0);
    expect(oci('delete', '--force', ID).code).toBe(0);
    expect(oci('state', ID)).toMatchObject({ code: 1 });
  });

  it('an id twice, an unknown id and an id that is a path are errors', () => {
    bundle.write(bundle.config());
    expect(oci('run', '--keep', ID).code).toBe(0);
    expect(oci('run', ID).err).toContain('container with given ID already exists');
    expect(oci('state', 'nobody').err).toContain('does not exist');
    expect(oci('state', '../x').err).toContain('invalid container ID format');
  });

  it('an exit code comes through, and a program that is missing is found out by create', () => {
    expect(run((c) => c.process && Object.assign(c.process, { args: ['sh', '-c', 'exit 7'] })).code).toBe(7);
    const missing = run((c) => c.process && Object.assign(c.process, { args: ['no-such-program'] }));
    expect(missing).toMatchObject({ code: 1 });
    expect(missing.err).toContain('executable file not found in $PATH');
  });
});

describe('a hostile image', () => {
  /** What a link out of the root would reach: it must stay as it is. */
  let outside: string;
  beforeEach(() => {
    outside = join(bundle.dir, 'outside');
    mkdirSync(outside);
  });
  const untouched = (): void => expect(readdirSync(outside)).toEqual([]);
  const links = (): [string, string][] => [
    ['absolute', outside],
    ['by dots', '../../../../../../../../..'.concat(outside)],
    ['to proc', '/proc/self/root'.concat(outside)],
  ];

  it('cannot lead a mount target, a device or a link out of its root', () => {
    for (const [, target] of links()) {
      rmSync(join(bundle.rootfs, 'trap'), { force: true });
      symlinkSync(target, join(bundle.rootfs, 'trap'));
      const result = run((config) => {
        config.mounts = [
          ...(config.mounts ?? []),
          { destination: '/trap/made', type: 'tmpfs', source: 'tmpfs' },
          { destination: '/trap/file', source: '/etc/hostname', options: ['bind'] },
        ];
        if (config.linux) config.linux.devices = [{ type: 'c', path: '/trap/null', major: 1, minor: 3 }];
      });
      expect(result.code === 0 || result.err.includes('step ')).toBe(true);
      untouched();
    }
  });

  it('cannot have another /proc or /sys by a link (CVE-2019-19921)', () => {
    symlinkSync(outside, join(bundle.rootfs, 'proc'));
    expect(run(undefined).err).toContain('must be mounted on ordinary directory');
    untouched();
  });

  it('cannot have the runtime start in a directory of the host (CVE-2024-21626)', () => {
    const args = ['sh', '-c', 'readlink /proc/self/cwd; ls ../../../../..'];
    for (let fd = 3; fd < 16; fd++) {
      const { out } = run((c) => c.process && Object.assign(c.process, { cwd: `/proc/self/fd/${fd}`, args }));
      // A descriptor inside the root may do; from a directory outside, `..` would lead to the host's /lib.
      expect(out).not.toMatch(/^(lib|\(unreachable\).*)$/m);
    }
  });

  it('cannot put its own file in the place of /dev/null that masks (CVE-2025-31133)', () => {
    mkdirSync(join(bundle.rootfs, 'dev'));
    writeFileSync(join(bundle.rootfs, 'secret'), 'secret');
    symlinkSync('/secret', join(bundle.rootfs, 'dev/null'));
    const result = run((config) => {
      config.mounts = (config.mounts ?? []).filter((mount) => !mount.destination.startsWith('/dev'));
      if (config.linux) config.linux.maskedPaths = ['/secret'];
      if (config.process) config.process.args = ['cat', '/secret'];
    });
    expect(result.out).not.toContain('secret');
  });

  it('finds no way to write the runtime’s own program (CVE-2019-5736)', () => {
    const result = run((c) => c.process && Object.assign(c.process, { args: ['/proc/self/exe'] }));
    // What runs is a sealed copy in memory, if it runs at all: it prints its usage and knows no container.
    expect(result.code).not.toBe(0);
  });
});
