import { parseDocument } from 'yaml';
import {
  array,
  boolean,
  fail,
  type Out,
  object,
  optional,
  record,
  type Shape,
  string,
  withDefault,
} from '#base/shape.ts';
import { UpInvalid } from '#up/errors.ts';

const text = string();
const texts = withDefault(array(text), []);
const strings = withDefault(record(text), {});

const generatorOptions = object(
  {
    disableNameSuffixHash: optional(boolean()),
    immutable: optional(boolean()),
    labels: strings,
    annotations: strings,
  },
  { unknown: 'reject' },
);

const generator = object(
  {
    name: string({ nonEmpty: true }),
    namespace: optional(text),
    behavior: optional(text),
    files: texts,
    literals: texts,
    envs: texts,
    env: optional(text),
    type: optional(text),
    options: optional(generatorOptions),
  },
  { unknown: 'reject' },
);

const target = object(
  {
    group: optional(text),
    version: optional(text),
    kind: optional(text),
    name: optional(text),
    namespace: optional(text),
    labelSelector: optional(text),
    annotationSelector: optional(text),
  },
  { unknown: 'reject' },
);

const patch = object(
  {
    path: optional(text),
    patch: optional(text),
    target: optional(target),
    options: optional(
      object({ allowNameChange: optional(boolean()), allowKindChange: optional(boolean()) }, { unknown: 'reject' }),
    ),
  },
  { unknown: 'reject' },
);

/** The fields of a kustomization that are understood; any other is refused by name, since ignoring one would apply something else. */
const kustomization = object(
  {
    apiVersion: optional(text),
    kind: optional(text),
    metadata: optional(object({}, { unknown: 'keep' })),
    namespace: optional(text),
    namePrefix: optional(text),
    nameSuffix: optional(text),
    resources: texts,
    bases: texts,
    commonLabels: strings,
    commonAnnotations: strings,
    labels: withDefault(
      array(
        object(
          { pairs: record(text), includeSelectors: optional(boolean()), includeTemplates: optional(boolean()) },
          { unknown: 'reject' },
        ),
      ),
      [],
    ),
    images: withDefault(
      array(
        object(
          { name: text, newName: optional(text), newTag: optional(scalarText()), digest: optional(text) },
          { unknown: 'reject' },
        ),
      ),
      [],
    ),
    replicas: withDefault(array(object({ name: text, count: anyCount() }, { unknown: 'reject' })), []),
    patches: withDefault(array(patch), []),
    patchesStrategicMerge: texts,
    patchesJson6902: withDefault(array(patch), []),
    configMapGenerator: withDefault(array(generator), []),
    secretGenerator: withDefault(array(generator), []),
    generatorOptions: optional(generatorOptions),
  },
  { unknown: 'reject' },
);

export type Kustomization = Out<typeof kustomization>;
export type Generator = Out<typeof generator>;
export type GeneratorOptions = Out<typeof generatorOptions>;
export type PatchWish = Out<typeof patch>;
export type PatchTarget = Out<typeof target>;

/** `newTag: 1.10` is meant as text, however YAML reads it. */
function scalarText(): Shape<string> {
  return (value, path) => (typeof value === 'number' ? String(value) : text(value, path));
}

function anyCount(): Shape<number> {
  return (value, path) => {
    return Number.isInteger(value) && Number(value) >= 0
      ? Number(value)
      : fail(path, value, 'is not a number of replicas');
  };
}

export function readKustomization(source: string, file: string): Kustomization {
  const document = parseDocument(source, { uniqueKeys: true, prettyErrors: false });
  const [problem] = document.errors;
  if (problem) throw new UpInvalid({ where: file, problem: problem.message });
  try {
    return kustomization(document.toJS({ maxAliasCount: 100 }) ?? {}, '$');
  } catch (error) {
    throw new UpInvalid({ where: file, problem: 'is no kustomization that is understood here' }, { cause: error });
  }
}
