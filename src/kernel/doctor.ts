import { hierarchyOf } from '#kernel/cgroup/layout.ts';
import type { HostFacts, TOOLS } from '#kernel/host-facts.ts';
import { landlockAbi } from '#kernel/landlock.ts';
import { capabilityNames, capabilityNumber } from '#kernel/linux/names.ts';
import { NAMESPACES } from '#kernel/linux/namespaces.ts';
import { archOfNode } from '#kernel/linux/syscalls.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';

// `estiba doctor`: what this machine can do for containers, line by line, each with the fix. `readHostFacts`
// (host-facts.ts) looks, `diagnose` judges: pure, so that machines we have never seen are test data.

export type Verdict = 'good' | 'degraded' | 'missing';

export interface Finding {
  area: 'kernel' | 'cgroups' | 'namespaces' | 'rights' | 'storage' | 'network' | 'security' | 'tools';
  what: string;
  verdict: Verdict;
  /** What was found, and what follows from it. */
  found: string;
  /** What to do about it; absent when good. */
  fix?: string;
  /** Without it no container runs. */
  required?: boolean;
}

export interface Diagnosis {
  /** Nothing that is required is missing. */
  usable: boolean;
  findings: readonly Finding[];
}

export function diagnose(facts: HostFacts): Diagnosis {
  const findings = [
    ...kernelFindings(facts),
    ...cgroupFindings(facts),
    ...namespaceFindings(facts),
    ...rightsFindings(facts),
    ...storageFindings(facts),
    ...networkFindings(facts),
    ...securityFindings(facts),
    ...toolFindings(facts),
  ];
  return { usable: !findings.some((f) => f.required && f.verdict === 'missing'), findings };
}

// -- judging

/** Features by the release of mainline that brought them: what is lost below it. */
const FEATURES: readonly { what: string; since: string; lost: string; required?: boolean }[] = [
  { what: 'pidfd, clone3', since: '5.4', lost: 'processes cannot be named without races', required: true },
  { what: 'openat2', since: '5.6', lost: 'mount targets cannot be kept inside the root file system', required: true },
  { what: 'clone into cgroup', since: '5.7', lost: 'starting on cgroup v2 takes 10 ms longer' },
  { what: 'overlay in user namespaces', since: '5.11', lost: 'rootless containers copy their layers' },
  {
    what: 'mount_setattr, idmapped mounts',
    since: '5.12',
    lost: 'no idmap, no recursive read-only mounts',
    required: true,
  },
  { what: 'cgroup.kill', since: '5.14', lost: 'containers are killed process by process' },
  { what: 'overlay layers one by one', since: '6.8', lost: 'images have at most one page of layer paths' },
];

function kernelFindings(facts: HostFacts): Finding[] {
  const arch = archOfNode(facts.nodeArch);
  const features = FEATURES.map(({ what, since, lost, required }): Finding => {
    const here = kernelAtLeast(facts.kernelRelease, since);
    const base = { area: 'kernel', what, ...(required ? { required } : {}) } as const;
    return here
      ? { ...base, verdict: 'good', found: `Linux ${facts.kernelRelease}, since ${since}` }
      : { ...base, verdict: required ? 'missing' : 'degraded', found: lost, fix: `use Linux ${since} or newer` };
  });
  return [
    arch
      ? { area: 'kernel', what: 'architecture', verdict: 'good', found: arch }
      : {
          area: 'kernel',
          what: 'architecture',
          verdict: 'missing',
          required: true,
          found: `${facts.nodeArch} has no system call table here`,
          fix: 'use x86-64, arm64 or riscv64',
        },
    judge(
      'kernel',
      'Node.js',
      nodeFits(facts.nodeVersion),
      facts.nodeVersion,
      'use Node.js 20.19 or newer',
      'missing',
      true,
    ),
    ...features,
    judge('kernel', 'pressure information', facts.pressure, 'PSI', 'boot with psi=1'),
  ];
}

function nodeFits(version: string): boolean {
  return kernelAtLeast(version.replace(/^v/, ''), '20.19');
}

const WANTED_CONTROLLERS: readonly { name: string; lost: string; serious?: boolean }[] = [
  { name: 'memory', lost: 'memory cannot be limited', serious: true },
  { name: 'cpu', lost: 'CPU time cannot be limited', serious: true },
  { name: 'pids', lost: 'a fork bomb in a container reaches the host', serious: true },
  { name: 'cpuset', lost: 'containers cannot be pinned to CPUs' },
  { name: 'io', lost: 'block I/O cannot be limited' },
  { name: 'hugetlb', lost: 'huge pages cannot be limited' },
  { name: 'rdma', lost: 'RDMA cannot be limited' },
];

function cgroupFindings(facts: HostFacts): Finding[] {
  const { cgroups } = facts;
  const version =
    cgroups.kind === 'v2' ? 'v2' : cgroups.kind === 'hybrid' ? 'v1 with a v2 hierarchy beside it' : cgroups.kind;
  const layout: Finding =
    cgroups.kind === 'none'
      ? {
          area: 'cgroups',
          what: 'layout',
          verdict: 'missing',
          required: true,
          found: 'no cgroup file system is mounted',
          fix: 'mount -t cgroup2 none /sys/fs/cgroup',
        }
      : cgroups.kind === 'v2'
        ? { area: 'cgroups', what: 'layout', verdict: 'good', found: version }
        : {
            area: 'cgroups',
            what: 'layout',
            verdict: 'degraded',
            found: `${version}; limits hold, but nothing can be delegated safely`,
            fix: 'add systemd.unified_cgroup_hierarchy=1 to the kernel’s command line (without systemd: cgroup_no_v1=all), and boot',
          };
  const controllers = WANTED_CONTROLLERS.map(({ name, lost, serious }): Finding => {
    const hierarchy = hierarchyOf(cgroups, name);
    if (hierarchy)
      return { area: 'cgroups', what: name, verdict: 'good', found: `v${hierarchy.version}, ${hierarchy.mount}` };
    return {
      area: 'cgroups',
      what: name,
      verdict: serious ? 'missing' : 'degraded',
      found: lost,
      fix: `add cgroup_enable=${name} to the kernel’s command line, or use a kernel that has it`,
    };
  });
  const devicesByV2 = cgroups.hierarchies.some((h) => h.version === 2);
  const devices = hierarchyOf(cgroups, 'devices') !== undefined || devicesByV2;
  return [
    layout,
    ...controllers,
    judge('cgroups', 'devices', devices, 'v1 list or eBPF on v2', 'mount cgroup2', 'missing'),
    judge('cgroups', 'swap', facts.swapAccounting, 'swap is accounted', 'boot with swapaccount=1'),
  ];
}

function namespaceFindings(facts: HostFacts): Finding[] {
  return NAMESPACES.map(({ type, proc, limit }): Finding => {
    const base = { area: 'namespaces', what: type } as const;
    const required = !['user', 'time', 'cgroup'].includes(type);
    if (!facts.namespaces.includes(proc))
      return {
        ...base,
        ...(required ? { required } : {}),
        verdict: required ? 'missing' : 'degraded',
        found: 'not in this kernel',
        fix: `use a kernel with CONFIG_${type.toUpperCase()}_NS`,
      };
    const most = facts.namespaceLimits[limit];
    if (most === 0)
      return { ...base, required, verdict: 'missing', found: 'none may be made', fix: `sysctl -w user.${limit}=15000` };
    if (type === 'user' && facts.unprivilegedUserns === false && facts.uid !== 0)
      return {
        ...base,
        verdict: 'missing',
        required: true,
        found: 'only root may make them',
        fix: 'sysctl -w kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0',
      };
    return { ...base, verdict: 'good', found: most === undefined ? 'there' : `up to ${most} a user` };
  });
}

const NEEDED_CAPABILITIES = ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_SETUID', 'CAP_SETGID', 'CAP_MKNOD', 'CAP_CHOWN'];
const MANY_OPEN_FILES = 65_536;

function rightsFindings(facts: HostFacts): Finding[] {
  const has = (name: string): boolean => ((facts.capabilities >> BigInt(capabilityNumber(name))) & 1n) === 1n;
  const lacking = NEEDED_CAPABILITIES.filter((name) => !has(name));
  const count = capabilityNames(facts.capabilities).length;
  const root: Finding =
    facts.uid !== 0
      ? {
          area: 'rights',
          what: 'user',
          verdict: 'degraded',
          found: `uid ${facts.uid}: estiba-oci runs containers, without bridge networks and most limits; estiba daemon does not start`,
          fix: 'run as root for all functions',
        }
      : lacking.length === 0
        ? { area: 'rights', what: 'user', verdict: 'good', found: `root with ${count} capabilities` }
        : {
            area: 'rights',
            what: 'user',
            verdict: 'missing',
            required: true,
            found: `root without ${lacking.join(', ')}`,
            fix: 'start outside of a container, or give it these capabilities',
          };
  return [
    root,
    judge(
      'rights',
      'raising limits',
      has('CAP_SYS_RESOURCE'),
      'CAP_SYS_RESOURCE',
      'hard limits cannot be raised nor oom_score_adj lowered without CAP_SYS_RESOURCE: give it to what starts the daemon',
    ),
    judge(
      'rights',
      'open files',
      (facts.openFiles ?? Number.POSITIVE_INFINITY) >= MANY_OPEN_FILES,
      `${facts.openFiles ?? 'no limit'}`,
      `each container holds a handful: ulimit -n ${MANY_OPEN_FILES} before estiba daemon (the packaged unit asks for more)`,
      'degraded',
      false,
      `${facts.openFiles}`,
    ),
    judge(
      'rights',
      'subordinate ids',
      facts.subordinateIds || facts.uid === 0,
      facts.uid === 0 ? 'not needed by root' : 'in /etc/subuid and /etc/subgid',
      'add a line for this user to /etc/subuid and /etc/subgid (usermod --add-subuids)',
    ),
    judge(
      'rights',
      'inotify instances',
      (facts.inotifyInstances ?? 0) >= 512,
      `${facts.inotifyInstances}`,
      'sysctl -w fs.inotify.max_user_instances=8192',
      'degraded',
      false,
      `${facts.inotifyInstances ?? 'unknown'}`,
    ),
  ];
}

const LITTLE_DISK = 2 ** 30;
const FEW_FILES = 100_000;

function storageFindings(facts: HostFacts): Finding[] {
  const knows = (name: string): boolean => facts.fileSystems.includes(name);
  const needed = ['overlay', 'tmpfs', 'proc', 'sysfs', 'devpts', 'mqueue'].map((name) =>
    judge('storage', name, knows(name), 'known to the kernel', `modprobe ${name}`, 'missing', name !== 'mqueue'),
  );
  const disk = facts.dataRoot;
  const room = disk && disk.freeBytes >= LITTLE_DISK && (disk.freeFiles ?? FEW_FILES) >= FEW_FILES;
  const free =
    disk &&
    `${(disk.freeBytes / 2 ** 30).toFixed(1)} GiB and ${disk.freeFiles ?? 'any number of'} files free at ${disk.path}`;
  return [
    ...needed,
    judge('storage', 'erofs', knows('erofs'), 'layers can be mounted as they are', 'modprobe erofs'),
    ...(free === undefined
      ? []
      : [
          judge(
            'storage',
            'room',
            room === true,
            free,
            'make room, or choose another --data-root',
            'degraded',
            false,
            free,
          ),
        ]),
  ];
}

function networkFindings(facts: HostFacts): Finding[] {
  return [
    ...(facts.nftables === undefined
      ? []
      : [judge('network', 'nftables', facts.nftables, 'answers', 'modprobe nf_tables', 'missing')]),
    judge(
      'network',
      'forwarding',
      facts.ipForward.v4,
      'on for IPv4',
      'sysctl -w net.ipv4.ip_forward=1 (the daemon does it)',
      'degraded',
      false,
      'off',
    ),
    judge(
      'network',
      'forwarding IPv6',
      facts.ipForward.v6,
      'on',
      'sysctl -w net.ipv6.conf.all.forwarding=1 (the daemon does it)',
      'degraded',
      false,
      'off',
    ),
  ];
}

function securityFindings(facts: HostFacts): Finding[] {
  const abi = landlockAbi(facts.kernelRelease, facts.lsm);
  return [
    judge(
      'security',
      'seccomp',
      facts.seccompActions.includes('errno'),
      facts.seccompActions.join(' '),
      'use a kernel with CONFIG_SECCOMP_FILTER',
      'missing',
      true,
    ),
    judge(
      'security',
      'seccomp notify',
      facts.seccompActions.includes('user_notif'),
      'calls can be answered by a program',
      'use Linux 5.0 or newer',
    ),
    judge('security', 'Landlock', abi > 0, `ABI ${abi}`, 'boot with lsm=landlock,… (Linux 5.13)'),
    judge(
      'security',
      'AppArmor or SELinux',
      facts.apparmor || facts.selinux,
      facts.apparmor ? 'AppArmor' : 'SELinux',
      'a label that a container asks for is an error here; boot with one of them',
    ),
  ];
}

const TOOL_ADVICE: readonly { name: (typeof TOOLS)[number]; lost: string; fix: string }[] = [
  { name: 'newuidmap', lost: 'rootless containers have a single id', fix: 'apt install uidmap' },
  { name: 'newgidmap', lost: 'rootless containers have a single id', fix: 'apt install uidmap' },
  { name: 'mmdebstrap', lost: 'the image debian needs a registry', fix: 'apt install mmdebstrap' },
  { name: 'busybox', lost: 'the image busybox needs a registry', fix: 'apt install busybox-static' },
];

function toolFindings(facts: HostFacts): Finding[] {
  return TOOL_ADVICE.map(({ name, lost, fix }): Finding => {
    if (facts.tools[name]) return { area: 'tools', what: name, verdict: 'good', found: 'in PATH' };
    return { area: 'tools', what: name, verdict: 'degraded', found: lost, fix };
  });
}

function judge(
  area: Finding['area'],
  what: string,
  good: boolean,
  found: string,
  fix: string,
  bad: 'degraded' | 'missing' = 'degraded',
  required = false,
  lost = 'not there',
): Finding {
  const base = { area, what, ...(required ? { required } : {}) };
  return good ? { ...base, verdict: 'good', found } : { ...base, verdict: bad, found: lost, fix };
}

// -- showing

const MARKS: Readonly<Record<Verdict, string>> = { good: 'good    ', degraded: 'degraded', missing: 'MISSING ' };

/** A line a finding; fixes below what needs one. `only`: all findings, or those with something to do. */
export function renderDiagnosis(diagnosis: Diagnosis, only: 'all' | 'problems' = 'all'): string {
  const shown = diagnosis.findings.filter((f) => only === 'all' || f.verdict !== 'good');
  const width = Math.max(0, ...shown.map((f) => f.what.length));
  const lines = shown.flatMap((finding, i) => [
    ...(shown[i - 1]?.area === finding.area ? [] : [`${i === 0 ? '' : '\n'}${finding.area}`]),
    `  ${MARKS[finding.verdict]}  ${finding.what.padEnd(width)}  ${finding.found}`,
    ...(finding.fix === undefined ? [] : [`            ${''.padEnd(width)}  → ${finding.fix}`]),
  ]);
  const count = (verdict: Verdict): number => diagnosis.findings.filter((f) => f.verdict === verdict).length;
  const summary = `${count('good')} good, ${count('degraded')} degraded, ${count('missing')} missing`;
  const end = diagnosis.usable ? 'containers run here' : 'containers do not run here before what is MISSING is fixed';
  return `${lines.join('\n')}\n\n${summary}: ${end}\n`;
}
