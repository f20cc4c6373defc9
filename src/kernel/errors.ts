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
