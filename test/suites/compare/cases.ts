import type { Config } from './base.ts';

export interface Case {
  name: string;
  /** Changes the base configuration. */
  change: (config: Config) => void;
  /** Lines of shell the probe runs last. */
  also?: string;
  /** Files of the root file system, besides the common ones. */
  files?: Record<string, string>;
  /** Directories of the host, made in the bundle. */
  host?: Record<string, string>;
}

const set = (name: string, change: (config: Config) => void, more: Omit<Case, 'name' | 'change'> = {}): Case => ({
  name,
  change,
  ...more,
});
const mount = (c: Config, destination: string, type: string, source: string, options: string[]): void => {
  c.mounts.push({ destination, type, source, options });
};
const resources = (c: Config, more: object): void => {
  Object.assign(c.linux['resources'] as object, more);
};
const namespaces = (c: Config, ...without: string[]): void => {
  c.linux.namespaces = c.linux.namespaces.filter((ns) => !without.includes(ns.type));
};
const sh = (c: Config, script: string): void => {
  c.process.args = ['/bin/sh', '-c', script];
};
const MIB = 2 ** 20;
const CAPS = ['CAP_CHOWN', 'CAP_KILL', 'CAP_NET_RAW'];

export const CASES: readonly Case[] = [
  set('the default', () => undefined),
  set('new privileges allowed', (c) => {
    c.process['noNewPrivileges'] = false;
  }),
  set('no capabilities', (c) => {
    c.process['capabilities'] = {};
  }),
  set('all five capability sets', (c) => {
    c.process['capabilities'] = {
      bounding: CAPS,
      effective: CAPS,
      permitted: CAPS,
      inheritable: CAPS,
      ambient: ['CAP_KILL'],
    };
  }),
  set('ambient capabilities of a user', (c) => {
    c.process['user'] = { uid: 1000, gid: 1000 };
    c.process['capabilities'] = { bounding: CAPS, effective: CAPS, permitted: CAPS, inheritable: CAPS, ambient: CAPS };
  }),
  set('a user without capabilities of its own', (c) => {
    c.process['user'] = { uid: 65534, gid: 65534 };
  }),
  set('a user with groups', (c) => {
    c.process['user'] = { uid: 1000, gid: 100, additionalGids: [5, 29, 1000] };
  }),
  set('a umask', (c) => {
    c.process['user'] = { uid: 0, gid: 0, umask: 0o77 };
  }),
  set('resource limits', (c) => {
    c.process['rlimits'] = [
      { type: 'RLIMIT_NOFILE', soft: 100, hard: 200 },
      { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      { type: 'RLIMIT_STACK', soft: 8 * MIB, hard: 16 * MIB },
      { type: 'RLIMIT_NPROC', soft: 64, hard: 128 },
    ];
  }),
  set('an environment and a working directory', (c) => {
    c.process.env = ['PATH=/bin', 'A=1', 'EMPTY=', 'SPACE=a b', 'A=2'];
    c.process.cwd = '/tmp';
  }),
  set('a working directory that is not there', (c) => {
    c.process.cwd = '/made/for/this';
  }),
  set('an exit code', (c) => sh(c, 'exit 42')),
  set('a signal', (c) => sh(c, 'kill -9 $$')),
  set('a program from PATH', (c) => {
    c.process.args = ['echo', 'found'];
  }),
  set('a program that is not there', (c) => {
    c.process.args = ['/bin/nothing'];
  }),
  set('a program that may not be run', (c) => {
    c.process.args = ['/etc/passwd'];
  }),
  set(
    'seccomp that refuses a call',
    (c) => {
      c.linux['seccomp'] = {
        defaultAction: 'SCMP_ACT_ALLOW',
        architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
        syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 95 }],
      };
    },
    { also: 'mkdir /tmp/x 2>&1; ls -d /tmp/x 2>&1' },
  ),
  set(
    'seccomp by argument',
    (c) => {
      c.linux['seccomp'] = {
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['kill'], action: 'SCMP_ACT_ERRNO', args: [{ index: 1, value: 10, op: 'SCMP_CMP_EQ' }] }],
      };
    },
    { also: 'kill -10 $$ 2>&1; kill -0 $$ && echo zero' },
  ),
  set('seccomp that kills', (c) => {
    sh(c, 'mkdir /tmp/x; echo survived');
    c.linux['seccomp'] = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_KILL_PROCESS' }],
    };
  }),
  set('seccomp under a user with new privileges', (c) => {
    c.process['user'] = { uid: 1000, gid: 1000 };
    c.process['noNewPrivileges'] = false;
    c.linux['seccomp'] = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['chmod'], action: 'SCMP_ACT_ERRNO' }],
    };
  }),
  set(
    'a read-only root',
    (c) => {
      c.root.readonly = true;
    },
    { also: 'touch /x 2>&1' },
  ),
  set(
    'masked and read-only paths',
    (c) => {
      c.linux['maskedPaths'] = ['/etc/secret', '/opt', '/nothing', '/proc/timer_list'];
      c.linux['readonlyPaths'] = ['/tmp', '/etc/hosts', '/nothing'];
    },
    {
      files: { 'etc/secret': 'do not read' },
      also: 'cat /etc/secret; ls /opt | wc -l; touch /tmp/x 2>&1; echo >> /etc/hosts 2>&1',
    },
  ),
  set(
    'a read-only bind mount',
    (c) => mount(c, '/data', 'bind', 'shared', ['bind', 'ro', 'nosuid', 'nodev', 'noexec']),
    {
      host: { 'shared/file': 'text' },
      also: 'cat /data/file; touch /data/x 2>&1',
    },
  ),
  set('a recursive bind mount that is a slave', (c) => mount(c, '/data', 'none', 'shared', ['rbind', 'rslave', 'rw']), {
    host: { 'shared/file': 'text' },
  }),
  set('a bind mount of a file', (c) => mount(c, '/etc/from-host', 'bind', 'shared/file', ['bind', 'ro', 'rprivate']), {
    host: { 'shared/file': 'text' },
    also: 'cat /etc/from-host',
  }),
  set('a tmpfs with options', (c) =>
    mount(c, '/scratch', 'tmpfs', 'tmpfs', ['nosuid', 'noexec', 'size=1m', 'mode=1770', 'uid=7']),
  ),
  set('a tmpfs with what was there', (c) => mount(c, '/opt', 'tmpfs', 'tmpfs', ['tmpcopyup', 'size=1m']), {
    also: 'find /opt | sort',
  }),
  set('a mount target behind a link', (c) => mount(c, '/link/inner', 'tmpfs', 'tmpfs', ['size=64k']), {
    also: 'ls -d /opt/inner',
  }),
  set(
    'the cgroup file system',
    (c) => mount(c, '/sys/fs/cgroup', 'cgroup', 'cgroup', ['nosuid', 'noexec', 'nodev', 'relatime', 'ro']),
    {
      also: 'ls /sys/fs/cgroup',
    },
  ),
  set(
    'limits, seen from inside',
    (c) => {
      mount(c, '/sys/fs/cgroup', 'cgroup', 'cgroup', ['ro']);
      resources(c, {
        memory: { limit: 64 * MIB, swap: 96 * MIB, reservation: 32 * MIB },
        cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: '0' },
        pids: { limit: 50 },
      });
    },
    {
      also: `cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.soft_limit_in_bytes \\
cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus pids/pids.max; do echo $f $(cat $f); done`,
    },
  ),
  set(
    'device rules, seen from inside',
    (c) => {
      mount(c, '/sys/fs/cgroup', 'cgroup', 'cgroup', ['ro']);
      resources(c, {
        devices: [
          { allow: false, access: 'rwm' },
          { allow: true, type: 'c', major: 10, minor: 229, access: 'rw' },
        ],
      });
    },
    { also: 'sort /sys/fs/cgroup/devices/devices.list | grep -v 10:200 # runc 1.1 gave tun to all, 1.2 stopped' },
  ),
  set(
    'device nodes',
    (c) => {
      c.linux['devices'] = [
        { path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 },
        { path: '/dev/mine/loop', type: 'b', major: 7, minor: 0, fileMode: 0o640, uid: 1, gid: 6 },
        { path: '/dev/pipe', type: 'p', fileMode: 0o600 },
      ];
    },
    {
      also: 'ls -ln /dev/mine | tail -n 1 | cut -c 1-40; ls -l /dev/pipe | cut -c 1-10; head -c 1 /dev/mine/loop 2>&1',
    },
  ),
  set('an OOM score', (c) => {
    c.process['oomScoreAdj'] = 300;
  }),
  set(
    'sysctls',
    (c) => {
      c.linux['sysctl'] = {
        'net.ipv4.ip_forward': '1',
        'kernel.shm_rmid_forced': '1',
        'net.ipv4.ping_group_range': '0 5',
      };
    },
    { also: 'cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ping_group_range' },
  ),
  set('the host’s network', (c) => namespaces(c, 'network')),
  set('the host’s processes and IPC', (c) => namespaces(c, 'pid', 'ipc')),
  set('the host’s name', (c) => {
    namespaces(c, 'uts');
    delete c.hostname;
  }),
  set(
    'a cgroup namespace',
    (c) => {
      c.linux.namespaces.push({ type: 'cgroup' });
      mount(c, '/sys/fs/cgroup', 'cgroup', 'cgroup', ['ro']);
    },
    { also: 'grep -v 0:: /proc/self/cgroup' },
  ),
  set('a user namespace', (c) => {
    c.linux.namespaces.push({ type: 'user' });
    c.linux['uidMappings'] = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
    c.linux['gidMappings'] = [{ containerID: 0, hostID: 200_000, size: 65_536 }];
  }),
  set('a shared root', (c) => {
    c.linux['rootfsPropagation'] = 'shared';
  }),
  set('a slave root', (c) => {
    c.linux['rootfsPropagation'] = 'slave';
  }),
  set(
    'hooks',
    (c) => {
      const hook = (name: string) => [{ path: '/bin/sh', args: ['sh', '-c', `echo ${name} >> BUNDLE/hooks.txt`] }];
      c.hooks = Object.fromEntries(
        ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'].map((n) => [
          n,
          hook(n),
        ]),
      );
      // startContainer runs inside: there is no bundle there.
      c.hooks['startContainer'] = [{ path: '/bin/sh', args: ['sh', '-c', 'echo startContainer > /hooked'] }];
    },
    { also: 'cat /hooked' },
  ),
  set('a hook that fails', (c) => {
    c.hooks = { prestart: [{ path: '/bin/false' }] };
  }),
];
