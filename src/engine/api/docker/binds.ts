import { fail } from '#base/shape.ts';
import type { MountSpec, Propagation, ReadonlyMode } from '#engine/core/spec.ts';
import type { Mount } from '#spec/docker/types.gen.ts';

/** `-v`: `[source:]target[:options]`, where a source with a slash is a path and any other a volume's name. */
export function parseBind(text: string, path: string, driver?: string): MountSpec {
  const parts = text.split(':');
  if (parts.length > 3 || parts.some((p) => p === '')) return fail(path, text, 'is not SOURCE:TARGET[:OPTIONS]');
  const [first = '', second, third] = parts;
  const target = second === undefined ? first : second;
  const source = second === undefined ? '' : first;
  checkTarget(target, text, path);
  const options = parseBindOptions(third ?? '', text, path);
  if (source.startsWith('/')) {
    return {
      type: 'bind',
      source,
      target: normalize(target),
      readonly: options.readonly,
      ...(options.propagation ? { propagation: options.propagation } : {}),
      recursive: !options.nonRecursive,
      createSource: true,
      ...owner(options),
    };
  }
  if (source !== '' && !VOLUME_NAME.test(source)) {
    return fail(
      path,
      text,
      `has "${source}", which is neither an absolute path nor a volume's name ([a-zA-Z0-9][a-zA-Z0-9_.-]+)`,
    );
  }
  if (options.propagation) return fail(path, text, 'has a propagation, which only a bind of a host path can have');
  return {
    type: 'volume',
    name: source,
    target: normalize(target),
    readonly: options.readonly,
    noCopy: options.noCopy,
    labels: {},
    ...(driver ? { driver: { name: driver, options: {} } } : {}),
    ...owner(options),
  };
}

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const PROPAGATIONS: readonly string[] = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'];
/** SELinux relabelling (this host has none) and macOS' cache hints: no effect here, and none is missing. */
const WITHOUT_EFFECT = ['z', 'Z', 'cached', 'delegated', 'consistent', 'default'];

interface BindOptions {
  readonly: ReadonlyMode;
  propagation?: Propagation;
  noCopy: boolean;
  nonRecursive: boolean;
  uid?: number;
  gid?: number;
}

function parseBindOptions(text: string, whole: string, path: string): BindOptions {
  const result: BindOptions = { readonly: false, noCopy: false, nonRecursive: false };
  const modes = new Set<string>();
  for (const option of text.split(',').filter(Boolean)) {
    const id = /^(uid|gid)=(\d{1,10})$/.exec(option);
    if (option === 'ro' || option === 'rw') {
      modes.add(option);
      result.readonly = option === 'ro' ? 'recursive' : false;
    } else if (PROPAGATIONS.includes(option)) {
      if (result.propagation) return fail(path, whole, 'has two propagations');
      result.propagation = option as Propagation;
    } else if (option === 'nocopy') result.noCopy = true;
    else if (option === 'copy') result.noCopy = false;
    else if (option === 'bind-nonrecursive') result.nonRecursive = true;
    else if (id) result[id[1] as 'uid' | 'gid'] = Number(id[2]);
    else if (!WITHOUT_EFFECT.includes(option)) return fail(path, whole, `has the unknown option ${option}`);
  }
  return modes.size > 1 ? fail(path, whole, 'is both ro and rw') : result;
}

function owner(options: BindOptions): { owner?: { uid?: number; gid?: number } } {
  if (options.uid === undefined && options.gid === undefined) return {};
  return {
    owner: {
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    },
  };
}

/** `--mount`: the long form, where nothing is guessed. */
export function mountOf(mount: Mount, path: string): MountSpec {
  const target = mount.Target ?? '';
  checkTarget(target, mount, `${path}.Target`);
  const readonly = readonlyOf(mount, path);
  const refuse = (field: 'BindOptions' | 'VolumeOptions' | 'TmpfsOptions' | 'ImageOptions'): void => {
    if (mount[field]) fail(`${path}.${field}`, mount[field], `has no meaning for a mount of type ${mount.Type}`);
  };
  switch (mount.Type) {
    case 'bind': {
      refuse('VolumeOptions');
      refuse('TmpfsOptions');
      refuse('ImageOptions');
      const source = mount.Source ?? '';
      if (!source.startsWith('/')) return fail(`${path}.Source`, source, 'is not an absolute path');
      const options = mount.BindOptions ?? {};
      if (options.Propagation && !PROPAGATIONS.includes(options.Propagation)) {
        return fail(`${path}.BindOptions.Propagation`, options.Propagation, `is none of ${PROPAGATIONS.join(', ')}`);
      }
      return {
        type: 'bind',
        source,
        target: normalize(target),
        readonly,
        ...(options.Propagation ? { propagation: options.Propagation as Propagation } : {}),
        recursive: !options.NonRecursive,
        createSource: options.CreateMountpoint ?? false,
      };
    }
    case 'volume': {
      refuse('BindOptions');
      refuse('TmpfsOptions');
      refuse('ImageOptions');
      const options = mount.VolumeOptions ?? {};
      const name = mount.Source ?? '';
      if (name !== '' && !VOLUME_NAME.test(name))
        return fail(`${path}.Source`, name, 'is no volume name ([a-zA-Z0-9][a-zA-Z0-9_.-]+)');
      return {
        type: 'volume',
        name,
        target: normalize(target),
        readonly,
        noCopy: options.NoCopy ?? false,
        ...(options.Subpath ? { subpath: options.Subpath } : {}),
        ...driverOf(options.DriverConfig),
        labels: options.Labels ?? {},
      };
    }
    case 'tmpfs': {
      refuse('BindOptions');
      refuse('VolumeOptions');
      refuse('ImageOptions');
      if (mount.Source) return fail(`${path}.Source`, mount.Source, 'must be empty for a tmpfs');
      const options = mount.TmpfsOptions ?? {};
      const extra = (options.Options ?? []).map((pair) => pair.join('='));
      return {
        type: 'tmpfs',
        target: normalize(target),
        options: [
          ...(options.SizeBytes ? [`size=${options.SizeBytes}`] : []),
          ...(options.Mode ? [`mode=${options.Mode.toString(8)}`] : []),
          ...extra,
        ],
        readonly,
      };
    }
    default:
      return fail(
        `${path}.Type`,
        mount.Type,
        'is none of bind, volume, tmpfs (image, cluster and npipe mounts are not supported)',
      );
  }
}

/** `volume-opt` alone means the local driver. */
function driverOf(config: NonNullable<Mount['VolumeOptions']>['DriverConfig']): {
  driver?: { name: string; options: Record<string, string> };
} {
  const options = config?.Options ?? {};
  if (!config?.Name && Object.keys(options).length === 0) return {};
  return { driver: { name: config?.Name || 'local', options } };
}

/** Docker 25: read-only is recursive where the kernel can, unless told otherwise. */
function readonlyOf(mount: Mount, path: string): ReadonlyMode {
  const { ReadOnlyNonRecursive: top, ReadOnlyForceRecursive: force } = mount.BindOptions ?? {};
  if (top && force) fail(`${path}.BindOptions`, mount.BindOptions, 'is read-only both below and not below');
  if (!mount.ReadOnly) {
    if (top || force) fail(`${path}.ReadOnly`, mount.ReadOnly, 'must be true for a way of being read-only');
    return false;
  }
  if (top) return 'top';
  return force ? 'force-recursive' : 'recursive';
}

function checkTarget(target: string, value: unknown, path: string): void {
  if (!target.startsWith('/')) fail(path, value, 'has a target that is not an absolute path');
  if (normalize(target) === '/') fail(path, value, 'has / as its target: the root is the image itself');
}

function normalize(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}
