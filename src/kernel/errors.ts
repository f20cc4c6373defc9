import { defineError } from '#base/errors.ts';

/** A name that no table of the kernel has: a capability, a signal, a resource limit, a namespace. */
export const UnknownKernelName = defineError(
  'UNKNOWN_KERNEL_NAME',
  (d: { kind: string; name: string; hint?: string }) => ({
    message: `${JSON.stringify(d.name)} is not a ${d.kind}`,
    ...(d.hint === undefined ? {} : { hint: d.hint }),
  }),
);

/** A mount option list that contradicts itself or that the kernel cannot carry out. */
export const BadMountOption = defineError('BAD_MOUNT_OPTION', (d: { option: string; rule: string }) => ({
  message: `mount option ${JSON.stringify(d.option)} ${d.rule}`,
}));

/** `linux.seccomp` breaks a rule. `path` is JSON path, as `$.linux.seccomp.syscalls[2].args[0].op`. */
export const BadSeccompProfile = defineError(
  'BAD_SECCOMP_PROFILE',
  (d: { path: string; value?: unknown; rule: string; hint?: string }) => ({
    message: `${d.path}: ${d.value === undefined ? '' : `${printable(d.value)} `}${d.rule}`,
    ...(d.hint === undefined ? {} : { hint: d.hint }),
  }),
);

function printable(value: unknown): string {
  return typeof value === 'bigint' ? value.toString() : (JSON.stringify(value) ?? String(value));
}

/** A resource was asked for that this host's cgroups cannot limit. `path` as `$.linux.resources.rdma`. */
export const CgroupWishUnmet = defineError('CGROUP_WISH_UNMET', (d: { path: string; rule: string; hint?: string }) => ({
  message: `${d.path}: ${d.rule}`,
  ...(d.hint === undefined ? {} : { hint: d.hint }),
}));

export const BadCgroupsPath = defineError('BAD_CGROUPS_PATH', (d: { path: string; rule: string }) => ({
  message: `$.linux.cgroupsPath: ${JSON.stringify(d.path)} ${d.rule}`,
}));

/** A cgroup that is there already and must not be used: what is in it would share the container's fate. */
export const CgroupUnfit = defineError('CGROUP_UNFIT', (d: { dir: string; rule: string; hint: string }) => ({
  message: `${d.rule} (${d.dir})`,
  hint: d.hint,
}));
