import { defineError } from '#base/errors.ts';

/** A container cannot be made from what the cluster says; reason `CreateContainerConfigError`. Tried again: what is missing may come. */
export const BadContainerConfig = defineError('BAD_CONTAINER_CONFIG', (d: { message: string }) => ({
  message: d.message,
}));

/** A volume cannot be made ready yet; reason `FailedMount`. */
export const VolumeNotReady = defineError('VOLUME_NOT_READY', (d: { volume: string; message: string }) => ({
  message: `MountVolume.SetUp failed for volume "${d.volume}" : ${d.message}`,
}));

/** A claim asks for what a directory of the node cannot be. */
export const CannotProvision = defineError('CANNOT_PROVISION', (d: { why: string }) => ({ message: d.why }));

export const NoSuchContainerInPod = defineError('NO_SUCH_POD_CONTAINER', (d: { pod: string; container: string }) => ({
  message: `container "${d.container}" in pod "${d.pod}" is not available`,
}));

export const ContainerNotRunning = defineError('POD_CONTAINER_NOT_RUNNING', (d: { message: string }) => ({
  message: d.message,
}));
