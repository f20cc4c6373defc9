import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

// What a user installs is what `make pack` and `make deb` leave in dist/, on a prefix of its own and away from the sources.
const ROOT = resolve(import.meta.dirname, '../..');
const room = mkdtempSync(join(tmpdir(), 'estiba-packages-'));
const run = (command: string, args: string[], cwd = room): string =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

afterAll(() => rmSync(room, { recursive: true, force: true }));

describe('the npm package', () => {
  const prefix = join(room, 'npm');

  beforeAll(() => {
    run('make', ['pack'], ROOT);
    run('npm', ['install', '--global', '--prefix', prefix, '--no-audit', '--no-fund', packageIn('dist', '.tgz')]);
  });

  it('installs two commands that work', () => worksFrom(join(prefix, 'bin')));

  it('compiles its native program where the packed one is for another machine', () => {
    const installed = join(prefix, 'lib/node_modules/estiba');
    const program = join(installed, 'native/build/estiba-init');
    writeFileSync(program, 'for another machine');
    run('npm', ['run', 'install'], installed);
    expect(readFileSync(program).subarray(1, 4).toString()).toBe('ELF');
    worksFrom(join(prefix, 'bin'));
  });
});

describe('the Debian package', () => {
  const root = join(room, 'deb');

  beforeAll(() => {
    run('make', ['deb'], ROOT);
    run('dpkg-deb', ['--extract', packageIn('dist', '.deb'), root]);
  });

  it('brings two commands that work', () => worksFrom(join(root, 'usr/bin')));

  it('brings a unit whose stop leaves the containers running', () => {
    expect(readFileSync(join(root, 'lib/systemd/system/estiba.service'), 'utf8')).toContain('\nKillMode=process\n');
  });

  it('names its architecture, its version and what it depends on', () => {
    const fields = run('dpkg-deb', [
      '--field',
      packageIn('dist', '.deb'),
      'Package',
      'Architecture',
      'Version',
      'Depends',
    ]);
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const arch = run('dpkg', ['--print-architecture']).trim();
    expect(fields).toBe(`Package: estiba\nArchitecture: ${arch}\nVersion: ${version}\nDepends: nodejs (>= 20.19)\n`);
  });
});

function packageIn(folder: string, ending: string): string {
  const found = readdirSync(join(ROOT, folder)).filter((name) => name.endsWith(ending));
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${folder} has ${found.length} files *${ending}`);
  return join(ROOT, folder, found[0]);
}

/** Both commands, and a container. */
function worksFrom(bin: string): void {
  expect(run(join(bin, 'estiba'), ['--version'])).toMatch(/^estiba \d+\.\d+\.\d+/);
  const bundle = mkdtempSync(join(room, 'bundle-'));
  const programs = join(bundle, 'rootfs/bin');
  mkdirSync(programs, { recursive: true });
  copyFileSync('/bin/busybox', join(programs, 'busybox'));
  symlinkSync('busybox', join(programs, 'echo'));
  run(join(bin, 'estiba-oci'), ['spec', '--bundle', bundle]);
  const config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'));
  config.process.terminal = false;
  config.process.args = ['echo', 'hello'];
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
  expect(run(join(bin, 'estiba-oci'), ['--root', join(room, 'oci'), 'run', '--bundle', bundle, 'packaged'])).toBe(
    'hello\n',
  );
}
