import { defineError } from '#base/errors.ts';

/** The configuration is sound, but this machine, or this combination with it, cannot carry it out. */
export const Unsupported = defineError('UNSUPPORTED', (d: { path: string; what: string; hint?: string }) => ({
  message: `${d.path}: ${d.what}`,
  ...(d.hint === undefined ? {} : { hint: d.hint }),
}));

export const BadContainerId = defineError('BAD_CONTAINER_ID', (d: { id: string; rule: string }) => ({
  message: `invalid container ID format: ${JSON.stringify(d.id)} ${d.rule}`,
}));

export const ContainerExists = defineError('CONTAINER_EXISTS', (d: { id: string }) => ({
  message: `container with given ID already exists: ${d.id}`,
  hint: 'choose another id, or delete that container',
}));

export const ContainerNotFound = defineError('CONTAINER_NOT_FOUND', (d: { id: string }) => ({
  message: `container ${JSON.stringify(d.id)} does not exist`,
}));

/** The state of a container forbids what was asked. */
export const WrongState = defineError('WRONG_STATE', (d: { id: string; message: string }) => ({ message: d.message }));

export const BundleUnreadable = defineError('BUNDLE_UNREADABLE', (d: { path: string; errno: string }) => ({
  message: `${d.path}: ${d.errno}`,
  hint: 'a bundle is a directory with config.json and a root file system; see --bundle',
}));

export const StateUnreadable = defineError('STATE_UNREADABLE', (d: { path: string; why: string }) => ({
  message: `the container's state cannot be read: ${d.path}: ${d.why}`,
  hint: 'delete --force removes what is left of the container',
}));

export const Locked = defineError('CONTAINER_LOCKED', (d: { id: string; pid: number }) => ({
  message: `container ${d.id} is being changed by process ${d.pid}`,
  hint: 'try again when that command has ended',
}));

export const BadExecCgroup = defineError('BAD_EXEC_CGROUP', (d: { message: string }) => ({
  message: d.message,
  hint: '--cgroup takes PATH or CONTROLLER[,CONTROLLER]:PATH below the container’s cgroup',
}));
