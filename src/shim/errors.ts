import { defineError } from '#base/errors.ts';

/** The other side of a socket is gone: the spawner was killed, the shim has ended. */
export const ConnectionLost = defineError('CONNECTION_LOST', (d: { path: string; what: string }) => ({
  message: `${d.path}: ${d.what}`,
}));

/** A shim refused a request: no such process, no terminal, a process table that is full. */
export const ShimRefused = defineError('SHIM_REFUSED', (d: { request: string; errno: string; detail: string }) => ({
  message: `${d.request}: ${[d.errno, d.detail].filter(Boolean).join(', ')}`,
}));

/** The shim was started by an older build, and there is no way to do this with the operations that it has. */
export const ShimTooOld = defineError(
  'SHIM_TOO_OLD',
  (d: { dir: string; request: string; lacks: readonly string[] }) => ({
    message: `${d.request}: the container was started by an older build of Estiba, whose shim in ${d.dir} does not know ${d.lacks.join(', ')}`,
    hint: 'restart the container: it gets a shim of this build',
  }),
);

/** A shim's directory says that it lived, but neither it nor an exit status is there: it was killed, or the machine restarted. */
export const ShimVanished = defineError('SHIM_VANISHED', (d: { dir: string; pid: number | undefined }) => ({
  message: `${d.dir}: the shim is gone and has left no exit status`,
  hint: 'the container ended with it; remove it and create it again',
}));
