import { existsSync, writeFileSync } from 'node:fs';
import { posix } from 'node:path';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { isOn, text } from '#runtime/cli/flags.ts';
import { CommandFailed } from '#runtime/cli/plans.ts';
import type { OciConfig, OciMount } from '#spec/oci/config.ts';
import { OCI_VERSION } from '#spec/oci/config.ts';

const CAPABILITIES = ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'];
const NOFILE = 1024;

/** A config.json to start from: a shell on a terminal, in namespaces of its own, with few rights. */
export async function spec(c: Command): Promise<Outcome> {
  const path = posix.resolve(c.cwd, text(c.flags, 'bundle') ?? '.', 'config.json');
  if (existsSync(path)) throw new CommandFailed({ message: `File config.json exists. Remove it first (${path})` });
  const config = isOn(c.flags, 'rootless') ? rootless(exampleConfig(), c.uid, c.gid) : exampleConfig();
  writeFileSync(path, `${JSON.stringify(config, null, '\t')}\n`, { mode: 0o666, flag: 'wx' });
  return 0;
}

export function exampleConfig(): OciConfig {
  return {
    ociVersion: OCI_VERSION,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ['sh'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: NOFILE, soft: NOFILE }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: true },
    hostname: 'runc',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
      },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      {
        destination: '/sys/fs/cgroup',
        type: 'cgroup',
        source: 'cgroup',
        options: ['nosuid', 'noexec', 'nodev', 'relatime', 'ro'],
      },
    ],
    linux: {
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: [
        { type: 'pid' },
        { type: 'network' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        // On v1 the cgroup mount below shows the container its own place by bind mounts; a namespace is a choice there.
        ...(existsSync('/sys/fs/cgroup/cgroup.controllers') ? [{ type: 'cgroup' as const }] : []),
      ],
      maskedPaths: [
        '/proc/acpi',
        '/proc/asound',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/timer_list',
        '/proc/timer_stats',
        '/proc/sched_debug',
        '/sys/firmware',
        '/proc/scsi',
      ],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  };
}

/** Without root: one id of one's own, the host's network and its /sys bound, no limits, no group 5 for terminals. */
function rootless(config: OciConfig, uid: number, gid: number): OciConfig {
  const { resources: _, ...linux } = config.linux ?? {};
  const namespaces = (linux.namespaces ?? []).filter((ns) => ns.type !== 'network');
  const sys: OciMount = {
    source: '/sys',
    destination: '/sys',
    type: 'none',
    options: ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'],
  };
  return {
    ...config,
    mounts: (config.mounts ?? [])
      .filter((mount) => mount.destination !== '/sys/fs/cgroup')
      .map((mount) => (mount.destination === '/sys' ? sys : withoutGroups(mount))),
    linux: {
      ...linux,
      namespaces: [...namespaces, { type: 'user' }],
      uidMappings: [{ containerID: 0, hostID: uid, size: 1 }],
      gidMappings: [{ containerID: 0, hostID: gid, size: 1 }],
    },
  };
}

function withoutGroups(mount: OciMount): OciMount {
  return mount.options === undefined
    ? mount
    : { ...mount, options: mount.options.filter((o) => !o.startsWith('gid=') && !o.startsWith('uid=')) };
}
