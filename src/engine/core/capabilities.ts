import { defineError } from '#base/errors.ts';
import { CAPABILITIES } from '#kernel/linux/names.ts';

/** What Docker gives a container that asks for nothing. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

export const NoSuchCapability = defineError('NO_SUCH_CAPABILITY', (d: { name: string }) => ({
  message: `invalid CapAdd or CapDrop: unknown capability: "${d.name}"`,
  hint: 'names are as in capabilities(7), with or without CAP_',
}));

/**
 * `--cap-add`, `--cap-drop` and `--privileged` → the bounding set. Drop comes before add, so `--cap-drop ALL --cap-add X` is X
 * alone; "all" is what this machine's own bounding set holds, since nobody can give what he lacks.
 */
export function containerCapabilities(
  wish: { privileged: boolean; capAdd: readonly string[]; capDrop: readonly string[] },
  hostBounding: readonly string[],
): string[] {
  const add = wish.capAdd.map(normalize);
  const drop = wish.capDrop.map(normalize);
  if (wish.privileged) return [...hostBounding];
  const start = drop.includes('ALL') ? [] : add.includes('ALL') ? hostBounding : DEFAULT_CAPABILITIES;
  const kept = start.filter((name) => !drop.includes(name));
  const added = add.includes('ALL') && drop.includes('ALL') ? hostBounding : add.filter((name) => name !== 'ALL');
  return [...new Set([...kept, ...added])].filter((name) => !(add.includes('ALL') && drop.includes(name)));
}

function normalize(name: string): string {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return upper;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!CAPABILITIES().includes(full)) throw new NoSuchCapability({ name });
  return full;
}
