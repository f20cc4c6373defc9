import { VolumeNotReady } from '#cluster/node/errors.ts';
import { fieldValue, resourceValue, type Self } from '#cluster/node/pod/fields.ts';
import type {
  ConfigMap,
  DownwardAPIVolumeFile,
  KeyToPath,
  Secret,
  ServiceAccountTokenProjection,
  Volume,
} from '#spec/kubernetes/types.gen.ts';

/** Files of a volume whose contents come from the cluster: path → bytes and mode. */
export type Payload = Map<string, { data: Buffer; mode: number; token?: true }>;

export interface PayloadSources {
  configMap(name: string): ConfigMap | undefined;
  secret(name: string): Secret | undefined;
  token(projection: ServiceAccountTokenProjection): string;
}

const DEFAULT_MODE = 0o644;

/** Whether the volume's contents follow the cluster's objects. */
export function isPayloadVolume(volume: Volume): boolean {
  return (volume.configMap ?? volume.secret ?? volume.downwardAPI ?? volume.projected) !== undefined;
}

/** Pure. VOLUME_NOT_READY when an object or key is missing that is not optional. */
export function payloadOf(volume: Volume, self: Self, sources: PayloadSources): Payload {
  const payload: Payload = new Map();
  const { configMap, secret, downwardAPI, projected } = volume;
  const add = (files: Payload): void => {
    for (const [path, file] of files) payload.set(path, file);
  };
  const of = { volume: volume.name, self, sources };
  if (configMap) add(objectFiles(of, 'configmap', configMap, configMap.defaultMode ?? DEFAULT_MODE));
  if (secret)
    add(objectFiles(of, 'secret', { ...secret, name: secret.secretName ?? '' }, secret.defaultMode ?? DEFAULT_MODE));
  if (downwardAPI) add(downwardFiles(of, downwardAPI.items ?? [], downwardAPI.defaultMode ?? DEFAULT_MODE));
  const mode = projected?.defaultMode ?? DEFAULT_MODE;
  for (const source of projected?.sources ?? []) {
    if (source.configMap) add(objectFiles(of, 'configmap', source.configMap, mode));
    else if (source.secret) add(objectFiles(of, 'secret', source.secret, mode));
    else if (source.downwardAPI) add(downwardFiles(of, source.downwardAPI.items ?? [], mode));
    else if (source.serviceAccountToken) {
      const data = Buffer.from(sources.token(source.serviceAccountToken));
      payload.set(checked(of.volume, source.serviceAccountToken.path), { data, mode, token: true });
    } else throw notReady(of.volume, 'it has a projection of a kind this node does not know');
  }
  return payload;
}

interface Of {
  volume: string;
  self: Self;
  sources: PayloadSources;
}

/** All keys of the object, or those that `items` names at the paths it gives them. */
function objectFiles(
  { volume, self, sources }: Of,
  kind: 'configmap' | 'secret',
  wish: { name?: string; items?: KeyToPath[]; optional?: boolean },
  mode: number,
): Payload {
  const files: Payload = new Map();
  const name = wish.name ?? '';
  const object = kind === 'configmap' ? sources.configMap(name) : sources.secret(name);
  if (!object) {
    if (wish.optional) return files;
    const namespace = self.pod.metadata.namespace ?? '';
    throw notReady(
      volume,
      kind === 'configmap' ? `configmap "${name}" not found` : `secret "${name}" not found in ${namespace}`,
    );
  }
  const data = bytesOf(kind, object);
  if (!wish.items) {
    for (const [key, bytes] of data) files.set(checked(volume, key), { data: bytes, mode });
    return files;
  }
  for (const item of wish.items) {
    const bytes = data.get(item.key);
    if (bytes) files.set(checked(volume, item.path), { data: bytes, mode: item.mode ?? mode });
    else if (!wish.optional)
      throw notReady(volume, `references non-existent ${kind === 'configmap' ? 'config' : 'secret'} key: ${item.key}`);
  }
  return files;
}

function bytesOf(kind: 'configmap' | 'secret', object: ConfigMap | Secret): Map<string, Buffer> {
  const result = new Map<string, Buffer>();
  const binary = kind === 'secret' ? (object as Secret).data : (object as ConfigMap).binaryData;
  if (kind === 'configmap')
    for (const [key, text] of Object.entries((object as ConfigMap).data ?? {})) result.set(key, Buffer.from(text));
  for (const [key, base64] of Object.entries(binary ?? {})) result.set(key, Buffer.from(base64, 'base64'));
  return result;
}

function downwardFiles({ volume, self }: Of, items: readonly DownwardAPIVolumeFile[], mode: number): Payload {
  const files: Payload = new Map();
  for (const item of items) {
    const text = item.fieldRef
      ? fieldValue(self, item.fieldRef)
      : item.resourceFieldRef
        ? resourceValue(self, item.resourceFieldRef, undefined)
        : '';
    files.set(checked(volume, item.path), { data: Buffer.from(text), mode: item.mode ?? mode });
  }
  return files;
}

/** The server refuses such paths too; files are written by root, so it is checked where it counts. */
function checked(volume: string, path: string): string {
  const parts = path.split('/');
  if (path === '' || path.startsWith('/') || parts.includes('..') || parts[0]?.startsWith('..'))
    throw notReady(volume, `path ${JSON.stringify(path)} leads out of the volume`);
  return path;
}

function notReady(volume: string, message: string): Error {
  return new VolumeNotReady({ volume, message });
}
