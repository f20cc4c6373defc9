import { defineError } from '#base/errors.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';

export interface Overlay {
  /** Read-only layers, the topmost first. */
  lower: readonly string[];
  /** Without both, the mount is read-only. */
  upper?: string;
  work?: string;
  target: string;
  /** `metacopy=on`, `userxattr`, `volatile` …, each `key=value` or a flag. */
  options?: readonly string[];
}

export const OverlayTooLong = defineError(
  'OVERLAY_TOO_LONG',
  (d: { target: string; bytes: number; layers: number }) => ({
    message: `the overlay on ${d.target} has ${d.layers} layers and ${d.bytes} bytes of options; mount(2) takes one page`,
    hint: 'use shorter paths for the layers, fewer layers, or Linux 6.8',
  }),
);

export const BadOverlay = defineError('BAD_OVERLAY', (d: { target: string; rule: string }) => ({
  message: `overlay on ${d.target}: ${d.rule}`,
}));

/** ovl_parse_param_lowerdir in the kernel: OVL_MAX_STACK. */
const MOST_LAYERS = 500;
/** copy_mount_options in the kernel: one page, with the final NUL. */
const PAGE_BYTES = 4096;
/** strndup_user in fsconfig(2): 256 bytes a value, with the NUL. */
const FSCONFIG_BYTES = 256;

/**
 * The operation that mounts it. From Linux 6.8 on layers are given one by one through fsconfig(2), without a common
 * limit; before, and where a path is too long for that, all options have to fit in a page.
 */
export function overlayMount(overlay: Overlay, kernelRelease: string): Op<'fsMount'> | Op<'mount'> {
  check(overlay);
  const { target, lower, upper, work, options = [] } = overlay;
  const upperOptions = upper === undefined || work === undefined ? [] : [`upperdir=${upper}`, `workdir=${work}`];
  const fits = [...lower, upper ?? '', work ?? ''].every((path) => byteLength(path) < FSCONFIG_BYTES);
  if (kernelAtLeast(kernelRelease, '6.8') && fits)
    return {
      op: 'fsMount',
      target,
      type: 'overlay',
      options: [...lower.map((path) => `lowerdir+=${path}`), ...upperOptions, ...options],
      attr: 0n,
    };
  const data = overlayData(overlay);
  const bytes = byteLength(data) + 1;
  if (bytes > PAGE_BYTES) throw new OverlayTooLong({ target, bytes, layers: lower.length });
  return { op: 'mount', source: 'overlay', target, type: 'overlay', flags: 0n, data };
}

/** The options of mount(2), with what would end a path escaped: "," ends an option, ":" a layer, "\" escapes. */
export function overlayData({ lower, upper, work, options = [] }: Overlay): string {
  const lowers = lower.map((path) => path.replace(/[\\:,]/g, '\\$&')).join(':');
  const plain = (path: string): string => path.replace(/[\\,]/g, '\\$&');
  const writable =
    upper === undefined || work === undefined ? [] : [`upperdir=${plain(upper)}`, `workdir=${plain(work)}`];
  return [`lowerdir=${lowers}`, ...writable, ...options].join(',');
}

function check({ target, lower, upper, work }: Overlay): void {
  const bad = (rule: string): never => {
    throw new BadOverlay({ target, rule });
  };
  if (lower.length === 0) bad('needs at least one layer');
  if (lower.length > MOST_LAYERS) bad(`${lower.length} layers; the kernel takes ${MOST_LAYERS}`);
  if ((upper === undefined) !== (work === undefined)) bad('upper and work belong together');
  if (lower.length === 1 && upper === undefined) bad('one layer alone is a bind mount, not an overlay');
  for (const path of [...lower, upper, work, target])
    if (path !== undefined && (!path.startsWith('/') || path.includes('\0')))
      bad(`${JSON.stringify(path)} is not absolute`);
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
