import { defineError, describeChain } from '#base/errors.ts';

export const NoSuchContainer = defineError('NO_SUCH_CONTAINER', (d: { name: string }) => ({
  message: `No such container: ${d.name}`,
}));

export const AmbiguousId = defineError('AMBIGUOUS_ID', (d: { prefix: string; ids: string[] }) => ({
  message: `multiple IDs found with provided prefix: ${d.prefix}`,
  hint: `it could be ${d.ids.map((id) => id.slice(0, 12)).join(' or ')}; give more digits`,
}));

export const NameTaken = defineError('NAME_TAKEN', (d: { name: string; holder: string }) => ({
  message: `Conflict. The container name "/${d.name}" is already in use by container "${d.holder}". You have to remove (or rename) that container to be able to reuse that name.`,
}));

export const BadName = defineError('INVALID_ARGUMENT', (d: { name: string }) => ({
  message: `Invalid container name (${d.name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
}));

/** Nothing to do: Docker answers 304. */
export const AlreadyThere = defineError('NOT_MODIFIED', (d: { id: string; phase: string }) => ({
  message: `container ${d.id} is ${d.phase} already`,
}));

/** The container's phase does not allow what was asked. */
export const WrongPhase = defineError('WRONG_PHASE', (d: { message: string; hint?: string }) => ({
  message: d.message,
  ...(d.hint ? { hint: d.hint } : {}),
}));

export const BadSignal = defineError('INVALID_ARGUMENT', (d: { signal: string }) => ({
  message: `invalid signal: ${d.signal}`,
}));

export const BadMount = defineError('INVALID_ARGUMENT', (d: { type: string; rule: string }) => ({
  message: `invalid mount config for type "${d.type}": ${d.rule}`,
}));

export const LogUnreadable = defineError('LOG_UNREADABLE', (d: { path: string }) => ({
  message: `the packed log file ${d.path} is damaged`,
  hint: 'move it away, and the others are read',
}));

export const NoSuchSandbox = defineError('NO_SUCH_SANDBOX', (d: { id: string }) => ({
  message: `sandbox ${d.id} is not here`,
  hint: 'a boot takes sandboxes away; whoever owns it makes it again',
}));

/** Docker's very words: tools compare them. */
export const NoSuchLogDriver = defineError('INVALID_ARGUMENT', (d: { driver: string }) => ({
  message: `logger: no log driver named '${d.driver}' is registered`,
}));

/** Docker's very words, and what there is. */
export const NoSuchRuntime = defineError('INVALID_ARGUMENT', (d: { runtime: string; known: readonly string[] }) => ({
  message: `unknown or invalid runtime name: ${d.runtime}`,
  hint: `there is ${d.known.join(', ')}; name others to the daemon with --add-runtime NAME=PATH`,
}));

/** Another runtime would take the wish and leave it undone. */
export const ForeignCannot = defineError('INVALID_ARGUMENT', (d: { runtime: string; what: string }) => ({
  message: `${d.what} is not for runtime ${d.runtime}`,
  hint: 'the engine’s own runtime does it: leave --runtime away, or leave this away',
}));

/** A command of another runtime's failed; the words are the runtime's. */
export const RuntimeFailed = defineError('RUNTIME_FAILED', (d: { runtime: string; verb: string; says: string }) => ({
  message: `OCI runtime ${d.verb} failed: ${d.says} (runtime ${d.runtime})`,
}));

/** As a shell would say it: 127 not found, 126 found and not runnable, 128 for all else. */
export function exitCodeOf(error: unknown): number {
  const text = describeChain(error);
  if (/not found|no such file or directory/i.test(text)) return 127;
  return /permission denied/i.test(text) ? 126 : 128;
}
