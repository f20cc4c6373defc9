import type { ContainerSpec, MountSpec, NamespaceMode, NetworkSpec } from '#engine/core/spec.ts';

// What the forms of `show` have in common.

/** A form, and what it has no words for: each wish is in the one or in the other. */
export interface Unsaid {
  unsaid: string[];
  /** Words that are there and that engines of others refuse. */
  ours: string[];
}

export const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;
/** Networks that a container has without joining one: no Compose file can name them, and no alias stands in them. */
export const DEFAULT_NETWORK = 'bridge';

export function when(is: boolean, words: string): string[] {
  return is ? [words] : [];
}

/** Without what was not asked for: absent, empty lists and empty maps. */
export function compact(object: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => {
      if (value === undefined || value === null || value === '') return false;
      if (Array.isArray(value)) return value.length > 0;
      return typeof value !== 'object' || Object.keys(value).length > 0;
    }),
  );
}

/** As a shell takes it for one word. */
export function quoted(word: string): string {
  return /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** `[[IP:]HOST:]PORT[/PROTOCOL]`, as `--publish` and Compose's `ports` read it. */
export function published({ hostIp, hostPort }: { hostIp: string; hostPort: string }, port: string): string {
  const ip = hostIp.includes(':') ? `[${hostIp}]:` : hostIp === '' ? '' : `${hostIp}:`;
  return `${ip}${hostPort}${ip !== '' || hostPort !== '' ? ':' : ''}${port.replace(/\/tcp$/, '')}`;
}

/** As Docker's API writes a namespace; undefined for its own, and for a pod's, which has no name there. */
export function namespaceWord(mode: NamespaceMode | { kind: 'none' | 'shareable' }): string | undefined {
  switch (mode.kind) {
    case 'private':
    case 'sandbox':
      return undefined;
    case 'container':
      return `container:${mode.id}`;
    default:
      return mode.kind;
  }
}

/** `private` and `private:FIRST:COUNT` are words of ours. */
export function userWord(user: ContainerSpec['namespaces']['user']): string | undefined {
  if (user.kind === 'host') return undefined;
  const [range] = user.mappings;
  return range && isOneRange(user.mappings) ? `private:${range.hostId}:${range.size}` : 'private';
}

function isOneRange(mappings: readonly { containerId: number }[]): boolean {
  return mappings.length === 1 && mappings[0]?.containerId === 0;
}

/** Docker's `systempaths=unconfined` says both. */
export function hasPlainPaths({ maskedPaths, readonlyPaths }: ContainerSpec['security']): boolean {
  return maskedPaths?.length === 0 && readonlyPaths?.length === 0;
}

/** Paths of its own choice, for which no form has a word. */
export function hasOwnPaths(security: ContainerSpec['security']): boolean {
  return (security.maskedPaths !== undefined || security.readonlyPaths !== undefined) && !hasPlainPaths(security);
}

/** Links in its main network, where the form has one list for all: of the default one those old ones that give variables, too. */
export function linksOf({ endpoints, links }: NetworkSpec): string[] {
  const [main] = endpoints;
  return main === undefined || main.network === DEFAULT_NETWORK ? links : main.links;
}

/** Variables with a value; one without takes the image's away, but said to a client it is the client's own. */
export function variables({ env }: ContainerSpec['process']): string[] {
  return env.filter((entry) => entry.includes('='));
}

/** Wishes for which Docker's API or our own front ends have words, but neither `docker run` nor Compose. */
export function unsaidOfDocker({ process, namespaces, resources, security, network, mounts }: ContainerSpec): string[] {
  const { user, timeOffsets, network: net, pid, ipc, uts, cgroup } = namespaces;
  const removed = process.env.filter((entry) => !entry.includes('='));
  const shared = Object.entries({ network: net, PID: pid, IPC: ipc, UTS: uts, cgroup }).flatMap(([name, { kind }]) =>
    when(kind === 'sandbox', name),
  );
  const strayLinks = network.endpoints.filter((e, i) => e.links.length > 0 && (i > 0 || e.network === DEFAULT_NETWORK));
  return [
    ...when(removed.length > 0, `${removed.join(', ')} taken away: whoever asks would hand on a variable of that name`),
    ...when(process.shell !== undefined, 'the shell of its health checks'),
    ...when(shared.length > 0, `the ${shared.join(', ')} namespace of its pod`),
    ...when(user.kind === 'private' && user.mappings.length > 0 && !isOneRange(user.mappings), 'mappings of users'),
    ...when(timeOffsets !== undefined, 'offsets of clocks'),
    ...when(resources.hugepages.length > 0, 'huge pages'),
    ...when(typeof security.seccomp === 'object', 'its own seccomp profile: it is a file of whoever asks'),
    ...when(hasOwnPaths(security), 'masked and read-only paths'),
    ...strayLinks.map((e) => `links in the network ${e.network}`),
    ...mounts.flatMap((m) => when(isForced(m), `the volume at ${m.target} read-only in a way of its own`)),
  ];
}

/** In a volume nothing is mounted as a rule; what was asked for is another way all the same. */
function isForced({ type, readonly }: MountSpec): boolean {
  return type === 'volume' && (readonly === 'force-recursive' || readonly === 'top');
}
