import { describe, expect, it } from 'vitest';
import { hybridHost, v2Host } from '#kernel/cgroup/hosts.ts';
import { diagnose, renderDiagnosis } from '#kernel/doctor.ts';
import { hostFiles } from '#kernel/files.ts';
import type { HostFacts } from '#kernel/host-facts.ts';
import { readHostFacts } from '#kernel/host-facts.ts';

const GOOD: HostFacts = {
  kernelRelease: '6.12.0',
  nodeArch: 'x64',
  nodeVersion: 'v24.0.0',
  uid: 0,
  capabilities: (1n << 41n) - 1n,
  noNewPrivs: false,
  cgroups: v2Host().layout,
  namespaces: ['user', 'ipc', 'uts', 'net', 'pid', 'cgroup', 'time', 'mnt'],
  namespaceLimits: { max_user_namespaces: 1000 },
  fileSystems: ['overlay', 'tmpfs', 'proc', 'sysfs', 'devpts', 'mqueue', 'erofs'],
  seccompActions: ['kill_process', 'user_notif', 'errno', 'allow'],
  lsm: 'capability,landlock,apparmor',
  apparmor: true,
  selinux: false,
  pressure: true,
  swapAccounting: true,
  ipForward: { v4: true, v6: true },
  inotifyInstances: 8192,
  openFiles: 1_048_576,
  nftables: true,
  tools: { newuidmap: true, newgidmap: true, mmdebstrap: true, busybox: true },
  subordinateIds: true,
  dataRoot: { path: '/var/lib/estiba', freeBytes: 2 ** 40, freeFiles: 10 ** 7 },
};

const line = (facts: Partial<HostFacts>, what: string) =>
  diagnose({ ...GOOD, ...facts }).findings.find((finding) => finding.what === what);

describe('estiba doctor', () => {
  it('finds nothing on a machine that has everything', () => {
    const diagnosis = diagnose(GOOD);
    expect(diagnosis.findings.filter((f) => f.verdict !== 'good')).toEqual([]);
    expect(diagnosis.usable).toBe(true);
  });

  it('gives every line that is not good a fix', () => {
    const bare: HostFacts = {
      ...GOOD,
      kernelRelease: '4.19.0',
      nodeArch: 'mips',
      nodeVersion: 'v18.0.0',
      capabilities: 0n,
      cgroups: { kind: 'none', hierarchies: [] },
      namespaces: [],
      fileSystems: [],
      seccompActions: [],
      apparmor: false,
      pressure: false,
      swapAccounting: false,
      ipForward: { v4: false, v6: false },
      inotifyInstances: 128,
      openFiles: 1024,
      nftables: false,
      tools: {},
      dataRoot: { path: '/d', freeBytes: 0, freeFiles: 0 },
    };
    const { usable, findings } = diagnose(bare);
    expect(usable).toBe(false);
    expect(findings.filter((f) => f.verdict !== 'good' && !f.fix)).toEqual([]);
    expect(findings.filter((f) => f.verdict === 'good').map((f) => f.what)).toEqual(['subordinate ids']);
  });

  it('tells what follows from what is found', () => {
    expect(line({ kernelRelease: '5.10.0' }, 'mount_setattr, idmapped mounts')).toMatchObject({
      verdict: 'missing',
      required: true,
    });
    expect(line({ kernelRelease: '5.15.0' }, 'overlay layers one by one')?.verdict).toBe('degraded');
    expect(line({ cgroups: hybridHost().layout }, 'layout')).toMatchObject({ verdict: 'degraded' });
    expect(line({ cgroups: hybridHost().layout }, 'hugetlb')?.found).toBe('v2, /sys/fs/cgroup/unified');
    expect(line({ namespaceLimits: { max_user_namespaces: 0 } }, 'user')?.fix).toBe(
      'sysctl -w user.max_user_namespaces=15000',
    );
    expect(line({ uid: 1000, unprivilegedUserns: false }, 'user')).toBeDefined();
    expect(line({ capabilities: 1n << 21n }, 'user')?.found).toContain('up to');
    expect(diagnose({ ...GOOD, capabilities: 1n << 21n }).usable).toBe(false);
  });

  it('prints one line a finding, with an arrow to the fix', () => {
    const text = renderDiagnosis(diagnose({ ...GOOD, pressure: false }), 'problems');
    expect(text).toBe(
      'kernel\n' +
        '  degraded  pressure information  not there\n' +
        '                                  → boot with psi=1\n' +
        '\n' +
        `${diagnose(GOOD).findings.length - 1} good, 1 degraded, 0 missing: containers run here\n`,
    );
  });

  it('reads the machine it runs on', () => {
    const facts = readHostFacts({
      files: hostFiles,
      uid: process.getuid?.() ?? 0,
      nodeArch: process.arch,
      nodeVersion: process.version,
      userName: 'root',
      path: process.env['PATH'] ?? '',
    });
    expect(facts.kernelRelease).toMatch(/^\d+\.\d+/);
    expect(facts.cgroups.kind).not.toBe('none');
    expect(facts.namespaces).toContain('mnt');
    expect(facts.fileSystems).toContain('proc');
  });
});
