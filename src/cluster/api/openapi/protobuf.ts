import { documentV2 } from './documents.ts';

/**
 * The version 2 document as the protobuf message `openapi.v2.Document` (google/gnostic), which kubectl up to 1.2x asks for. Field
 * numbers are that schema's; only what our document has is written. Extensions travel as YAML text, of which JSON is a kind.
 */
let encoded: Buffer | undefined;

export function openApiV2Protobuf(): Buffer {
  encoded ??= Buffer.concat(encodeDocument(documentV2() as unknown as Json));
  return encoded;
}

type Json = { [key: string]: unknown };
type Bytes = Buffer[];

/** Field number → wire bytes. Length-delimited is all we need besides a varint for true. */
function field(number: number, payload: Bytes): Bytes {
  const size = payload.reduce((sum, b) => sum + b.length, 0);
  return [varint((number << 3) | 2), varint(size), ...payload];
}

function text(number: number, value: unknown): Bytes {
  return typeof value === 'string' && value !== '' ? field(number, [Buffer.from(value)]) : [];
}

function truth(number: number, value: unknown): Bytes {
  return value === true ? [varint(number << 3), Buffer.of(1)] : [];
}

function varint(n: number): Buffer {
  const bytes: number[] = [];
  let rest = n;
  do {
    bytes.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    rest >>>= 7;
  } while (rest > 0);
  return Buffer.from(bytes);
}

const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
const listOf = (v: unknown): unknown[] => (Array.isArray(v) ? v : []);
const entries = (v: unknown): [string, unknown][] => (isObject(v) ? Object.entries(v) : []);

/** NamedX { name = 1; value = 2 } */
function named(number: number, values: readonly [string, unknown][], encode: (value: unknown) => Bytes): Bytes {
  return values.flatMap(([name, value]) => field(number, [...text(1, name), ...field(2, encode(value))]));
}

const yamlAny = (value: unknown): Bytes => text(2, JSON.stringify(value));
const extensions = (number: number, o: Json): Bytes =>
  named(
    number,
    Object.entries(o).filter(([key]) => key.startsWith('x-')),
    yamlAny,
  );

function encodeDocument(d: Json): Bytes {
  const info = isObject(d['info']) ? d['info'] : {};
  return [
    ...text(1, d['swagger']),
    ...field(2, [...text(1, info['title']), ...text(2, info['version'])]),
    ...field(8, named(2, entries(d['paths']), pathItem)),
    ...field(9, named(1, entries(d['definitions']), schema)),
  ];
}

const METHODS: Record<string, number> = { get: 2, put: 3, post: 4, delete: 5, options: 6, head: 7, patch: 8 };

function pathItem(value: unknown): Bytes {
  const item = isObject(value) ? value : {};
  const operations = Object.entries(METHODS).flatMap(([method, number]) => {
    const op = item[method];
    return isObject(op) ? field(number, operation(op)) : [];
  });
  return [...operations, ...listOf(item['parameters']).flatMap((p) => field(9, parameter(p)))];
}

function operation(op: Json): Bytes {
  return [
    ...text(5, op['operationId']),
    ...listOf(op['produces']).flatMap((t) => text(6, t)),
    ...listOf(op['consumes']).flatMap((t) => text(7, t)),
    ...listOf(op['parameters']).flatMap((p) => field(8, parameter(p))),
    ...field(9, named(1, entries(op['responses']), response)),
    ...extensions(13, op),
  ];
}

/** ParametersItem { parameter = 1 { body_parameter = 1 | non_body_parameter = 2 { query = 3 | path = 4 } } } */
function parameter(value: unknown): Bytes {
  const p = isObject(value) ? value : {};
  if (p['in'] === 'body') {
    const body = [
      ...text(2, p['name']),
      ...text(3, 'body'),
      ...truth(4, p['required']),
      ...field(5, schema(p['schema'])),
    ];
    return field(1, field(1, body));
  }
  const isPath = p['in'] === 'path';
  const common = [
    ...truth(1, p['required']),
    ...text(2, p['in']),
    ...text(4, p['name']),
    ...text(isPath ? 5 : 6, p['type']),
    ...truth(isPath ? 19 : 20, p['uniqueItems']),
  ];
  return field(1, field(2, field(isPath ? 4 : 3, common)));
}

/** ResponseValue { response = 1 { description = 1; schema = 2 { schema = 1 } } } */
function response(value: unknown): Bytes {
  const r = isObject(value) ? value : {};
  return field(1, [
    ...text(1, r['description']),
    ...(r['schema'] === undefined ? [] : field(2, field(1, schema(r['schema'])))),
  ]);
}

function schema(value: unknown): Bytes {
  const s = isObject(value) ? value : {};
  return [
    ...text(1, s['$ref']),
    ...text(2, s['format']),
    ...text(4, s['description']),
    ...listOf(s['required']).flatMap((r) => text(19, r)),
    ...listOf(s['enum']).flatMap((e) => field(20, yamlAny(e))),
    ...(s['additionalProperties'] === undefined ? [] : field(21, field(1, schema(s['additionalProperties'])))),
    ...(s['type'] === undefined ? [] : field(22, text(1, s['type']))),
    ...(s['items'] === undefined ? [] : field(23, field(1, schema(s['items'])))),
    ...(s['properties'] === undefined ? [] : field(25, named(1, entries(s['properties']), schema))),
    ...extensions(31, s),
  ];
}
