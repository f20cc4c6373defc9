import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OciConfig } from '#spec/oci/config.ts';
import { type Bundle, makeBundle } from './bundle.ts';

// A container that shares a directory with another one which swaps names in it while the first is being made. What
// oci.host.test.ts does with links that stand still is done here with names that are now this and now that.

const OCI = fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));
const SWAP = fileURLToPath(new URL('swap.c', import.meta.url));
const ROUNDS = 12;

let bundle: Bundle;
let swapper: ChildProcess | undefined;
beforeEach(() => {
  bundle = makeBundle('race');
});
afterEach(async () => {
  const running = swapper;
  swapper = undefined;
  if (running?.exitCode === null) {
    const ended = new Promise((resolve) => running.once('exit', resolve));
    running.kill('SIGKILL');
    await ended;
  }
  bundle[Symbol.dispose]();
});

async function swap(dir: string, name: string, other: string): Promise<void> {
  const program = join(bundle.dir, 'swap');
  execFileSync('cc', ['-O2', '-o', program, SWAP]);
  const child = spawn(program, [dir, name, other], { stdio: ['ignore', 'pipe', 'inherit'] });
  swapper = child;
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`swap ended with ${code}`)));
  });
}

function run(round: number, change: (config: OciConfig) => void): Promise<{ code: number; out: string; err: string }> {
  bundle.write(bundle.config(change));
  const args = [
    '--root',
    join(bundle.dir, 'state'),
    'run',
    '--bundle',
    bundle.dir,
    `estiba-race-${process.pid}-${round}`,
  ];
  return new Promise((resolve) => {
    const child = execFile(OCI, args, { timeout: 20_000 }, (error, out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, out, err });
    });
    child.stdin?.end();
  });
}

describe('names that change while a container is made', () => {
  it('lead no mount target of a shared volume out of the root (CVE-2021-30465)', async () => {
    const outside = join(bundle.dir, 'outside');
    const volume = join(bundle.dir, 'volume');
    for (const dir of [outside, join(volume, 'sub')]) mkdirSync(dir, { recursive: true });
    symlinkSync(outside, join(volume, 'link'));
    await swap(volume, 'sub', 'link');
    let made = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const { code, err } = await run(round, (config) => {
        config.mounts = [
          ...(config.mounts ?? []),
          { destination: '/volume', source: volume, options: ['rbind', 'rw'] },
          { destination: '/volume/sub/made', type: 'tmpfs', source: 'tmpfs' },
          { destination: '/volume/sub/file', source: '/etc/hostname', options: ['bind'] },
        ];
      });
      // Whichever of the two it met: it went there inside the root, or it gave up and said at which step.
      expect(code === 0 || err.includes('step ')).toBe(true);
      expect(readdirSync(outside)).toEqual([]);
      if (code === 0) made++;
    }
    expect(made).toBeGreaterThan(0);
  });

  it('lead the terminal to no file of proc (CVE-2025-52565)', async () => {
    const dev = join(bundle.dir, 'dev');
    mkdirSync(join(dev, 'pts'), { recursive: true });
    writeFileSync(join(dev, 'console'), '');
    symlinkSync('/proc/sys/kernel/core_pattern', join(dev, 'trap'));
    await swap(dev, 'console', 'trap');
    for (let round = 0; round < ROUNDS; round++) {
      const { code, out, err } = await run(round, (config) => {
        if (config.process) Object.assign(config.process, { terminal: true, args: ['cat', '/proc/self/mountinfo'] });
        const pts = config.mounts?.find((mount) => mount.destination === '/dev/pts');
        config.mounts = [
          ...(config.mounts ?? []).filter((mount) => !mount.destination.startsWith('/dev')),
          { destination: '/dev', source: dev, options: ['rbind', 'rw'] },
          ...(pts ? [pts] : []),
        ];
      });
      expect({ code, err }).toSatisfy(() => code === 0 || /through a link|too many|ELOOP|\/dev\/console/.test(err));
      // Read-only /proc/sys and what is masked stay what they are: no terminal lies over a file in there.
      expect(out.split('\n').filter((line) => /^\d+ \d+ \S+ \S+ \/proc\/\S+ .* - devpts /.test(line))).toEqual([]);
    }
  });

  it('give no other file than the multiplexer of a devpts for a terminal (CVE-2025-52565)', async () => {
    mkdirSync(join(bundle.rootfs, 'dev/pts'), { recursive: true });
    for (const trap of ['/proc/sys/kernel/core_pattern', '/etc/shadow', '../../../../etc/shadow']) {
      execFileSync('rm', ['-f', join(bundle.rootfs, 'dev/pts/ptmx')]);
      symlinkSync(trap, join(bundle.rootfs, 'dev/pts/ptmx'));
      const { code, err } = await run(0, (config) => {
        if (config.process) Object.assign(config.process, { terminal: true });
        config.mounts = (config.mounts ?? []).filter((mount) => !mount.destination.startsWith('/dev'));
      });
      expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('ptmx') });
    }
  });
});
