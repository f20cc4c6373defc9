import type { KernelView } from '#engine/core/insight/kernel-view.ts';
import { compared, type XrayLine } from '#engine/core/insight/xray-line.ts';
import type { ContainerRecord, MountRecord } from '#engine/core/record.ts';
import type { Mount } from '#kernel/proc/mountinfo.ts';

/** Ours in every container: not worth a line, and no stranger. */
const SYSTEM = /^\/($|proc(\/|$)|sys(\/|$)|dev(\/|$)|etc\/(hosts|hostname|resolv\.conf)$)/;

/** Each mount that was wished, as the kernel shows it, and each that the kernel shows and nobody wished. */
export function mountLines(record: ContainerRecord, kernel: KernelView | undefined): XrayLine[] {
  const root: XrayLine = { topic: 'root', value: `image ${record.image.reference}`, because: 'the image' };
  const wished = record.mounts.map((mount) => wishedLine(record, mount, kernel));
  const strangers = (kernel?.mounts ?? []).filter(
    ({ mountPoint }) => !SYSTEM.test(mountPoint) && !record.mounts.some((m) => covers(m.target, mountPoint)),
  );
  return [
    root,
    ...wished,
    ...strangers.map(
      (mount): XrayLine => ({
        topic: 'mount',
        name: mount.mountPoint,
        value: `${mount.fsType} ${mount.source}, ${access(mount)}`,
        because: 'mounted from inside, or by someone else',
        wished: 'nothing',
      }),
    ),
  ];
}

/** Mounts below a wished one came with it (a recursive bind), or through its propagation. */
function covers(target: string, mountPoint: string): boolean {
  return mountPoint === target || mountPoint.startsWith(`${target}/`);
}

function wishedLine({ spec }: ContainerRecord, mount: MountRecord, kernel: KernelView | undefined): XrayLine {
  const because = spec.mounts.some((m) => m.target === mount.target) ? flagOf(mount) : 'VOLUME of the image';
  const what = mount.type === 'volume' ? `volume ${mount.name ?? ''}` : mount.type === 'bind' ? mount.source : 'memory';
  const line = { topic: 'mount', name: mount.target, because };
  const shown = kernel?.mounts.filter((m) => m.mountPoint === mount.target).at(-1);
  const actual = kernel && (shown ? `${what}, ${access(shown)}` : 'not mounted');
  return compared(line, `${what}, ${mount.readonly ? 'read-only' : 'writable'}`, actual);
}

function flagOf({ type }: MountRecord): string {
  return type === 'tmpfs' ? '--tmpfs' : '--volume or --mount';
}

function access({ options }: Mount): string {
  return options.split(',').includes('ro') ? 'read-only' : 'writable';
}
