import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import type { ComposeFileMount, ComposeFileObject, ComposeMount, ComposeService } from '#spec/compose/model.ts';
import * as read from '#spec/compose/read.ts';
import { refuse, type Tree } from '#spec/compose/tree.ts';
import type { HostPathVolumeSource, KeyToPath, Volume, VolumeMount } from '#spec/kubernetes/types.gen.ts';
import { type ComposeInput, objectName, refuseAttribute } from '#up/compose/context.ts';
import { only } from '#up/compose/rest.ts';
import { compact } from '#up/objects.ts';

export interface Mounts {
  volumes: Volume[];
  volumeMounts: VolumeMount[];
  /** A fingerprint of what secrets and configs hold: files mounted by sub-path do not change under a running pod. */
  filesHash: string | undefined;
}

/** Everything that a service sees under a path of its own. */
export function mountsOf(input: ComposeInput, service: ComposeService): Mounts {
  const into = new MountList();
  for (const [i, mount] of service.volumes.entries())
    addMount(input, mount, `services.${service.name}.volumes[${i}]`, into);
  for (const written of service.tmpfs) addTmpfs(service, written, into);
  const shm = service.rest.get('shm_size');
  if (shm) into.memory('shm', '/dev/shm', read.bytes(shm, `services.${service.name}.shm_size`));
  const hash = createHash('sha256');
  addFiles(input, service, 'secrets', into, hash.update.bind(hash));
  addFiles(input, service, 'configs', into, hash.update.bind(hash));
  const files = service.secrets.length + service.configs.length;
  return { ...into.done(), filesHash: files === 0 ? undefined : hash.digest('hex').slice(0, 16) };
}

class MountList {
  readonly #volumes = new Map<string, Volume>();
  readonly #mounts: VolumeMount[] = [];

  add(volume: Volume, mount: Omit<VolumeMount, 'name'>): void {
    this.#volumes.set(volume.name, volume);
    this.#mounts.push({ name: volume.name, ...mount });
  }

  memory(hint: string, mountPath: string, sizeBytes: number | undefined): void {
    const emptyDir = compact({ medium: 'Memory', sizeLimit: sizeBytes === undefined ? undefined : String(sizeBytes) });
    this.add({ name: this.free(hint), emptyDir }, { mountPath });
  }

  /** A name that no volume of this pod has yet. */
  free(hint: string): string {
    const name = objectName(hint);
    if (!this.#volumes.has(name)) return name;
    for (let i = 2; ; i++) if (!this.#volumes.has(`${name}-${i}`)) return `${name}-${i}`;
  }

  done(): { volumes: Volume[]; volumeMounts: VolumeMount[] } {
    return { volumes: [...this.#volumes.values()], volumeMounts: this.#mounts };
  }
}

function addMount(input: ComposeInput, mount: ComposeMount, path: string, into: MountList): void {
  const no = (rule: string): never => refuse(mount.at, path, rule);
  if (!mount.target.startsWith('/')) no(`the target ${mount.target} is not absolute`);
  const place = compact<Omit<VolumeMount, 'name'>>({ mountPath: mount.target, readOnly: mount.readOnly || undefined });
  switch (mount.type) {
    case 'tmpfs':
      into.memory('tmpfs', mount.target, tmpfsSize(mount.rest.get('tmpfs'), path));
      break;
    case 'volume': {
      const subPath = volumeSubPath(mount.rest.get('volume'), path);
      const source = mount.source;
      if (source === undefined) {
        // A volume without a name lives and dies with its container.
        into.add({ name: into.free('anonymous'), emptyDir: {} }, place);
        break;
      }
      const claimName = claimNameOf(input, source);
      const volume: Volume = { name: `claim-${claimName}`.slice(0, 63), persistentVolumeClaim: { claimName } };
      into.add(volume, compact({ ...place, subPath }));
      break;
    }
    case 'bind':
      addBind(input, mount, path, place, into);
      break;
    case 'image':
      into.add({ name: into.free('image'), image: { reference: mount.source ?? no('has no source') } }, place);
      break;
    default:
      no(`mounts of type ${mount.type} have no counterpart in Kubernetes`);
  }
}

function addBind(
  input: ComposeInput,
  mount: ComposeMount,
  path: string,
  place: Omit<VolumeMount, 'name'>,
  into: MountList,
): void {
  if (input.cluster === 'other')
    refuse(
      mount.at,
      path,
      'binds a folder of this machine, which another cluster does not have: use a config, a secret or a volume',
    );
  const mountPropagation = bindPropagation(mount.rest.get('bind'), path);
  const source = mount.source ?? refuse(mount.at, path, 'has no source');
  const absolute = hostPathOf(input, source);
  const hostPath = compact<HostPathVolumeSource>({ path: absolute, type: hostPathType(input.paths[source]) });
  into.add({ name: into.free(`bind-${posix.basename(absolute)}`), hostPath }, compact({ ...place, mountPropagation }));
}

/** Where a bind's source is on this machine; `~` is the home of whoever runs it. */
export function hostPathOf(
  { folder, environment }: Pick<ComposeInput, 'folder' | 'environment'>,
  source: string,
): string {
  const path = posix.resolve(folder, source.replace(/^~(?=\/|$)/, environment['HOME'] ?? '~'));
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}

/** The claim of a named volume. One that stands outside the app has its own name. */
export function claimNameOf(input: ComposeInput, volume: string): string {
  const known = input.project.volumes[volume];
  return objectName(known?.external ? known.name : volume);
}

/** Docker makes a folder where nothing is. */
function hostPathType(kind: ComposeInput['paths'][string] | undefined): HostPathVolumeSource['type'] {
  switch (kind) {
    case 'file':
      return 'File';
    case 'directory':
      return 'Directory';
    case 'socket':
      return 'Socket';
    case 'device':
      return undefined;
    default:
      return 'DirectoryOrCreate';
  }
}

function tmpfsSize(tree: Tree | undefined, path: string): number | undefined {
  if (!tree) return undefined;
  const settings = read.map(tree, `${path}.tmpfs`);
  for (const [key, value] of settings.entries)
    if (key !== 'size') refuse(value.at, `${path}.tmpfs.${key}`, 'has no counterpart in Kubernetes');
  const size = settings.entries.get('size');
  return size && read.bytes(size, `${path}.tmpfs.size`);
}

function volumeSubPath(tree: Tree | undefined, path: string): string | undefined {
  if (!tree) return undefined;
  const settings = read.map(tree, `${path}.volume`);
  for (const [key, value] of settings.entries) {
    if (key === 'subpath') continue;
    // A claim starts empty in any case.
    if (key === 'nocopy' && read.bool(value, `${path}.volume.nocopy`)) continue;
    refuse(value.at, `${path}.volume.${key}`, 'has no counterpart in Kubernetes');
  }
  const subPath = settings.entries.get('subpath');
  return subPath && read.text(subPath, `${path}.volume.subpath`);
}

/** Docker's words for what goes on to mounts that are made later (mount_namespaces(7)), and Kubernetes' own. */
const PROPAGATION = {
  private: undefined,
  rprivate: undefined,
  slave: 'HostToContainer',
  rslave: 'HostToContainer',
  shared: 'Bidirectional',
  rshared: 'Bidirectional',
} as const;

function bindPropagation(tree: Tree | undefined, path: string): VolumeMount['mountPropagation'] {
  if (!tree) return undefined;
  const settings = read.map(tree, `${path}.bind`);
  for (const [key, value] of settings.entries) {
    if (key === 'propagation' || (key === 'create_host_path' && read.bool(value, path))) continue;
    refuse(value.at, `${path}.bind.${key}`, 'has no counterpart in Kubernetes');
  }
  const written = settings.entries.get('propagation');
  const words = Object.keys(PROPAGATION) as (keyof typeof PROPAGATION)[];
  return written && PROPAGATION[only(written, `${path}.bind.propagation`, words)];
}

/** `/run:size=64m` */
function addTmpfs(service: ComposeService, written: string, into: MountList): void {
  const [target = '', options = ''] = written.split(/:(.*)/s);
  if (!target.startsWith('/')) refuseAttribute(service, 'tmpfs', `${JSON.stringify(written)} is not absolute`);
  let sizeBytes: number | undefined;
  for (const option of options === '' ? [] : options.split(',')) {
    if (option === 'rw') continue; // as it is anyway
    const [, amount = '', unit = ''] = /^size=(\d+)([kmg]?)$/i.exec(option) ?? [];
    if (amount === '') refuseAttribute(service, 'tmpfs', `${JSON.stringify(option)} has no counterpart in Kubernetes`);
    sizeBytes = Number(amount) * 1024 ** ['', 'k', 'm', 'g'].indexOf(unit.toLowerCase());
  }
  into.memory('tmpfs', target, sizeBytes);
}

/** A file each, at its own path: a volume over the folder would hide the image's files beside it. */
function addFiles(
  input: ComposeInput,
  service: ComposeService,
  section: 'secrets' | 'configs',
  into: MountList,
  digest: (bytes: Uint8Array | string) => unknown,
): void {
  for (const [i, wish] of service[section].entries()) {
    const path = `services.${service.name}.${section}[${i}]`;
    const given = input.project[section][wish.source];
    if (!given) continue; // loadCompose has checked the reference
    for (const id of ['uid', 'gid'] as const)
      if (wish[id] !== undefined && wish[id] !== '0')
        refuse(wish.at, `${path}.${id}`, 'Kubernetes gives such files to root; use mode');
    const { name, key } = fileObjectName(section, wish.source, given);
    const items: KeyToPath[] = [compact<KeyToPath>({ key, path: key, mode: wish.mode })];
    const volume: Volume =
      section === 'secrets'
        ? { name: volumeName(into, name, wish), secret: { secretName: name, items } }
        : { name: volumeName(into, name, wish), configMap: { name, items } };
    into.add(volume, { mountPath: wish.target, subPath: key, readOnly: true });
    digest(`${wish.source}\0`);
    if (!given.external) digest(contentOf(input, given));
  }
}

function volumeName(into: MountList, name: string, wish: ComposeFileMount): string {
  return into.free(wish.mode === undefined ? name : `${name}-${wish.mode.toString(8)}`);
}

/** The object that holds a secret or config, and the key under which it does. One from outside has one key: its own name. */
export function fileObjectName(
  section: 'secrets' | 'configs',
  source: string,
  given: ComposeFileObject,
): { name: string; key: string } {
  if (given.external) return { name: objectName(given.name), key: keyName(given.name) };
  return {
    name: `${section === 'secrets' ? 'secret' : 'config'}-${objectName(source)}`.slice(0, 63),
    key: keyName(source),
  };
}

function keyName(source: string): string {
  return source.replace(/[^-._a-zA-Z0-9]/g, '-');
}

export function contentOf(input: ComposeInput, given: ComposeFileObject): Uint8Array {
  const path = given.name;
  if (given.content !== undefined) return Buffer.from(given.content);
  if (given.environment !== undefined) {
    const value = input.environment[given.environment];
    if (value === undefined) refuse(given.at, path, `the environment has no ${given.environment}`);
    return Buffer.from(value);
  }
  const bytes = given.file === undefined ? undefined : input.files[given.file];
  return bytes ?? refuse(given.at, path, `there is no file ${given.file ?? ''}`);
}
