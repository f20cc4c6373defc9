import { FACTS, VERSION } from './facts.gen.ts';

/**
 * The Kubernetes API as data: which resources exist, with which verbs, and what every type's fields are. Decoding, pruning,
 * defaulting, merging, discovery and OpenAPI all read this one table; `facts.gen.ts` holds it, three kinds of line:
 *
 *     R apiVersion plural Kind scope verbs shortNames categories     a resource
 *     S name apiVersion Kind verbs                                   a sub-resource of the R above
 *     T group.version.Type [atomic] [kind=apiVersion,Kind]           a type; its fields follow:
 *     name[!] type [set|atomic|map=KEYS] [merge[=KEY]] [retain] [enum=A|B] [#N[.M]]      `!` required; `[T]` list, `{T}` map of T
 *
 * `#N` is the field's number in protobuf, `#N.M` that of field M in the message N which JSON inlines.
 */
export const KUBERNETES_VERSION = VERSION;

export type ScalarType =
  | 'string'
  | 'bytes'
  | 'bool'
  | 'int32'
  | 'int64'
  | 'double'
  | 'any'
  | 'intstr'
  | 'quantity'
  | 'time'
  | 'microtime';

export type FieldType =
  | { kind: 'scalar'; scalar: ScalarType }
  | { kind: 'ref'; type: TypeFacts }
  | { kind: 'list'; item: FieldType }
  | { kind: 'map'; item: FieldType };

/** How server-side apply treats a list: replaced whole, a set of scalars, or a map keyed by fields of its items. */
export type ListType = { is: 'atomic' } | { is: 'set' } | { is: 'map'; keys: readonly string[] };

export interface FieldFacts {
  name: string;
  type: FieldType;
  required: boolean;
  listType: ListType | undefined;
  /** A map or struct that server-side apply replaces whole. */
  atomic: boolean;
  /** Strategic merge patch: `merge` with the key of list items (scalars have none). */
  merge: boolean;
  mergeKey: string | undefined;
  retainKeys: boolean;
  values: readonly string[] | undefined;
  /** Numbers from the type's message down to the field's. Empty: the field has no protobuf form. */
  wire: readonly number[];
}

export interface TypeFacts {
  /** `core.v1.Pod` */
  name: string;
  atomic: boolean;
  fields: ReadonlyMap<string, FieldFacts>;
  apiVersion: string | undefined;
  kind: string | undefined;
}

export type Verb = 'create' | 'delete' | 'deletecollection' | 'get' | 'list' | 'patch' | 'update' | 'watch' | 'connect';

export interface SubresourceFacts {
  name: string;
  apiVersion: string;
  kind: string;
  verbs: ReadonlySet<Verb>;
}

export interface ResourceFacts {
  group: string;
  version: string;
  apiVersion: string;
  /** Plural, as in paths: `pods`. */
  resource: string;
  singular: string;
  kind: string;
  namespaced: boolean;
  verbs: ReadonlySet<Verb>;
  shortNames: readonly string[];
  categories: readonly string[];
  subresources: ReadonlyMap<string, SubresourceFacts>;
  type: TypeFacts;
}

export interface Facts {
  resources: readonly ResourceFacts[];
  types: ReadonlyMap<string, TypeFacts>;
  /** Resources by `apiVersion kind`. */
  byKind: ReadonlyMap<string, ResourceFacts>;
  /** Types of whole objects by `apiVersion kind`, those that are not stored included. */
  typesByKind: ReadonlyMap<string, TypeFacts>;
}

let parsed: Facts | undefined;

/** The table, parsed at first use (about 3 ms). */
export function kubernetesFacts(): Facts {
  parsed ??= parseFacts(FACTS);
  return parsed;
}

export function resourceOfKind(apiVersion: string, kind: string): ResourceFacts | undefined {
  return kubernetesFacts().byKind.get(`${apiVersion} ${kind}`);
}

/** Path of a resource: `/apis/apps/v1/namespaces/default/deployments/web`. */
export function pathOf(resource: ResourceFacts, at: { namespace?: string; name?: string; sub?: string } = {}): string {
  const root = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`;
  const namespace = resource.namespaced && at.namespace ? `/namespaces/${at.namespace}` : '';
  return `${root}${namespace}/${resource.resource}${at.name ? `/${at.name}` : ''}${at.sub ? `/${at.sub}` : ''}`;
}

const SCALARS = new Set<string>([
  'string',
  'bytes',
  'bool',
  'int32',
  'int64',
  'double',
  'any',
  'intstr',
  'quantity',
  'time',
  'microtime',
]);

type MutableType = Omit<TypeFacts, 'fields'> & { fields: Map<string, FieldFacts> };
type MutableResource = Omit<ResourceFacts, 'type' | 'subresources'> & { subresources: Map<string, SubresourceFacts> };

export function parseFacts(text: string): Facts {
  const types = new Map<string, MutableType>();
  const resources: MutableResource[] = [];
  let type: MutableType | undefined;
  const typeNamed = (name: string): MutableType => {
    const known = types.get(name);
    if (known) return known;
    const made: MutableType = { name, atomic: false, fields: new Map(), apiVersion: undefined, kind: undefined };
    types.set(name, made);
    return made;
  };
  for (const line of text.split('\n')) {
    const words = line.split(' ');
    if (line.startsWith('R ')) resources.push(resourceLine(words));
    else if (line.startsWith('S ')) addSubresource(resources.at(-1), words);
    else if (line.startsWith('T ')) {
      type = typeNamed(words[1] ?? '');
      for (const word of words.slice(2)) {
        if (word === 'atomic') type.atomic = true;
        else if (word.startsWith('kind=')) [type.apiVersion, type.kind] = word.slice(5).split(',');
      }
    } else if (type && line !== '') {
      const field = fieldLine(words, typeNamed);
      type.fields.set(field.name, field);
    }
  }
  return index(resources, types);
}

function index(resources: MutableResource[], types: Map<string, MutableType>): Facts {
  const typeByKind = new Map([...types.values()].map((t) => [`${t.apiVersion} ${t.kind}`, t]));
  const complete = resources.map((resource): ResourceFacts => {
    const type = typeByKind.get(`${resource.apiVersion} ${resource.kind}`);
    if (!type) throw new Error(`no type for ${resource.apiVersion} ${resource.kind}`);
    return { ...resource, type };
  });
  return {
    resources: complete,
    types,
    byKind: new Map(complete.map((r) => [`${r.apiVersion} ${r.kind}`, r])),
    typesByKind: typeByKind,
  };
}

function resourceLine(words: string[]): MutableResource {
  const [, apiVersion = '', resource = '', kind = '', scope = '', verbs = '', short = '-', categories = '-'] = words;
  const slash = apiVersion.indexOf('/');
  return {
    group: slash < 0 ? '' : apiVersion.slice(0, slash),
    version: apiVersion.slice(slash + 1),
    apiVersion,
    resource,
    singular: kind.toLowerCase(),
    kind,
    namespaced: scope === 'namespaced',
    verbs: new Set(verbs.split(',') as Verb[]),
    shortNames: short === '-' ? [] : short.split(','),
    categories: categories === '-' ? [] : categories.split(','),
    subresources: new Map(),
  };
}

function addSubresource(parent: MutableResource | undefined, words: string[]): void {
  const [, name = '', apiVersion = '', kind = '', verbs = ''] = words;
  parent?.subresources.set(name, { name, apiVersion, kind, verbs: new Set(verbs.split(',') as Verb[]) });
}

function fieldLine(words: string[], typeNamed: (name: string) => TypeFacts): FieldFacts {
  const [head = '', type = 'any', ...attributes] = words;
  const required = head.endsWith('!');
  const field: FieldFacts = {
    name: required ? head.slice(0, -1) : head,
    type: fieldType(type, typeNamed),
    required,
    listType: undefined,
    atomic: false,
    merge: false,
    mergeKey: undefined,
    retainKeys: false,
    values: undefined,
    wire: [],
  };
  const isList = field.type.kind === 'list';
  for (const attribute of attributes) {
    const [key, value = ''] = attribute.split('=', 2);
    if (attribute.startsWith('#')) field.wire = attribute.slice(1).split('.').map(Number);
    else if (key === 'set') field.listType = { is: 'set' };
    else if (key === 'map') field.listType = { is: 'map', keys: value.split(',') };
    else if (key === 'atomic' && isList) field.listType = { is: 'atomic' };
    else if (key === 'atomic') field.atomic = true;
    else if (key === 'merge') {
      field.merge = true;
      field.mergeKey = value === '' ? undefined : value;
    } else if (key === 'retain') field.retainKeys = true;
    else if (key === 'enum') field.values = value.split('|');
  }
  return field;
}

function fieldType(text: string, typeNamed: (name: string) => TypeFacts): FieldType {
  if (text.startsWith('[')) return { kind: 'list', item: fieldType(text.slice(1, -1), typeNamed) };
  if (text.startsWith('{')) return { kind: 'map', item: fieldType(text.slice(1, -1), typeNamed) };
  if (SCALARS.has(text)) return { kind: 'scalar', scalar: text as ScalarType };
  return { kind: 'ref', type: typeNamed(text) };
}
