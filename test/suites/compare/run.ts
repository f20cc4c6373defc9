import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { base, PROBE } from './base.ts';
import type { Case } from './cases.ts';

export interface Outcome {
  exitCode: number | null;
  /** Sections of the probe, each as lines that do not depend on the run. */
  sections: Record<string, string[]>;
  /** What the hooks wrote. */
  hooks: string;
  /** What is left in the runtime's state directory. */
  left: string[];
}

const ID = 'estiba-compare';
const RUN_MS = 20_000;

/** Makes a bundle for the case and runs it in the foreground. The same directory for each runtime: paths must not differ. */
export function runCase(runtime: string, test: Case, folder: string): Outcome & { stderr: string } {
  rmSync(folder, { recursive: true, force: true });
  const bundle = join(folder, 'bundle');
  makeRootfs(join(bundle, 'rootfs'), test);
  for (const [path, text] of Object.entries(test.host ?? {})) put(join(bundle, path), text);
  const config = base(`/estiba-compare-${process.pid}`);
  test.change(config);
  const text = JSON.stringify(config).replaceAll('BUNDLE', bundle);
  // Relative sources of bind mounts are the bundle's.
  writeFileSync(join(bundle, 'config.json'), text);
  const state = join(folder, 'state');
  const run = spawnSync(runtime, ['--root', state, 'run', '--bundle', bundle, ID], {
    cwd: bundle,
    encoding: 'utf8',
    timeout: RUN_MS,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const hooks = join(bundle, 'hooks.txt');
  return {
    exitCode: run.status,
    sections: sections(run.stdout, bundle),
    hooks: existsSync(hooks) ? readFileSync(hooks, 'utf8') : '',
    left: existsSync(state) ? readdirSync(state).filter((name) => name.includes(ID)) : [],
    stderr: run.stderr,
  };
}

function makeRootfs(rootfs: string, test: Case): void {
  for (const dir of ['bin', 'proc', 'sys', 'dev', 'tmp', 'etc', 'opt/inside', 'data'])
    mkdirSync(join(rootfs, dir), { recursive: true });
  cpSync('/bin/busybox', join(rootfs, 'bin/busybox'));
  const applets = spawnSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).stdout.split('\n').filter(Boolean);
  for (const name of applets) if (name !== 'busybox') symlinkSync('busybox', join(rootfs, 'bin', name));
  put(join(rootfs, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n');
  put(join(rootfs, 'etc/hosts'), '127.0.0.1 localhost\n');
  put(join(rootfs, 'opt/inside/file'), 'text\n');
  symlinkSync('/opt', join(rootfs, 'link'));
  put(join(rootfs, 'probe'), PROBE);
  if (test.also) put(join(rootfs, 'also'), `${test.also}\n`);
  for (const [path, text] of Object.entries(test.files ?? {})) put(join(rootfs, path), text);
}

function put(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function sections(stdout: string, bundle: string): Record<string, string[]> {
  const result: Record<string, string[]> = {};
  let current = 'output';
  for (const line of stdout.split('\n')) {
    if (line.startsWith('== ')) current = line.slice(3);
    else if (line !== '') result[current] = [...(result[current] ?? []), line.replaceAll(bundle, 'BUNDLE')];
  }
  const { namespaces, mounts, status } = result;
  if (namespaces) result['namespaces'] = namespaces.map(sharedOrNew);
  if (mounts) result['mounts'] = mounts.map(plainMount).sort();
  // The runtime's own pid stands in the outer columns.
  if (status)
    result['status'] = status.map((line) =>
      line.startsWith('NSpid') ? `NSpid of ${line.split('\t').length - 1}` : line,
    );
  return result;
}

/** `net net:[4026531840]` → host or new. */
function sharedOrNew(line: string): string {
  const [name = '', inode = ''] = line.split(' ');
  const host = spawnSync('readlink', [`/proc/self/ns/${name}`], { encoding: 'utf8' }).stdout.trim();
  return `${name} ${inode === host ? 'host' : 'new'}`;
}

/** A line of mountinfo without what differs from run to run: ids, numbers of anonymous devices and of peer groups. */
function plainMount(line: string): string {
  const [before = '', after = ''] = line.split(' - ');
  const [, , device = '', root, point, options, ...propagation] = before.split(' ');
  const real = device.startsWith('0:') ? '0:n' : device;
  const peers = propagation.map((word) => word.replace(/:\d+$/, ':n')).sort();
  const plain = [real, root, point, options, ...peers, '-', after.replace(/,?inode(32|64)/, '')].join(' ');
  return MEANT.reduce((text, [ours, theirs]) => text.replace(ours, theirs), plain);
}

/** Where we differ from runc 1.1 on purpose. */
const MEANT: readonly (readonly [RegExp, string])[] = [
  // runc leaves the tmpfs that carries v1's hierarchies writable although the mount asks for ro.
  [/^(0:n \/ \/sys\/fs\/cgroup) ro,(.* - tmpfs )/, '$1 rw,$2'],
  // rootfsPropagation "shared": runc leaves the root private when the host's is, the specification wants it shared.
  [/^(\S+ BUNDLE\/rootfs \/ \S+) shared:n - /, '$1 - '],
  // A tmpfs that begins with what was there keeps the directory's mode in its options.
  [/^(0:n \/ \/opt .* - tmpfs .*),mode=755/, '$1'],
];
