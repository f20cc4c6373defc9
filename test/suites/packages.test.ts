import { type ExecFileSyncOptions, execFile, execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

// What a user installs is what `make pack` and `make deb` leave in dist/, on a prefix of its own and away from the sources.
const ROOT = resolve(import.meta.dirname, '../..');
const room = mkdtempSync(join(tmpdir(), 'estiba-packages-'));
const run = (command: string, args: string[], cwd = room, env: Record<string, string> = {}): string => {
  const options: ExecFileSyncOptions = { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] };
  return execFileSync(command, args, { ...options, encoding: 'utf8' });
};

afterAll(() => rmSync(room, { recursive: true, force: true }));

describe('the npm package', () => {
  const prefix = join(room, 'npm');

  beforeAll(() => {
    run('make', ['pack'], ROOT);
    run('npm', ['install', '--global', '--prefix', prefix, '--no-audit', '--no-fund', packageIn('dist', '.tgz')]);
  });

  it('installs two commands that work', () => worksFrom(join(prefix, 'bin')));

  describe('whose estiba-oci starts from a snapshot', () => {
    const installed = join(prefix, 'lib/node_modules/estiba');
    const dist = join(installed, 'dist');
    const taker = join(installed, 'tools/snapshot.mjs');
    const made = (): string[] => readdirSync(dist).filter((name) => /\.blob$|^taking-/.test(name));
    const scripts = ['planner.run.cjs', 'oci.run.cjs'].map((name) => join(dist, name));

    it('takes it when it is installed, and needs no script then', () => {
      expect(made()).toHaveLength(1);
      const texts = scripts.map((path) => readFileSync(path));
      for (const path of scripts) writeFileSync(path, 'process.exit(1)');
      try {
        worksFrom(join(prefix, 'bin'));
      } finally {
        for (const [i, path] of scripts.entries()) writeFileSync(path, texts[i] ?? '');
      }
    });

    it('starts while three take it anew beside each other, which leaves one', async () => {
      let taking = true;
      const takers = Promise.all([1, 2, 3].map(() => promisify(execFile)(process.execPath, [taker])));
      void takers.finally(() => {
        taking = false;
      });
      while (taking) {
        worksFrom(join(prefix, 'bin'));
        await new Promise((next) => setImmediate(next));
      }
      await takers;
      expect(made()).toHaveLength(1);
      worksFrom(join(prefix, 'bin'));
    });

    it('goes on without it under another Node.js, which takes its own when it is asked to', () => {
      const node = join(room, 'another-node');
      copyFileSync(process.execPath, node);
      utimesSync(node, 1, 1);
      const before = made();
      worksFrom(join(prefix, 'bin'), { ESTIBA_NODE: node });
      expect(made()).toEqual(before);
      run(node, [taker]);
      expect(made()).toEqual([expect.stringMatching(/-1\.blob$/)]);
      worksFrom(join(prefix, 'bin'), { ESTIBA_NODE: node });
      worksFrom(join(prefix, 'bin'));
      run(process.execPath, [taker]);
      expect(made()).toEqual(before);
    });
  });

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
    expect(readFileSync(join(root, 'usr/lib/systemd/system/estiba.service'), 'utf8')).toContain('\nKillMode=process\n');
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
function worksFrom(bin: string, env: Record<string, string> = {}): void {
  const say = (command: string, ...args: string[]): string => run(join(bin, command), args, room, env);
  expect(say('estiba', '--version')).toMatch(/^estiba \d+\.\d+\.\d+/);
  const bundle = mkdtempSync(join(room, 'bundle-'));
  const programs = join(bundle, 'rootfs/bin');
  mkdirSync(programs, { recursive: true });
  copyFileSync('/bin/busybox', join(programs, 'busybox'));
  symlinkSync('busybox', join(programs, 'echo'));
  say('estiba-oci', 'spec', '--bundle', bundle);
  const config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'));
  config.process.terminal = false;
  config.process.args = ['echo', 'hello'];
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
  const root = join(room, 'oci');
  expect(say('estiba-oci', '--root', root, 'run', '--bundle', bundle, 'packaged')).toBe('hello\n');
}
