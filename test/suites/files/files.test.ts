import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon } from '../build/daemon.ts';
import { type Answer, Room, waitFor } from '../room/room.ts';

// Volumes, docker cp, export, diff, commit, top and stats through the docker command line: dockerd beside us, command for command.
const CASES = fileURLToPath(new URL('cases.txt', import.meta.url));
const READY_MS = 60_000;

interface Case {
  command: string;
  /** Words may differ; the exit code may not. */
  textDiffers: boolean;
  /** Not for dockerd 20.10. */
  oursOnly: boolean;
}

let room: Room;
let daemon: BuildDaemon;
const SIDES = ['dockerd', 'estiba'] as const;
type Side = (typeof SIDES)[number];

beforeAll(async () => {
  room = await Room.open('files');
  const place = (name: string): string => join(room.dir, name);
  room.start('dockerd', 'dockerd', [
    ...['--data-root', place('dockerd.data'), '--exec-root', place('dockerd.exec'), '--pidfile', place('dockerd.pid')],
    ...['-H', `unix://${socket()}`, '--cgroup-parent', `/${room.name}`, '--oom-score-adjust', '0'],
    ...['--exec-opt', 'native.cgroupdriver=cgroupfs', '--storage-driver', 'overlay2', '--bridge', 'none'],
  ]);
  const ready = (): boolean => existsSync(socket()) && shell('dockerd', 'docker version').code === 0;
  await waitFor(ready, READY_MS, 'dockerd').catch((error) => {
    throw new Error(`${error}\n${room.log('dockerd')}`);
  });
  daemon = await BuildDaemon.start(`ef${process.pid % 100_000}`);
  makeImage();
  makeFiles();
}, 180_000);

afterAll(async () => {
  for (const side of SIDES) {
    shell(side, 'docker rm -f $(docker ps -aq) 2>/dev/null');
    shell(side, 'docker volume rm $(docker volume ls -q) 2>/dev/null');
  }
  await daemon.stop();
  await room.end();
});

describe('files and volumes, as dockerd has them', () => {
  const cases = parseCases(readFileSync(CASES, 'utf8'));

  it.each(cases.map((c) => [c.command, c] as const))('%s', (_, { command, textDiffers, oursOnly }) => {
    const ours = tidy(shell('estiba', command));
    if (oursOnly) {
      expect(ours.code, ours.text).toBe(0);
      return;
    }
    const theirs = tidy(shell('dockerd', command));
    if (textDiffers) expect(ours.code, ours.text).toBe(theirs.code);
    else expect(ours).toEqual(theirs);
  });
});

function socket(): string {
  return join(room.dir, 'dockerd.sock');
}

/** Each side has a working directory of its own, since commands write into it. */
function shell(side: Side, command: string): Answer {
  const directory = join(room.dir, `${side}.cwd`);
  mkdirSync(directory, { recursive: true });
  const line = `cd '${directory}' && ${command}`;
  if (side === 'dockerd')
    return room.run('bash', ['-c', line], { env: { DOCKER_HOST: `unix://${socket()}`, DOCKER_BUILDKIT: '0' } });
  const done = spawnSync('bash', ['-c', line], { encoding: 'utf8', env: daemon.env(), timeout: READY_MS });
  return { code: done.status, out: done.stdout, err: done.stderr };
}

function makeImage(): void {
  const root = join(room.dir, 'rootfs');
  for (const name of ['bin', 'etc', 'tmp', 'foo/sub', 'data']) mkdirSync(join(root, name), { recursive: true });
  cpSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of ['sh', 'ls', 'cat', 'sleep', 'touch', 'mkdir', 'ln'])
    symlinkSync('busybox', join(root, 'bin', applet));
  writeFileSync(join(root, 'foo/a'), 'hi\n');
  writeFileSync(join(root, 'data/img'), 'x\n');
  symlinkSync('foo', join(root, 'lnk'));
  symlinkSync('/foo/a', join(root, 'flnk'));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n');
  const tar = join(room.dir, 'tiny.tar');
  execFileSync('tar', ['-C', root, '-cf', tar, '.']);
  rmSync(root, { recursive: true });
  const saved = join(room.dir, 'saved.tar');
  const made = shell('dockerd', `docker import -c 'CMD ["sh"]' '${tar}' tiny && docker save -o '${saved}' tiny`);
  expect(made.code, made.err).toBe(0);
  const loaded = shell('estiba', `docker load -i '${saved}'`);
  expect(loaded.code, loaded.err).toBe(0);
}

function makeFiles(): void {
  for (const side of SIDES) {
    const directory = join(room.dir, `${side}.cwd/w/dir`);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, '../file'), 'content\n');
    writeFileSync(join(directory, 'inner'), 'sub\n');
    symlinkSync('file', join(directory, '../link'));
  }
}

function parseCases(text: string): Case[] {
  const cases: Case[] = [];
  let note = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('## ')) note = line;
    if (line === '' || line.startsWith('#')) continue;
    cases.push({ command: line, textDiffers: note.startsWith('## text:'), oursOnly: note.startsWith('## ours:') });
    note = '';
  }
  return cases;
}

/** Without ids, sizes, times and the client's own complaints, and in an order that neither side chose. */
function tidy({ code, out, err }: Answer): { code: number | null; text: string } {
  const text = `${out}\n${err}`
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('time="'))
    .map((line) =>
      line
        .replace(/(sha256:)?\b[0-9a-f]{64}\b/g, '<id>')
        .replace(/\b[0-9a-f]{12}\b/g, '<id>')
        .replaceAll(join(room.dir, 'dockerd.data'), '<data>')
        .replaceAll(join(daemon.dir, 'data'), '<data>')
        .replace(/[0-9.]+ ?[kKMG]i?B/g, '<size>')
        .replace(/\b[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d\b/g, '<time>'),
    )
    .sort()
    .join('\n');
  return { code, text };
}
