import { defineError } from '#base/errors.ts';

export const VolumeNotFound = defineError('VOLUME_NOT_FOUND', (d: { name: string }) => ({
  message: `get ${d.name}: no such volume`,
}));

export const VolumeInUse = defineError('VOLUME_IN_USE', (d: { name: string; users: readonly string[] }) => ({
  message: `remove ${d.name}: volume is in use - [${d.users.join(', ')}]`,
}));

export const BadVolumeName = defineError('BAD_VOLUME_NAME', (d: { name: string; rule: string }) => ({
  message: `create ${d.name}: ${d.rule}`,
}));

export const BadVolumeOption = defineError(
  'BAD_VOLUME_OPTION',
  (d: { name: string; option: string; rule: string }) => ({
    message: `create ${d.name}: ${d.rule}: "${d.option}"`,
  }),
);

export const VolumeDriverNotFound = defineError('VOLUME_DRIVER_NOT_FOUND', (d: { name: string; driver: string }) => ({
  message: `create ${d.name}: error looking up volume plugin ${d.driver}: plugin "${d.driver}" not found`,
  hint: 'the driver here is local; its options make tmpfs, bind, nfs, cifs and sized volumes',
}));

/** The kernel, or the file system, refused to mount what the options name. */
export const VolumeMountFailed = defineError(
  'VOLUME_MOUNT_FAILED',
  (d: { name: string; type: string; device: string; reason: string; hint?: string }) => ({
    message: `failed to mount local volume ${d.name}: mount -t ${d.type} ${d.device}: ${d.reason}`,
    ...(d.hint === undefined ? {} : { hint: d.hint }),
  }),
);

/** A sub-path that is not there, is no directory or file, or leads out of its volume. */
export const BadSubpath = defineError('BAD_SUBPATH', (d: { volume: string; subpath: string; rule: string }) => ({
  message: `volume ${d.volume}: sub-path ${JSON.stringify(d.subpath)} ${d.rule}`,
}));
