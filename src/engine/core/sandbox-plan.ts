import { join } from 'node:path';
import type { SandboxWish } from '#engine/core/parts.ts';
import { MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC } from '#kernel/linux/mount-options.ts';
import { namespaceFlags, namespaceRow } from '#kernel/linux/namespaces.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { O_CREAT, O_WRONLY, PlanBuilder, utf8 } from '#runtime/builder.ts';
import { checkSysctls, planSysctls } from '#runtime/sysctl.ts';
import { OCI_VERSION, type OciConfig } from '#spec/oci/config.ts';

const MNT_DETACH = 2;
const SIGKILL = 9;
const TMPFS_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const PAUSE_GONE_MS = 2_000;

/**
 * A process makes the namespaces, binds them to files and ends: what keeps them is the mount. It stays in the host's mount
 * namespace, so that its mounts are ours; sysctls and host name are written by it, since they follow the writer.
 */
export function planSandbox(
  dir: string,
  wish: SandboxWish & { netns: string | undefined },
): { plan: Plan; paths: { ipc?: string; uts?: string } } {
  const b = new PlanBuilder();
  const types = [...(wish.ipc === 'private' ? (['ipc'] as const) : []), ...(wish.netns ? (['uts'] as const) : [])];
  const sysctls = { ...(wish.netns ? NETWORK_DEFAULTS : {}), ...wish.sysctls };
  const config = sysctlConfig(sysctls, [...types, ...(wish.netns ? (['network'] as const) : [])]);
  checkSysctls(config);

  if (wish.ipc === 'private') {
    const shm = join(dir, 'shm');
    b.host('default /dev/shm', { op: 'mkdir', path: shm, mode: 0o1777, flags: 0 });
    b.host(
      'default /dev/shm',
      {
        op: 'mount',
        source: 'shm',
        target: shm,
        type: 'tmpfs',
        flags: TMPFS_FLAGS,
        data: `mode=1777,size=${wish.shmBytes}`,
      },
      { op: 'umount', target: shm, flags: MNT_DETACH },
    );
  }
  const paths = Object.fromEntries(types.map((type) => [type, join(dir, type)]));
  for (const path of Object.values(paths))
    b.host('default', { op: 'write', path, data: utf8(''), flags: O_WRONLY | O_CREAT, mode: 0o600 });
  if (types.length > 0 || Object.keys(sysctls).length > 0) {
    b.host('default', { op: 'clone', flags: BigInt(namespaceFlags(types)), cgroup: NO_SLOT, sibling: 0 });
    if (wish.netns)
      b.init('default', { op: 'setns', slot: NO_SLOT, path: wish.netns, type: namespaceRow('network').flag });
    if (types.includes('uts')) b.init('hostname', { op: 'hostname', name: wish.hostname });
    planSysctls(b, config);
    for (const type of types)
      b.init(
        'default',
        { op: 'mount', source: `/proc/self/ns/${type}`, target: join(dir, type), type: '', flags: MS_BIND, data: '' },
        { op: 'umount', target: join(dir, type), flags: MNT_DETACH },
      );
  }
  return { plan: b.finish(), paths };
}

/** Low ports and ping need no privilege in a network of one's own: what Docker and containerd give as well. */
const NETWORK_DEFAULTS = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' };

function sysctlConfig(sysctl: Record<string, string>, types: readonly ('ipc' | 'uts' | 'network')[]): OciConfig {
  return { ociVersion: OCI_VERSION, linux: { sysctl, namespaces: types.map((type) => ({ type })) } };
}

/** The reaper gets a root of its own with nothing in it but its binary: `/proc/1/root` must not lead to the host. */
export function planPause(dir: string, initBinary: string): Plan {
  const b = new PlanBuilder();
  const because = 'shareProcessNamespace';
  const root = join(dir, 'root');
  const binary = join(root, 'pause');
  b.host(because, { op: 'clone', flags: BigInt(namespaceFlags(['pid', 'mount'])), cgroup: NO_SLOT, sibling: 0 });
  b.init(because, { op: 'mount', source: '', target: '/', type: '', flags: MS_REC | MS_PRIVATE, data: '' });
  b.init(because, {
    op: 'mount',
    source: 'pause',
    target: root,
    type: 'tmpfs',
    flags: MS_NOSUID | MS_NODEV,
    data: 'size=64k',
  });
  b.init(because, { op: 'write', path: binary, data: utf8(''), flags: O_WRONLY | O_CREAT, mode: 0o755 });
  b.init(because, { op: 'mount', source: initBinary, target: binary, type: '', flags: MS_BIND, data: '' });
  b.host(because, { op: 'writePid', path: join(dir, 'pause'), withStart: 1 });
  b.init(because, { op: 'pivotRoot', root });
  b.init(because, { op: 'chdir', path: '/', inside: 0 });
  b.init(because, { op: 'setsid' });
  b.init(because, { op: 'exec', path: '/pause', argv: ['pause', 'pause'], env: [] });
  return b.finish();
}

export function planPauseGone(pause: { pid: number; startTicks: string }): Plan {
  const b = new PlanBuilder();
  const of = { pid: pause.pid, startTime: BigInt(pause.startTicks) };
  b.host('the sandbox goes', { op: 'kill', ...of, signal: SIGKILL });
  b.host('the sandbox goes', { op: 'waitGone', ...of, timeoutMs: PAUSE_GONE_MS });
  return b.finish();
}

export function planSandboxGone(dir: string): Plan {
  const b = new PlanBuilder();
  for (const name of ['uts', 'ipc', 'shm'])
    b.host('the sandbox goes', { op: 'umount', target: join(dir, name), flags: MNT_DETACH });
  return b.finish();
}
