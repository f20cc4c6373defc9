import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_PRIVATE,
  MS_RDONLY,
  MS_REC,
  MS_SLAVE,
} from '#kernel/linux/mount-options.ts';
import { namespaceFlags } from '#kernel/linux/namespaces.ts';
import { CREATE_DIRECTORY, NO_SLOT, TARGET_NO_LINKS } from '#kernel/plan/ops.ts';
import type { Op, Plan, Step, Where } from '#kernel/plan/plan.ts';

// A container's plan made by hand, without an OCI configuration: what the tests and benchmarks of native/ run. It does
// what `docker run` does to a program, in the same order. `src/runtime` makes the real ones.

export interface Handmade {
  rootfs: string;
  argv: readonly string[];
  env?: readonly string[];
  /**
   * Mounts `rootfs` as the lower directory of an overlay; upper, work and merged are made. `volatile`: as the engine mounts
   * the root of a container that goes with its end, nothing of it is synced.
   */
  overlay?: { upper: string; work: string; merged: string; volatile?: boolean };
  /** Cgroup directories to make and enter; v1 ones by their `tasks`. */
  cgroups?: readonly string[];
  /** A cgroup v2 directory to be born in. */
  bornIn?: string;
  seccomp?: Uint8Array;
  terminal?: { rows: number; cols: number; socket?: string };
  /** Stop at `ready` until the shim gives its word. */
  awaitStart?: boolean;
  /** Stand-alone: wait for the end and report the status. */
  wait?: boolean;
  /** Steps put in before the root is changed; slot 0 is the root. */
  before?: readonly Step[];
  hostname?: string;
}

const ROOT = 0;
const PROC_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const DOCKER_CAPS = 0xa804_25fbn;
const O_PATH_DIRECTORY = 0o12200000;
const O_RDONLY_DIRECTORY = 0o200000;
const MASKED = ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/scsi', '/sys/firmware'];
const READONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
const DEVICES: readonly (readonly [name: string, major: number, minor: number])[] = [
  ['null', 1, 3],
  ['zero', 1, 5],
  ['full', 1, 7],
  ['random', 1, 8],
  ['urandom', 1, 9],
  ['tty', 5, 0],
];

export function handmadePlan(c: Handmade): Plan {
  const steps: Step[] = [];
  const add = (where: Where, because: string, op: Op, undo: readonly Op[] = []): void => {
    steps.push({ ...op, where, because, ...(undo.length > 0 ? { undo } : {}) });
  };
  const mountAt = (target: string, type: string, flags: bigint, data = ''): void =>
    add('init', 'mounts', {
      op: 'mountAt',
      root: ROOT,
      source: type,
      target,
      type,
      flags,
      data,
      create: CREATE_DIRECTORY | TARGET_NO_LINKS,
    });

  for (const path of c.cgroups ?? []) {
    add('host', 'cgroups', { op: 'mkdir', path, mode: 0o755, flags: 0 }, [{ op: 'removeCgroup', path }]);
    // A v1 cpuset takes nobody in while these two are empty.
    if (path.startsWith('/sys/fs/cgroup/cpuset/'))
      for (const file of ['cpuset.cpus', 'cpuset.mems'])
        add('host', 'cgroups', { op: 'write', path: `${path}/${file}`, data: Buffer.from('0'), flags: 1, mode: 0 });
  }
  if (c.bornIn !== undefined)
    add('host', 'cgroups', { op: 'open', into: 1, path: c.bornIn, flags: O_RDONLY_DIRECTORY, mode: 0 });
  if (c.overlay) {
    const { upper, work, merged, volatile } = c.overlay;
    const options = [`lowerdir=${c.rootfs}`, `upperdir=${upper}`, `workdir=${work}`, ...(volatile ? ['volatile'] : [])];
    for (const path of [upper, work, merged])
      add('host', 'root', { op: 'mkdir', path, mode: 0o755, flags: 0 }, [{ op: 'removeTree', path }]);
    add('host', 'root', { op: 'fsMount', target: merged, type: 'overlay', options, attr: 0n }, [
      { op: 'umount', target: merged, flags: 2 },
    ]);
  }
  const root = c.overlay?.merged ?? c.rootfs;

  const flags = BigInt(namespaceFlags(['mount', 'pid', 'ipc', 'uts', 'network']));
  add('host', 'namespaces', { op: 'clone', flags, cgroup: c.bornIn === undefined ? NO_SLOT : 1, sibling: 0 });
  for (const path of c.cgroups ?? [])
    if (path !== c.bornIn) add('init', 'cgroups', { op: 'joinCgroup', path, slot: NO_SLOT });
  add('init', 'namespaces', { op: 'unshare', flags: namespaceFlags(['cgroup']) });
  add('init', 'process', { op: 'setsid' });
  add('init', 'root', { op: 'mount', source: '', target: '/', type: '', flags: MS_SLAVE | MS_REC, data: '' });
  if (!c.overlay) add('init', 'root', { op: 'mount', source: root, target: root, type: '', flags: 0x5000n, data: '' });
  add('init', 'root', { op: 'mountAttr', path: root, recursive: 1, set: 0n, clear: 0n, propagation: MS_PRIVATE });
  add('init', 'root', { op: 'open', into: ROOT, path: root, flags: O_PATH_DIRECTORY, mode: 0 });
  mountAt('/proc', 'proc', PROC_FLAGS);
  mountAt('/dev', 'tmpfs', MS_NOSUID, 'mode=755,size=65536k');
  mountAt('/dev/pts', 'devpts', MS_NOSUID | MS_NOEXEC, 'newinstance,ptmxmode=0666,mode=0620');
  mountAt('/dev/shm', 'tmpfs', PROC_FLAGS, 'mode=1777,size=65536k');
  mountAt('/dev/mqueue', 'mqueue', PROC_FLAGS);
  mountAt('/sys', 'sysfs', PROC_FLAGS | MS_RDONLY);
  for (const [name, major, minor] of DEVICES)
    add('init', 'devices', {
      op: 'deviceAt',
      root: ROOT,
      path: `/dev/${name}`,
      mode: 0o20666,
      device: BigInt(major * 256 + minor),
      uid: 0,
      gid: 0,
      bind: 0,
    });
  for (const [path, target] of [
    ['/dev/fd', '/proc/self/fd'],
    ['/dev/stdin', '/proc/self/fd/0'],
    ['/dev/stdout', '/proc/self/fd/1'],
    ['/dev/stderr', '/proc/self/fd/2'],
    ['/dev/ptmx', 'pts/ptmx'],
  ] as const)
    add('init', 'devices', { op: 'symlinkAt', root: ROOT, target, path });
  steps.push(...(c.before ?? []));
  add('init', 'root', { op: 'pivotRoot', root });
  add('init', 'root', { op: 'close', slot: ROOT });
  add('init', 'root', { op: 'open', into: ROOT, path: '/', flags: O_PATH_DIRECTORY, mode: 0 });
  if (c.terminal)
    add('init', 'terminal', {
      op: 'console',
      socket: c.terminal.socket ?? '',
      rows: c.terminal.rows,
      cols: c.terminal.cols,
      bind: 1,
    });
  for (const path of MASKED) add('init', 'masked paths', { op: 'maskAt', root: ROOT, path, label: '' });
  for (const path of READONLY) add('init', 'read-only paths', { op: 'readonlyAt', root: ROOT, path });
  add('init', 'hostname', { op: 'hostname', name: c.hostname ?? 'handmade' });
  add('init', 'capabilities', { op: 'capBounding', keep: DOCKER_CAPS });
  add('init', 'capabilities', { op: 'capset', effective: DOCKER_CAPS, permitted: DOCKER_CAPS, inheritable: 0n });
  add('init', 'process', { op: 'chdir', path: '/', inside: 1 });
  add('init', 'no new privileges', { op: 'prctl', option: 38, value: 1n });
  const env = c.env ?? ['PATH=/bin'];
  add('init', 'process', { op: 'lookup', path: c.argv[0] ?? '', env });
  if (c.seccomp)
    add('init', 'seccomp', {
      op: 'seccomp',
      filter: c.seccomp,
      flags: 0,
      listener: '',
      state: new Uint8Array(),
      pidAt: [],
    });
  add('init', 'process', { op: 'closeFds', from: 3 });
  if (c.awaitStart) {
    add('host', 'lifecycle', { op: 'ready' });
    add('init', 'lifecycle', { op: 'awaitStart', fifo: '', slot: NO_SLOT });
  }
  add('init', 'process', { op: 'exec', path: c.argv[0] ?? '', argv: c.argv, env });
  if (c.wait) add('host', 'lifecycle', { op: 'waitInit', timeoutMs: 0 });
  return { steps };
}

/** The plan of a second process in a running container: enters its namespaces by pid, then runs `argv`. */
export function handmadeExec(
  pid: number,
  argv: readonly string[],
  options: { terminal?: { rows: number; cols: number }; env?: readonly string[] } = {},
): Plan {
  const env = options.env ?? ['PATH=/bin'];
  const enter = (type: string, flag: number): Step => ({
    op: 'setns',
    where: 'middle',
    because: 'namespaces',
    slot: NO_SLOT,
    path: `/proc/${pid}/ns/${type}`,
    type: flag,
  });
  return {
    steps: [
      { op: 'fork', where: 'host', because: 'namespaces' },
      enter('ipc', 0x0800_0000),
      enter('uts', 0x0400_0000),
      enter('net', 0x4000_0000),
      enter('pid', 0x2000_0000),
      enter('cgroup', 0x0200_0000),
      enter('mnt', 0x0002_0000),
      { op: 'clone', where: 'middle', because: 'process', flags: 0n, cgroup: NO_SLOT, sibling: 0 },
      { op: 'setsid', where: 'init', because: 'process' },
      ...(options.terminal
        ? [{ op: 'console', where: 'init', because: 'terminal', socket: '', bind: 0, ...options.terminal } as const]
        : []),
      { op: 'capBounding', where: 'init', because: 'capabilities', keep: DOCKER_CAPS },
      {
        op: 'capset',
        where: 'init',
        because: 'capabilities',
        effective: DOCKER_CAPS,
        permitted: DOCKER_CAPS,
        inheritable: 0n,
      },
      { op: 'chdir', where: 'init', because: 'process', path: '/', inside: 1 },
      { op: 'closeFds', where: 'init', because: 'process', from: 3 },
      { op: 'exec', where: 'init', because: 'process', path: argv[0] ?? '', argv, env },
    ],
  };
}

/** A root file system of one static busybox below a fresh temporary directory. */
export function busyboxRoot(tag: string): { dir: string; rootfs: string; remove: () => void } {
  const dir = mkdtempSync(join(tmpdir(), `estiba-${tag}-`));
  const rootfs = join(dir, 'rootfs');
  for (const name of ['bin', 'proc', 'sys', 'dev', 'tmp', 'etc']) mkdirSync(join(rootfs, name), { recursive: true });
  copyFileSync('/bin/busybox', join(rootfs, 'bin/busybox'));
  for (const applet of APPLETS) symlinkSync('busybox', join(rootfs, 'bin', applet));
  return { dir, rootfs, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

const APPLETS = (
  'sh cat echo true false sleep ls id ps mount hostname readlink stat grep seq head tail yes tty stty kill env pwd wc ' +
  'dd printf cp mv rm mkdir touch test chmod ip ulimit nproc trap usleep od tr'
).split(' ');
