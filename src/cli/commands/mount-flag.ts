import { resolve } from 'node:path';
import { parseSizeBytes } from '#base/units.ts';
import { csvFields, type Json, unlessBare, withoutUndefined, wrong } from '#cli/commands/values.ts';

const TYPES = ['bind', 'volume', 'tmpfs', 'image'];
const KEYS = new Set(
  (
    'type source src target destination dst readonly ro consistency bind-propagation bind-nonrecursive bind-recursive volume-nocopy ' +
    'volume-subpath volume-label volume-driver volume-opt tmpfs-size tmpfs-mode tmpfs-opt image-subpath'
  ).split(' '),
);

/** `--mount type=bind,source=…,target=…,readonly`. */
export function mountOf(written: string, cwd: string): Json {
  const fields = new Map<string, string[]>();
  for (const part of csvFields(written)) {
    const [, key = '', value = 'true'] = /^([^=]+)(?:=(.*))?$/s.exec(part) ?? [];
    if (!KEYS.has(key)) wrong('mount', written, `unexpected key '${key}'`);
    fields.set(key, [...(fields.get(key) ?? []), value]);
  }
  const one = (...names: string[]): string | undefined =>
    names.map((n) => fields.get(n)?.at(-1)).find((v) => v !== undefined);
  const many = (name: string): Record<string, string> | undefined =>
    unlessBare(
      Object.fromEntries(
        (fields.get(name) ?? []).map((v) => (v.includes('=') ? v.split(/=(.*)/s).slice(0, 2) : [v, ''])),
      ),
    );
  const type = one('type') ?? 'volume';
  if (!TYPES.includes(type)) wrong('mount', written, `type must be one of ${TYPES.join(', ')}`);
  const target = one('target', 'destination', 'dst') ?? wrong('mount', written, 'target is required');
  const source = one('source', 'src');
  if (type === 'bind' && source === undefined) wrong('mount', written, 'a bind needs a source');
  const size = one('tmpfs-size');
  const mode = one('tmpfs-mode');
  const driver = withoutUndefined({ Name: one('volume-driver'), Options: many('volume-opt') });
  return withoutUndefined({
    Type: type,
    Source: type === 'bind' && source !== undefined ? resolve(cwd, source) : source,
    Target: target,
    ReadOnly: ['true', '1'].includes(one('readonly', 'ro') ?? '') || undefined,
    Consistency: one('consistency'),
    BindOptions: unlessBare(
      withoutUndefined({
        Propagation: one('bind-propagation'),
        ...recursion(written, one('bind-nonrecursive'), one('bind-recursive')),
      }),
    ),
    VolumeOptions: unlessBare(
      withoutUndefined({
        NoCopy: one('volume-nocopy') === undefined ? undefined : one('volume-nocopy') !== 'false',
        Subpath: one('volume-subpath'),
        Labels: many('volume-label'),
        DriverConfig: unlessBare(driver),
      }),
    ),
    TmpfsOptions: unlessBare(
      withoutUndefined({
        SizeBytes:
          size === undefined
            ? undefined
            : (parseSizeBytes(size) ?? wrong('mount', written, 'tmpfs-size must be a size')),
        Mode: mode === undefined ? undefined : Number.parseInt(mode, 8),
        Options: fields.get('tmpfs-opt')?.map((o) => o.split('=')),
      }),
    ),
    ImageOptions: unlessBare(withoutUndefined({ Subpath: one('image-subpath') })),
  });
}

/** Of the mounts below a bind: whether they come with it, and whether `readonly` holds for them. */
function recursion(written: string, old: string | undefined, now: string | undefined): Json {
  switch (now) {
    case undefined:
      return old === undefined ? {} : { NonRecursive: old !== 'false' };
    case 'enabled':
      return {};
    case 'disabled':
      return { NonRecursive: true };
    case 'writable':
      return { ReadOnlyNonRecursive: true };
    case 'readonly':
      return { ReadOnlyForceRecursive: true };
    default:
      return wrong('mount', written, 'bind-recursive must be one of enabled, disabled, writable, readonly');
  }
}
