import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ApiServer } from '../room/engine.ts';
import { type Room, waitFor } from '../room/room.ts';

/** Where the room's registry listens: a mirror of docker.io for both engines. */
export const MIRROR = '127.0.0.1:5000';
export const MIRROR_FLAGS = ['--registry-mirror', `http://${MIRROR}`, '--insecure-registry', MIRROR];

const READY_MS = 20_000;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Images that others' tests name, by what stands in for each; none of them can be pulled in a closed network. */
export interface StandIns {
  /** busybox and bash. */
  shell: readonly string[];
  /** One program that greets and ends. */
  hello: readonly string[];
}

/** Debian's docker-registry in the room, where pulls of docker.io's names end. */
export async function startMirror(room: Room): Promise<void> {
  writeFileSync(
    mirrorConfig(room),
    `version: 0.1\nlog: {level: warn}\nhttp: {addr: '${MIRROR}'}\nstorage: {filesystem: {rootdirectory: ${room.dir}/registry}, delete: {enabled: true}}\n`,
  );
  room.start('registry', 'docker-registry', ['serve', mirrorConfig(room)]);
  const ready = (): boolean => room.run('busybox', ['wget', '-qO-', `http://${MIRROR}/v2/`]).code === 0;
  await waitFor(ready, READY_MS, `docker-registry: ${room.log('registry')}`);
}

/** Into the engine, and into the mirror where the room has one. Each name has an image of its own: tests remove images by their ids. */
export function importStandIns(room: Room, server: ApiServer, names: StandIns): void {
  const hasMirror = existsSync(mirrorConfig(room));
  const put = (tar: string, name: string, command: string): void => {
    const changes = `-c 'ENV PATH=${PATH}' -c 'CMD ["${command}"]' -c 'LABEL standin=${name}'`;
    const mirrored = `${MIRROR}/library/${name}`;
    const push = `docker tag ${name} ${mirrored} && docker push -q ${mirrored} && docker rmi ${mirrored}`;
    const made = server.sh(`docker import ${changes} ${tar} ${name}${hasMirror ? ` && ${push}` : ''}`);
    if (made.code !== 0) throw new Error(`the stand-in for ${name}: ${made.err}`);
  };
  const shell = shellTar(room.dir);
  for (const name of names.shell) put(shell, name, 'sh');
  if (names.hello.length === 0) return;
  const hello = helloTar(room.dir);
  for (const name of names.hello) put(hello, name, '/hello');
}

function mirrorConfig(room: Room): string {
  return join(room.dir, 'registry.yml');
}

/** A root file system with busybox, bash and the accounts that tests use. */
function shellTar(dir: string): string {
  const root = join(dir, 'shell');
  const directories = [
    'bin',
    'dev',
    'etc',
    'home',
    'lib',
    'proc',
    'root',
    'sys',
    'tmp',
    'usr/bin',
    'var/opt',
    'var/tmp',
    'var/www',
  ];
  for (const sub of directories) mkdirSync(join(root, sub), { recursive: true });
  cpSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const name of lines('/bin/busybox', '--list'))
    if (name !== 'busybox') symlinkSync('busybox', join(root, 'bin', name));
  for (const file of ['/bin/bash', ...librariesOf('/bin/bash')]) copyInto(root, file);
  const accounts: [string, number, string][] = [
    ['root', 0, '/root'],
    ['daemon', 1, '/usr/sbin'],
    ['operator', 11, '/root'],
    ['www-data', 33, '/var/www'],
    ['postgres', 70, '/var/lib'],
    ['nobody', 65_534, '/'],
  ];
  const row = ([name, id, home]: (typeof accounts)[number]): string => `${name}:x:${id}:${id}::${home}:/bin/sh\n`;
  writeFileSync(join(root, 'etc/passwd'), accounts.map(row).join(''));
  writeFileSync(join(root, 'etc/group'), accounts.map(([name, id]) => `${name}:x:${id}:\n`).join(''));
  return packed(dir, root);
}

const HELLO = `#include <unistd.h>
int main(void) { static const char said[] = "\\nHello from Docker!\\nThis message shows that your installation appears to be working correctly.\\n\\n"; return write(1, said, sizeof said - 1) < 0; }
`;

function helloTar(dir: string): string {
  const root = join(dir, 'hello');
  mkdirSync(root);
  execFileSync('cc', ['-static', '-Os', '-s', '-x', 'c', '-o', join(root, 'hello'), '-'], { input: HELLO });
  return packed(dir, root);
}

function packed(dir: string, root: string): string {
  const tar = `${root}.tar`;
  execFileSync('tar', ['-C', root, '--numeric-owner', '--owner=0', '--group=0', '-cf', tar, '.'], { cwd: dir });
  rmSync(root, { recursive: true });
  return tar;
}

/** The loader and the libraries a program of this machine needs. */
function librariesOf(program: string): string[] {
  return lines('ldd', program).flatMap((line) => /(\/\S+) \(0x/.exec(line)?.[1] ?? []);
}

function copyInto(root: string, file: string): void {
  const place = join(root, file);
  mkdirSync(dirname(place), { recursive: true });
  if (!existsSync(place)) cpSync(file, place, { dereference: true });
}

function lines(program: string, ...args: string[]): string[] {
  return execFileSync(program, args, { encoding: 'utf8' }).split('\n').filter(Boolean);
}
