import { ARCH_MAP, DEFAULT_ACTION, DEFAULT_RULES } from '#kernel/seccomp/docker-default.gen.ts';
import type { SeccompProfile, SeccompRule } from '#kernel/seccomp/profile.ts';

/**
 * Docker's form of a profile (`--security-opt seccomp=FILE`, and its default): the OCI form with conditions on who runs it.
 * Podman's and Kubernetes' local profiles have the same form.
 */
export interface ConditionalProfile extends Omit<SeccompProfile, 'syscalls'> {
  archMap?: readonly { architecture: string; subArchitectures?: readonly string[] | null }[];
  syscalls?: readonly ConditionalRule[];
}

export interface ConditionalRule extends SeccompRule {
  /** All must hold. */
  includes?: Filter;
  /** None may hold. */
  excludes?: Filter;
}

export interface Filter {
  /** Capability names, against the container's bounding set. */
  caps?: readonly string[];
  /** Go's names: amd64, arm64, 386, arm, riscv64. */
  arches?: readonly string[];
  /** `4.8`: this kernel or a newer one. */
  minKernel?: string;
}

export interface Machine {
  /** Node's `process.arch`. */
  nodeArch: string;
  /** `uname -r`, such as `6.1.0-18-amd64`. */
  kernelRelease: string;
}

const GO_ARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };
const OCI_ARCH: Readonly<Record<string, string>> = {
  x64: 'SCMP_ARCH_X86_64',
  arm64: 'SCMP_ARCH_AARCH64',
  ia32: 'SCMP_ARCH_X86',
  arm: 'SCMP_ARCH_ARM',
  riscv64: 'SCMP_ARCH_RISCV64',
};

/** Docker's default profile. */
export function dockerDefaultProfile(): ConditionalProfile {
  return {
    ...DEFAULT_ACTION,
    archMap: ARCH_MAP,
    syscalls: DEFAULT_RULES.map(([names, rule]) => ({ names: names.split(/\s+/), ...rule })),
  };
}

/** The profile as it stands for a container with these capabilities (bounding set) on this machine: plain OCI form. */
export function resolveProfile(
  profile: ConditionalProfile,
  capabilities: readonly string[],
  machine: Machine,
): SeccompProfile {
  const { archMap, syscalls = [], ...rest } = profile;
  const own = archMap?.find((entry) => entry.architecture === OCI_ARCH[machine.nodeArch]);
  return {
    ...rest,
    ...(own ? { architectures: [own.architecture, ...(own.subArchitectures ?? [])] } : {}),
    syscalls: syscalls
      .filter(
        (rule) => includes(rule.includes, capabilities, machine) && !excludes(rule.excludes, capabilities, machine),
      )
      .map(({ includes: _in, excludes: _out, ...rule }) => rule),
  };
}

function includes(filter: Filter | undefined, capabilities: readonly string[], machine: Machine): boolean {
  const { caps = [], arches = [], minKernel } = filter ?? {};
  return (
    caps.every((cap) => capabilities.includes(cap)) &&
    (arches.length === 0 || arches.includes(goArch(machine))) &&
    (!minKernel || kernelAtLeast(machine.kernelRelease, minKernel))
  );
}

function excludes(filter: Filter | undefined, capabilities: readonly string[], machine: Machine): boolean {
  const { caps = [], arches = [], minKernel } = filter ?? {};
  return (
    caps.some((cap) => capabilities.includes(cap)) ||
    arches.includes(goArch(machine)) ||
    (!!minKernel && kernelAtLeast(machine.kernelRelease, minKernel))
  );
}

function goArch(machine: Machine): string {
  return GO_ARCH[machine.nodeArch] ?? machine.nodeArch;
}

/** `kernelAtLeast('6.1.0-18-amd64', '5.11')`. */
export function kernelAtLeast(release: string, wanted: string): boolean {
  const numbers = (text: string): number[] => (/^\d+(?:\.\d+)*/.exec(text)?.[0] ?? '').split('.').map(Number);
  const [have, want] = [numbers(release), numbers(wanted)];
  for (let i = 0; i < want.length; i++) {
    const difference = (have[i] ?? 0) - (want[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
