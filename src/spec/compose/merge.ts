import type { ListTree, MapTree, Tree } from './tree.ts';

/** Lists that may be written as mappings `K: V`: merged by name. */
const NAMED = new Set([
  'environment',
  'labels',
  'annotations',
  'args',
  'sysctls',
  'extra_hosts',
  'driver_opts',
  'options',
]);
/** Replaced, not appended to: half of one command and half of another is none. */
const REPLACED = new Set(['command', 'entrypoint', 'test']);
/** Lists of names that may be written as mappings. */
const KEYED_LISTS = new Set(['depends_on', 'networks']);

/** One thing a list holds once: how an entry says which. */
const UNIQUE: Record<string, (entry: Tree) => string | undefined> = {
  ports: (e) =>
    e.is === 'map'
      ? ['host_ip', 'target', 'published', 'protocol'].map((k) => textOf(e, k)).join(' ')
      : e.is === 'scalar'
        ? e.text
        : undefined,
  volumes: (e) => (e.is === 'map' ? textOf(e, 'target') : e.is === 'scalar' ? mountTarget(e.text) : undefined),
  secrets: (e) =>
    e.is === 'map' ? textOf(e, 'target') || textOf(e, 'source') : e.is === 'scalar' ? e.text : undefined,
  configs: (e) =>
    e.is === 'map' ? textOf(e, 'target') || textOf(e, 'source') : e.is === 'scalar' ? e.text : undefined,
};

/** `over` laid upon `base`, as several files or `extends` do. `name` is the attribute the two are values of. */
export function mergeTrees(base: Tree, over: Tree, name = ''): Tree {
  if (over.tag === 'override') return over;
  if (REPLACED.has(name)) return over;
  if (NAMED.has(name)) return mergeMaps(asMap(base), asMap(over), '');
  if (KEYED_LISTS.has(name) && (base.is === 'map' || over.is === 'map'))
    return mergeMaps(asKeys(base), asKeys(over), '');
  if (base.is === 'map' && over.is === 'map') return mergeMaps(base, over, name);
  if (base.is === 'list' && over.is === 'list') return mergeLists(base, over, UNIQUE[name]);
  return over;
}

function mergeMaps(base: Tree, over: Tree, _name: string): Tree {
  if (base.is !== 'map' || over.is !== 'map') return over;
  const entries = new Map(base.entries);
  for (const [key, value] of over.entries) {
    const known = entries.get(key);
    if (value.tag === 'reset') entries.delete(key);
    else entries.set(key, known ? mergeTrees(known, value, key) : value);
  }
  return { ...over, entries };
}

function mergeLists(
  base: ListTree,
  over: ListTree,
  keyOf: ((entry: Tree) => string | undefined) | undefined,
): ListTree {
  const items = [...base.items];
  for (const entry of over.items) {
    const key = keyOf ? keyOf(entry) : entry.is === 'scalar' ? entry.text : undefined;
    const same =
      key === undefined
        ? -1
        : items.findIndex((i) => (keyOf ? keyOf(i) : i.is === 'scalar' ? i.text : undefined) === key);
    const known = items[same];
    if (!known) items.push(entry);
    else items[same] = known.is === 'map' && entry.is === 'map' ? mergeTrees(known, entry) : entry;
  }
  return { ...over, items };
}

/** `["A=1", "B"]` as `{A: 1, B: null}`; also `host:address` of extra_hosts. */
export function asMap(tree: Tree): Tree {
  if (tree.is !== 'list') return tree;
  const entries = new Map<string, Tree>();
  for (const item of tree.items) {
    const text = item.is === 'scalar' ? item.text : '';
    const split = /^([^=:]+)[=:]([\s\S]*)$/.exec(text);
    const equals = text.indexOf('=');
    const [key, value] =
      equals > 0 ? [text.slice(0, equals), text.slice(equals + 1)] : [split?.[1] ?? text, split?.[2]];
    entries.set(key, { is: 'scalar', at: item.at, value: value ?? null, text: value ?? '' });
  }
  return { is: 'map', at: tree.at, entries };
}

function asKeys(tree: Tree): Tree {
  if (tree.is !== 'list') return tree;
  const nothing = (item: Tree): Tree => ({ is: 'map', at: item.at, entries: new Map() });
  const entries = tree.items.map((item): [string, Tree] => [item.is === 'scalar' ? item.text : '', nothing(item)]);
  return { is: 'map', at: tree.at, entries: new Map(entries) };
}

function textOf(map: MapTree, key: string): string {
  const value = map.entries.get(key);
  return value?.is === 'scalar' ? value.text : '';
}

/** The place inside the container of `source:target:mode`, or of `target` alone. */
function mountTarget(text: string): string {
  const parts = text.split(':');
  return (parts.length === 1 ? parts[0] : parts[1]) ?? '';
}
