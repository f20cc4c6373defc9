import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { findExecutor, type PlanResult, runPlan } from '#kernel/plan/execute.ts';
import { busyboxRoot, type Handmade, handmadePlan } from '#kernel/plan/handmade.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';

const root = busyboxRoot('native');
afterAll(root.remove);

/** Runs a container to its end and gives what it wrote. */
async function run(
  options: Partial<Handmade> & { argv: readonly string[] },
): Promise<{ result: PlanResult; out: string }> {
  const file = join(root.dir, `out-${Math.random().toString(36).slice(2)}`);
  const out = openSync(file, 'w');
  const nothing = openSync('/dev/null', 'r');
  try {
    const plan = handmadePlan({ rootfs: root.rootfs, wait: true, ...options });
    const result = await runPlan(plan, { stdio: [nothing, out, out] });
    return { result, out: readFileSync(file, 'utf8') };
  } finally {
    closeSync(out);
    closeSync(nothing);
  }
}

const sh = (script: string): readonly string[] => ['sh', '-c', script];

/** Every close(2) waits for a listener; all else is allowed. */
function notifyClose(): Uint8Array {
  const SYS_close = process.arch === 'arm64' ? 57 : 3;
  const program = Buffer.alloc(4 * 8);
  [
    [0x20, 0, 0, 0], // load the call's number
    [0x15, 0, 1, SYS_close],
    [0x06, 0, 0, 0x7fc0_0000], // SECCOMP_RET_USER_NOTIF
    [0x06, 0, 0, 0x7fff_0000], // SECCOMP_RET_ALLOW
  ].forEach(([code = 0, jt = 0, jf = 0, k = 0], i) => {
    program.writeUInt16LE(code, i * 8);
    program.writeUInt8(jt, i * 8 + 2);
    program.writeUInt8(jf, i * 8 + 3);
    program.writeUInt32LE(k, i * 8 + 4);
  });
  return program;
}

describe('a stand-alone plan', () => {
  it('ends a container whose seccomp listener cannot be reached, though its filter holds it back', async () => {
    const plan = handmadePlan({ rootfs: root.rootfs, argv: ['true'], seccomp: notifyClose(), wait: true });
    const listener = '/nonexistent/listener.sock';
    const steps = plan.steps.map((step): Step => (step.op === 'seccomp' ? { ...step, listener } : step));
    await expect(runPlan({ steps })).rejects.toThrow(/seccomp listener \/nonexistent\/listener.sock|ENOENT/);
  });

  it('runs a program in namespaces of its own and tells its exit status', async () => {
    const { result, out } = await run({ argv: sh('hostname; echo pid $$; ls /proc/sys/net/ipv4/ip_forward; exit 7') });
    expect(out).toBe('handmade\npid 1\n/proc/sys/net/ipv4/ip_forward\n');
    expect(result.exited).toEqual({ code: 7 });
  });

  it('gives eight namespaces that are not the host’s', async () => {
    const types = ['mnt', 'pid', 'ipc', 'uts', 'net', 'cgroup'];
    const { out } = await run({ argv: sh(types.map((t) => `readlink /proc/self/ns/${t}`).join(';')) });
    const inside = out.trim().split('\n');
    expect(inside).toHaveLength(types.length);
    types.forEach((type, i) => {
      expect(inside[i]).not.toBe(readlinkSync(`/proc/self/ns/${type}`));
    });
  });

  it('enters the namespaces of the process that was meant: not of another start, and says which one refuses', async () => {
    const enter = (startTime: bigint, types: number): Plan => ({
      steps: [
        { op: 'openProcess', where: 'host', because: 'test', into: 0, pid: process.pid, startTime },
        { op: 'fork', where: 'host', because: 'test' },
        { op: 'enterProcess', where: 'middle', because: 'test', slot: 0, pid: process.pid, types },
        { op: 'clone', where: 'middle', because: 'test', flags: 0n, cgroup: NO_SLOT, sibling: 0 },
        { op: 'exec', where: 'init', because: 'test', path: '/bin/true', argv: ['true'], env: [] },
        { op: 'waitInit', where: 'host', because: 'test', timeoutMs: 0 },
      ],
    });
    const [UTS, USER] = [0x0400_0000, 0x1000_0000];
    expect((await runPlan(enter(0n, UTS))).exited).toEqual({ code: 0 });
    await expect(runPlan(enter(1n, UTS))).rejects.toMatchObject({ message: expect.stringContaining('ESRCH') });
    // The user namespace one is in already is refused in both ways: by pidfd, and one after the other as before Linux 5.8.
    await expect(runPlan(enter(0n, UTS | USER))).rejects.toMatchObject({
      message: expect.stringMatching(/EINVAL.*namespace user|namespace user.*EINVAL/),
    });
  });

  it('is born in the namespaces of another process, and the executor is at home again, whether it could be made or not', async () => {
    const script = `hostname inside; mount -t tmpfs none ${root.dir}; echo in; exec sleep 1000`;
    const flags = ['-m', '-u', '-p', '--fork', '--kill-child', '--mount-proc'];
    const other = spawn('unshare', [...flags, 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const end = once(other, 'exit');
    const out = openSync(join(root.dir, 'out-into'), 'w');
    try {
      await once(other.stdout, 'data');
      const pid = Number(readFileSync(`/proc/${other.pid}/task/${other.pid}/children`, 'utf8'));
      const host = (step: object): Step => ({ where: 'host', because: 'test', ...step }) as Step;
      const write = (path: string): object => ({
        op: 'write',
        path,
        data: new Uint8Array(),
        flags: 0o101,
        mode: 0o600,
      });
      const [before, absolute, here] = ['before', 'absolute', 'relative'].map((name) => join(root.dir, name));
      const types = 0x2402_0000; // PID, UTS, mount
      const into = (cgroup: number): Plan => ({
        steps: [
          { ...host(write(`${before}`)), undo: [{ op: 'unlink', path: `${before}` }] },
          host({ op: 'openProcess', into: 0, pid, startTime: 0n }),
          host({ op: 'cloneInto', slot: 0, pid, types, flags: 0n, cgroup }),
          host(write(`${absolute}`)),
          host(write(relative(process.cwd(), `${here}`))),
          {
            op: 'exec',
            where: 'init',
            because: 'test',
            path: '/bin/busybox',
            argv: ['sh', '-c', `hostname; ls ${root.dir}; for t in pid uts mnt; do readlink /proc/self/ns/$t; done`],
            env: [],
          },
          host({ op: 'waitInit', timeoutMs: 0 }),
        ],
      });
      await expect(runPlan(into(9))).rejects.toMatchObject({ message: expect.stringContaining('slot 9 is empty') });
      expect(existsSync(`${before}`)).toBe(false);

      const result = await runPlan(into(NO_SLOT), { stdio: [0, out, out] });
      const theirs = ['pid', 'uts', 'mnt'].map((type) => readlinkSync(`/proc/${pid}/ns/${type}`));
      expect(readFileSync(join(root.dir, 'out-into'), 'utf8').trim().split('\n')).toEqual(['inside', ...theirs]);
      expect(result.exited).toEqual({ code: 0 });
      expect([before, absolute, here].map((path) => existsSync(`${path}`))).toEqual([true, true, true]);
    } finally {
      closeSync(out);
      other.kill('SIGKILL');
      await end;
    }
  });

  it('enters a user namespace through the gate for id maps, and a time namespace with offsets', async () => {
    const map = new TextEncoder().encode('0 100000 65536\n');
    const host = (step: object): Step => ({ where: 'host', because: 'test', ...step }) as Step;
    const init = (step: object): Step => ({ where: 'init', because: 'test', ...step }) as Step;
    const file = join(root.dir, 'out-user');
    const out = openSync(file, 'w');
    const plan: Plan = {
      steps: [
        host({ op: 'fork' }),
        { op: 'unshare', where: 'middle', because: 'test', flags: 0x80 },
        {
          op: 'write',
          where: 'middle',
          because: 'test',
          path: '/proc/self/timens_offsets',
          data: new TextEncoder().encode('boottime 864000 0\n'),
          flags: 1,
          mode: 0,
        },
        { op: 'clone', where: 'middle', because: 'test', flags: 0x1002_0000n, cgroup: NO_SLOT, sibling: 0 },
        host({ op: 'writeProc', file: 'uid_map', data: map }),
        host({ op: 'writeProc', file: 'gid_map', data: map }),
        init({ op: 'setgroups', gids: [] }),
        init({ op: 'setgid', gid: 0 }),
        init({ op: 'setuid', uid: 0 }),
        init({
          op: 'exec',
          path: '/bin/busybox',
          argv: ['sh', '-c', 'id -u; cat /proc/self/uid_map /proc/uptime'],
          env: [],
        }),
        host({ op: 'waitInit', timeoutMs: 0 }),
      ],
    };
    const result = await runPlan(plan, { stdio: [0, out, out] });
    closeSync(out);
    const [uid, mapped, uptime] = readFileSync(file, 'utf8').trim().split('\n');
    expect(result.exited).toEqual({ code: 0 });
    expect(uid).toBe('0');
    expect(mapped?.trim().split(/ +/)).toEqual(['0', '100000', '65536']);
    expect(Number(uptime?.split(' ')[0])).toBeGreaterThan(864_000);
  });

  it('reports a signal as 128 + n', async () => {
    const step = (op: object): Step => ({ where: 'host', because: 'test', ...op }) as Step;
    const plan: Plan = {
      steps: [
        step({ op: 'clone', flags: 0n, cgroup: NO_SLOT, sibling: 0 }),
        step({ where: 'init', op: 'rlimit', resource: 4, soft: 0n, hard: 0n }),
        step({ where: 'init', op: 'exec', path: '/bin/busybox', argv: ['sh', '-c', 'kill -SEGV $$'], env: [] }),
        step({ op: 'waitInit', timeoutMs: 10_000 }),
      ],
    };
    expect((await runPlan(plan)).exited).toEqual({ code: 139, signal: 'SIGSEGV' });
  });

  it('drops capabilities, masks paths, makes others read-only and lets nothing leak', async () => {
    const { out } = await run({
      argv: sh(
        'grep -E "CapBnd|NoNewPrivs" /proc/self/status; wc -c < /proc/keys; ls /sys/firmware | wc -l; ls /proc/self/fd; echo 1 > /proc/sys/kernel/domainname',
      ),
    });
    expect(out).toContain('CapBnd:\t00000000a80425fb');
    expect(out).toContain('NoNewPrivs:\t1');
    expect(out).toContain("can't create /proc/sys/kernel/domainname: Read-only file system");
    expect(out.split('\n').slice(2, 8)).toEqual(['0', '0', '0', '1', '2', '3']); // 3 is the directory ls itself reads
  });

  it('names the step, the file system’s own words and the wish when one fails', async () => {
    const plan = handmadePlan({
      rootfs: root.rootfs,
      argv: ['true'],
      overlay: { upper: join(root.dir, 'u1'), work: join(root.dir, 'no/such'), merged: join(root.dir, 'm1') },
    });
    await expect(runPlan(plan)).rejects.toThrow(/^step 2 of \d+, mkdir .*no\/such: ENOENT \(wanted by root\)/);
    const overlay: Step = {
      op: 'fsMount',
      where: 'host',
      because: '$.root',
      target: root.dir,
      type: 'overlay',
      options: [`lowerdir=${root.rootfs}`, 'nonesuch=1'],
      attr: 0n,
    };
    await expect(runPlan({ steps: [overlay] })).rejects.toThrow(
      /step 1 of 1, mount overlay .*: E\w+, because overlay: Unknown parameter 'nonesuch'/,
    );
  });

  it('answers a missing program as a shell would, before `ready`', async () => {
    await expect(run({ argv: ['nonesuch'] })).rejects.toMatchObject({
      code: 'PLAN_FAILED',
      data: { errno: 'ENOENT', detail: 'exec: "nonesuch": executable file not found in $PATH' },
    });
    await expect(run({ argv: ['/etc'] })).rejects.toMatchObject({ data: { errno: 'EACCES' } });
  });

  it('takes everything back, whichever step fails', async () => {
    const cgroup = `/sys/fs/cgroup/pids/estiba-native-${process.pid}`;
    const overlay = { upper: join(root.dir, 'u'), work: join(root.dir, 'w'), merged: join(root.dir, 'm') };
    const plan = handmadePlan({ rootfs: root.rootfs, argv: ['true'], overlay, cgroups: [cgroup], wait: true });
    const before = look();
    for (let at = 0; at <= plan.steps.length - 1; at++) {
      const where = plan.steps[at]?.where ?? 'host';
      const bad: Step = { op: 'chdir', where, path: '/no/such/directory', inside: 0, because: 'a test' };
      const steps = [
        ...plan.steps.slice(0, at),
        where === 'init' || at === 0 ? bad : { ...bad, where },
        ...plan.steps.slice(at),
      ];
      await expect(runPlan({ steps }), `failing step ${at + 1}`).rejects.toMatchObject({ data: { step: at } });
      expect(look(), `after failing step ${at + 1}`).toEqual(before);
    }
    const { exited } = await runPlan(plan);
    expect(exited).toEqual({ code: 0 });
    expect(existsSync(cgroup)).toBe(true);
    execFileSync('umount', [overlay.merged]);
    rmdirSync(cgroup);
    execFileSync('rm', ['-rf', overlay.upper, overlay.work, overlay.merged]);
  });

  it('refuses bytes that are no plan', () => {
    const result = execFileSync('sh', ['-c', `echo nonsense | ${findExecutor()} run 0 1 || true`], {
      encoding: 'latin1',
    });
    expect(result).toContain('these bytes are no plan');
  });

  it('never follows a link out of the root', async () => {
    mkdirSync(join(root.rootfs, 'evil'), { recursive: true });
    execFileSync('ln', ['-sfn', '../../../../../../etc', join(root.rootfs, 'evil/up')]);
    execFileSync('ln', ['-sfn', '/made/by/link', join(root.rootfs, 'evil/dangling')]);
    const bind = (target: string): Step => ({
      op: 'bindAt',
      where: 'init',
      because: 'test',
      root: 0,
      source: '/bin',
      from: NO_SLOT,
      target,
      recursive: 1,
      create: 1,
      set: 0n,
      clear: 0n,
      attrRecursive: 0,
      propagation: 0n,
      userns: NO_SLOT,
    });
    const { out } = await run({
      argv: sh('grep -c " /etc/estiba-native " /proc/self/mountinfo; grep -c " /made/by/link " /proc/self/mountinfo'),
      before: [bind('/evil/up/estiba-native'), bind('/evil/dangling')],
    });
    expect(out).toBe('1\n1\n');
    expect(existsSync('/etc/estiba-native')).toBe(false);
    expect(existsSync('/made')).toBe(false);
  });

  it('makes each device and link in the directory that it names, however they follow each other', async () => {
    const device = (path: string): Step => {
      const mode = 0o20666;
      return {
        op: 'deviceAt',
        where: 'init',
        because: 'test',
        root: 0,
        path,
        mode,
        device: 259n,
        uid: 0,
        gid: 0,
        bind: 0,
      };
    };
    const link = (path: string): Step => ({
      op: 'symlinkAt',
      where: 'init',
      because: 'test',
      root: 0,
      path,
      target: 'x',
    });
    const paths = ['/dev/a/one', '/dev/a/two', '/dev/two', '/dev/a/b/one', '/dev/a/three', '/dev/ab/one'];
    const before = paths.flatMap((path) => [device(path), link(`${path}.link`)]);
    const names = paths.flatMap((path) => [path, `${path}.link`]).join(' ');
    const { out } = await run({
      argv: sh(`for p in ${names}; do [ -c $p -o -L $p ] || echo $p; done; ls /dev | tr '\\n' ' '`),
      before,
    });
    expect(out).toBe('a ab fd full mqueue null ptmx pts random shm stderr stdin stdout tty two two.link urandom zero ');
  });

  it('refuses a mount inside proc, and a proc reached through a link', async () => {
    const mountAt = (target: string, create: number): Step => ({
      op: 'mountAt',
      where: 'init',
      because: 'test',
      root: 0,
      source: 'tmpfs',
      target,
      type: 'tmpfs',
      flags: 0n,
      data: '',
      create,
    });
    await expect(run({ argv: ['true'], before: [mountAt('/proc/self/attr', 0)] })).rejects.toThrow('lies inside proc');
    execFileSync('ln', ['-sfn', 'tmp', join(root.rootfs, 'linked')]);
    await expect(run({ argv: ['true'], before: [mountAt('/linked', 0x101)] })).rejects.toThrow(
      'reached through a link',
    );
  });
});

function look(): unknown {
  return {
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((l) => l.includes(root.dir)),
    cgroups: readdirSync('/sys/fs/cgroup/pids').filter((n) => n.includes('estiba-native')),
    files: readdirSync(root.dir).filter((n) => !n.startsWith('out-')),
    processes: readdirSync('/proc').filter(
      (p) => /^\d+$/.test(p) && commOf(p).startsWith('estiba') && parentOf(p) === process.pid,
    ),
  };
}

function commOf(pid: string): string {
  return readOr(`/proc/${pid}/comm`).trim();
}

function parentOf(pid: string): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readOr(`/proc/${pid}/status`))?.[1] ?? 0);
}

function readOr(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // gone between readdir and read
  }
}
