import { randomBytes } from 'node:crypto';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Daemon } from './daemon.ts';
import { HELLO, Room, rootfsTar, startPeer } from './room.ts';

// kill -9 of the daemon while it pulls and unpacks: nothing acknowledged is lost, nothing half stays, the next try finishes.

const PEER = '127.0.0.1:5002';
const NAME = `${PEER}/big/image:1`;
const KILLS = 8;
let room: Room;
let daemon: Daemon;

beforeAll(async () => {
  room = await Room.open();
  await startPeer(room, PEER);
  const { folder } = await rootfsTar(room);
  for (let i = 0; i < 4; i++) writeFileSync(join(folder, `random-${i}`), randomBytes(24_000_000));
  const layout = room.path('big');
  await room.in('umoci', 'init', '--layout', layout);
  await room.in('umoci', 'new', '--image', `${layout}:1`);
  await room.in('umoci', 'insert', '--image', `${layout}:1`, join(folder, 'bin'), '/bin');
  await room.in('umoci', 'insert', '--image', `${layout}:1`, join(folder, 'etc'), '/etc');
  for (let i = 0; i < 4; i++)
    await room.in('umoci', 'insert', '--image', `${layout}:1`, join(folder, `random-${i}`), `/random-${i}`);
  await room.in('umoci', 'config', '--image', `${layout}:1`, '--config.cmd', 'cat', '--config.cmd', '/etc/hello');
  await room.in('skopeo', 'copy', '-q', '--dest-tls-verify=false', `oci:${layout}:1`, `docker://${NAME}`);
  daemon = await Daemon.start(room, 'estkilled', '127.0.0.1:5003');
}, 120_000);
afterAll(async () => {
  await room?.close();
  daemon?.sweep();
}, 60_000);

it('leaves what the next pull goes on with, and nothing else', async () => {
  await docker('import', room.path('rootfs.tar'), 'kept:1');
  for (let i = 0; i < KILLS; i++) {
    const pulling = docker('pull', NAME).catch(() => 'the daemon was killed');
    await new Promise((go) => setTimeout(go, 60 + i * 90)); // the moment of the cut, later each time
    await daemon.kill();
    await pulling;
    await daemon.restart();
    const images = await docker('images', '--format', '{{.Repository}}:{{.Tag}}');
    expect(images).toContain('kept:1'); // acknowledged before
    expect(names('data/layers').filter((name) => name.startsWith('.tmp-'))).toEqual([]);
  }
  await docker('pull', NAME);
  expect(names('data/blobs/ingest')).toEqual([]);
  expect(names('data/blobs/damaged')).toEqual([]);
  expect(await docker('run', '--rm', '--network', 'none', NAME)).toBe(HELLO);
  // Its unpacked layer may have gone with the first life, before its checksum was taken: it is made again from the blob.
  expect(await docker('run', '--rm', '--network', 'none', 'kept:1', 'cat', '/etc/hello')).toBe(HELLO);
  // Six layers and the one of `kept`: none of an earlier try is left beside them.
  expect(names('data/layers').filter((name) => name.endsWith('.erofs'))).toHaveLength(7);
  await docker('rmi', NAME, 'kept:1');
  expect(names('data/layers').filter((name) => name.endsWith('.erofs'))).toEqual([]);
  expect(names('data/blobs/sha256')).toEqual([]);
}, 120_000);

function names(path: string): string[] {
  return readdirSync(room.path(path));
}

function docker(...args: string[]): Promise<string> {
  const [program = '', ...flags] = daemon.docker;
  return room.in(program, ...flags, ...args);
}
