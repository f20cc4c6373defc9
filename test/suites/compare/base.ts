// The configuration that cases change: what `runc spec` writes, with a program that tells how it finds itself.

export interface Config {
  ociVersion: string;
  process: Record<string, unknown> & { args: string[]; env: string[]; cwd: string };
  root: { path: string; readonly?: boolean };
  hostname?: string;
  mounts: { destination: string; type?: string; source?: string; options?: string[] }[];
  hooks?: Record<string, { path: string; args?: string[]; env?: string[]; timeout?: number }[]>;
  annotations?: Record<string, string>;
  linux: Record<string, unknown> & { namespaces: { type: string; path?: string }[] };
}

const CAPS = ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE', 'CAP_CHOWN', 'CAP_SETUID', 'CAP_SETGID'];

export function base(cgroupsPath: string): Config {
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ['/bin/sh', '/probe'],
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: CAPS, effective: CAPS, permitted: CAPS },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: false },
    hostname: 'case',
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
    ],
    linux: {
      cgroupsPath,
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
      maskedPaths: ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware', '/proc/not-there'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  };
}

/** Tells everything about itself, one `section` after the other, then runs /also when the case brought one. */
export const PROBE = `
section() { echo "== $1"; }
section status; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Umask|NSpid|Cpus_allowed_list):' /proc/self/status
section limits; cat /proc/self/limits
section namespaces; for n in user pid net mnt ipc uts cgroup; do echo $n $(readlink /proc/self/ns/$n); done
section mounts; cat /proc/self/mountinfo
section who; id -u; id -g; hostname; pwd; umask; cat /proc/self/oom_score_adj
section env; env | sort
section links; for f in /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/core /dev/ptmx; do echo $f $(readlink $f); done
section dev; ls -ln /dev | awk '{ print $1, $3, $4, $5, $6, $NF }' | grep '^[bc]'
section domain; cat /proc/sys/kernel/domainname
section maps; cat /proc/self/uid_map /proc/self/gid_map
[ -e /also ] && { section also; . /also; }
exit 0
`;
