import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { scratch, shell } from '#image/fixtures/node.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Step } from '#kernel/plan/plan.ts';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
/** A user nobody has. */
const UID = 23_457;
const SUB_IDS = 700_000;

/** What two layers have: the second hides `gone` and all that was in `d`. */
const BASE = `mkdir -p bin d locked proc dev sys etc; cp /bin/busybox bin/busybox; ln -s busybox bin/sh
  echo hello > etc/hello; ln etc/hello etc/hard; echo x > d/under; echo y > gone; echo z > owned; chown 5:6 owned
  mknod null c 1 3; mkfifo pipe; chmod 555 locked; chmod 4711 owned; touch -d '2020-02-02 02:02:02.123456789' etc/hello`;
/** `cap_net_raw+ep` (capability.h, version 2). */
const CAPABILITY = '0100000200200000000000000000000000000000';
const SECOND = 'mkdir d; : > d/.wh..wh..opq; echo new > d/new; : > .wh.gone';

const SCRIPT = `set -e; export PATH=/bin; busybox ls d; busybox cat etc/hello; busybox test ! -e gone
  echo written > written; busybox rm -r etc; busybox mkdir etc; echo again > etc/again; busybox ls -ln owned | busybox awk '{print $3, $4}'`;

const CHANGES = ['./', 'etc/', 'etc/.wh..wh..opq', 'etc/again', 'written'];

function attributes(root: string): Step[] {
  const set = (path: string, name: string, value: Buffer): Step => ({
    op: 'setXattr',
    where: 'host',
    because: 'test',
    path: join(root, path),
    name,
    value,
  });
  return [
    set('d', 'user.note', Buffer.from('kept')),
    set('d', 'trusted.secret', Buffer.from('no')),
    set('owned', 'security.capability', Buffer.from(CAPABILITY, 'hex')),
  ];
}

describe('the image store of an ordinary user', () => {
  let dir: string;
  const tars = ['base.tar', 'second.tar'];
  beforeAll(async () => {
    dir = await scratch();
    for (const [i, script] of [BASE, SECOND].entries()) {
      mkdirSync(join(dir, `source${i}`));
      shell(script, join(dir, `source${i}`));
      if (i === 0) await runPlan({ steps: attributes(join(dir, 'source0')) });
      const pack = 'tar --numeric-owner --xattrs --xattrs-include=* --format=pax --sort=name -cf';
      shell(`${pack} ../${tars[i]} *${i === 1 ? ' .wh.gone' : ''}`, join(dir, `source${i}`));
    }
    // The checkout may lie where only root can go: the user gets a copy of what runs.
    for (const part of ['bin/estiba-oci', 'dist', 'native/build/estiba-init'])
      cpSync(join(CHECKOUT, part), join(dir, 'estiba', part), { recursive: true });
    await build({
      entryPoints: [fileURLToPath(new URL('fixtures/rootless.ts', import.meta.url))],
      outfile: join(dir, 'rootless.mjs'),
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
    });
    // What newuidmap asks for, seen by the commands of this test alone.
    writeFileSync(join(dir, 'passwd'), `root:x:0:0::/:/bin/sh\nnobodys:x:${UID}:${UID}::/:/bin/sh\n`);
    writeFileSync(join(dir, 'subid'), `nobodys:${SUB_IDS}:65536\n`);
    chmodSync(dir, 0o755);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** `inside`: a command that makes the namespace to be in. */
  const user = (home: string, inside: string, ...args: string[]): unknown => {
    const root = join(dir, home);
    mkdirSync(root, { recursive: true });
    chownSync(root, UID, UID);
    const program = ['node', join(dir, 'rootless.mjs'), ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    const setup = `mount --bind ${dir}/passwd /etc/passwd; for f in subuid subgid; do mount --bind ${dir}/subid /etc/$f; done`;
    const line = `set -e; ${setup}; exec setpriv --reuid ${UID} --regid ${UID} --clear-groups ${inside} ${program.join(' ')}`;
    const { status, stdout, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', line], {
      cwd: root,
      encoding: 'utf8',
      env: {
        PATH: process.env['PATH'] ?? '',
        ESTIBA_INIT: join(dir, 'estiba/native/build/estiba-init'),
        XDG_RUNTIME_DIR: root,
      },
      timeout: 60_000,
    });
    if (status !== 0) throw new Error(`${inside} ${args.join(' ')}: ${stderr}`);
    return JSON.parse(stdout);
  };
  const oci = (): string => join(dir, 'estiba/bin/estiba-oci');
  const paths = (): string[] => tars.map((tar) => join(dir, tar));
  const unpacked = (home: string, inside: string): { ownership: string; trees: string[][] } =>
    user(home, inside, 'unpack', join(dir, home), ...paths()) as never;
  const ran = (home: string, inside: string): { ran: { status: number; out: string; err: string } } =>
    user(home, inside, 'run', join(dir, home), oci(), SCRIPT, ...paths()) as never;
  const of = (lines: readonly string[] = []): Map<string, string> =>
    new Map(lines.map((line) => [line.split(' ')[0] ?? '', line]));
  const isClean = (home: string): void => {
    for (const part of ['layers', 'snapshots'])
      expect(readdirSync(join(dir, home, 'data', part)).filter((name) => name !== 'none')).toEqual([]);
  };
  const changes = (home: string): string[] =>
    shell(`tar -tf ${home}/diff.tar`, dir).toString().trim().split('\n').sort();

  it('without any privilege: all is his own, and a container runs on it in a namespace of one id', () => {
    const { ownership, trees } = unpacked('alone', '');
    expect(ownership).toBe('mine');
    const [base, second] = trees.map(of);
    expect(base?.get('owned')).toMatch(new RegExp(`^owned 104711 ${UID}:${UID} 2 `));
    expect(base?.get('etc/hello')).toMatch(/ links 2 first etc\/hard at 1580608922123456789$/);
    expect(base?.get('null')).toMatch(/^null 100644 .* 0 /);
    expect(base?.get('pipe')).toMatch(/^pipe 10644 /);
    expect(base?.get('locked')).toMatch(/^locked 40755 /);
    expect(base?.get('d')).toMatch(/ user\.note=6b657074$/);
    expect(second?.get('d')).toMatch(/ user\.overlay\.opaque=79$/);
    expect(second?.get('gone')).toMatch(/ dev 0 /);
    expect(ran('alone', 'unshare -Urm').ran).toEqual({ status: 0, out: 'new\nhello\n0 0\n', err: '' });
    expect(changes('alone')).toEqual(CHANGES);
    isClean('alone');
  });

  it('as root of a namespace with subordinate ids: owners and file capabilities as in the layer', () => {
    const inside = 'unshare -U --map-auto --map-root-user -m';
    const { ownership, trees } = unpacked('mapped', inside);
    expect(ownership).toBe('mapped');
    const [base, second] = trees.map(of);
    expect(base?.get('owned')).toMatch(/^owned 104711 5:6 2 /);
    expect(base?.get('owned')).toMatch(/ security\.capability=/);
    expect(base?.get('null')).toMatch(/^null 100644 0:0 0 /);
    expect(base?.get('locked')).toMatch(/^locked 40555 0:0 /);
    expect(base?.get('d')).not.toContain('trusted.secret');
    expect(second?.get('d')).toMatch(/ user\.overlay\.opaque=79$/);
    expect(ran('mapped', inside).ran).toEqual({ status: 0, out: 'new\nhello\n5 6\n', err: '' });
    expect(changes('mapped')).toEqual(CHANGES);
    isClean('mapped');
  });

  it('a layer whose owner the namespace has not is refused by name, and nothing of it stays', () => {
    mkdirSync(join(dir, 'far'));
    shell('echo x > file; chown 90000:90000 file; tar --numeric-owner -cf ../far.tar *', join(dir, 'far'));
    expect(() =>
      user('few', 'unshare -U --map-auto --map-root-user -m', 'unpack', join(dir, 'few'), join(dir, 'far.tar')),
    ).toThrow(/file.*belongs to 90000:90000, an id that this user namespace has not.*\/etc\/subuid/s);
    expect(existsSync(join(dir, 'few/data/layers'))).toBe(true);
    isClean('few');
  });
});
