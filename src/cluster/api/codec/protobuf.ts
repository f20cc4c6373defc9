import type { FieldFacts, FieldType, ScalarType, TypeFacts } from '#spec/kubernetes/facts.ts';
import { badRequest } from '../status.ts';
import { type JsonObject, MAX_DEPTH, put } from './json.ts';

/**
 * Kubernetes' protobuf form of objects, read into the JSON they mean. Typed clients (kubectl 1.31+, controllers) send it; answers go
 * out as JSON, which every such client accepts. The envelope is four magic bytes and `runtime.Unknown`:
 *
 *     "k8s\0" · { typeMeta = 1 { apiVersion = 1, kind = 2 }, raw = 2, contentEncoding = 3, contentType = 4 }
 */
const MAGIC = Buffer.from('k8s\0');

export interface Envelope {
  apiVersion: string;
  kind: string;
  raw: Buffer;
}

export function isProtobuf(body: Uint8Array): boolean {
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength).subarray(0, MAGIC.length).equals(MAGIC);
}

export function openEnvelope(body: Uint8Array): Envelope {
  const out: Envelope = { apiVersion: '', kind: '', raw: Buffer.alloc(0) };
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (!isProtobuf(body))
    throw badRequest('provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]');
  for (const { number, value } of wireFields(bytes.subarray(MAGIC.length))) {
    if (!Buffer.isBuffer(value)) continue;
    if (number === 2) out.raw = value;
    if (number === 1) {
      for (const meta of wireFields(value)) {
        if (Buffer.isBuffer(meta.value) && meta.number === 1) out.apiVersion = meta.value.toString('utf8');
        if (Buffer.isBuffer(meta.value) && meta.number === 2) out.kind = meta.value.toString('utf8');
      }
    }
  }
  return out;
}

/** The object in an envelope, as JSON; what its type does not know is dropped, as protobuf readers do. */
export function decodeProtobuf(type: TypeFacts, { apiVersion, kind, raw }: Envelope): JsonObject {
  return { apiVersion, kind, ...readMessage(planOf(type), raw, 0) };
}

// ---- wire form

interface WireField {
  number: number;
  /** Varints and fixed numbers as bigint, everything else as bytes. */
  value: bigint | Buffer;
}

function* wireFields(bytes: Buffer): Generator<WireField> {
  let at = 0;
  const varint = (): bigint => {
    let result = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw malformed();
      result |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return result;
    }
    throw malformed();
  };
  const take = (size: number): Buffer => {
    if (at + size > bytes.length) throw malformed();
    at += size;
    return bytes.subarray(at - size, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const number = tag >>> 3;
    switch (tag & 7) {
      case 0:
        yield { number, value: varint() };
        break;
      case 1:
        yield { number, value: take(8).readBigUInt64LE() };
        break;
      case 2:
        yield { number, value: take(Number(varint())) };
        break;
      case 5:
        yield { number, value: BigInt(take(4).readUInt32LE()) };
        break;
      default:
        throw malformed();
    }
  }
}

function malformed(): Error {
  return badRequest('unable to decode the protobuf body: unexpected end or unknown wire type');
}

// ---- plans: numbers of a message to fields, inlined messages as plans of their own

interface Plan {
  fields: Map<number, FieldFacts>;
  inlined: Map<number, Plan>;
}

const plans = new WeakMap<TypeFacts, Plan>();

function planOf(type: TypeFacts): Plan {
  const known = plans.get(type);
  if (known) return known;
  const plan: Plan = { fields: new Map(), inlined: new Map() };
  plans.set(type, plan);
  for (const field of type.fields.values()) {
    let at = plan;
    for (const number of field.wire.slice(0, -1)) {
      const inner = at.inlined.get(number) ?? { fields: new Map(), inlined: new Map() };
      at.inlined.set(number, inner);
      at = inner;
    }
    const last = field.wire.at(-1);
    if (last !== undefined) at.fields.set(last, field);
  }
  return plan;
}

function readMessage(plan: Plan, bytes: Buffer, depth: number, into: JsonObject = {}): JsonObject {
  if (depth > MAX_DEPTH) throw badRequest(`the object is nested more than ${MAX_DEPTH} levels deep`);
  for (const { number, value } of wireFields(bytes)) {
    const inlined = plan.inlined.get(number);
    if (inlined && Buffer.isBuffer(value)) readMessage(inlined, value, depth + 1, into);
    const field = plan.fields.get(number);
    if (field) readField(field, value, depth, into);
  }
  return into;
}

// Go writes numbers and booleans that are no pointers even when they are zero, and upstream's defaults take zero for absent.
const ZERO_IS_ABSENT = new Set(
  'initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold hostPort nodePort healthCheckNodePort minReadySeconds generation observedGeneration count hostNetwork hostPID hostIPC stdin stdinOnce tty readOnly paused publishNotReadyAddresses unschedulable globalDefault denied'.split(
    ' ',
  ),
);

function readField({ name, type }: FieldFacts, value: bigint | Buffer, depth: number, into: JsonObject): void {
  if (type.kind === 'list') {
    const list = (into[name] as unknown[] | undefined) ?? [];
    into[name] = list;
    if (Buffer.isBuffer(value) && isNumeric(type.item)) list.push(...packed(value));
    else list.push(readValue(type.item, value, depth));
  } else if (type.kind === 'map') {
    const map = (into[name] as JsonObject | undefined) ?? {};
    into[name] = map;
    readEntry(type.item, value, depth, map);
  } else {
    const read = readValue(type, value, depth);
    if (read === '' || read === undefined || (!read && ZERO_IS_ABSENT.has(name))) return;
    into[name] = read;
  }
}

function readEntry(item: FieldType, entry: bigint | Buffer, depth: number, map: JsonObject): void {
  if (!Buffer.isBuffer(entry)) throw malformed();
  let key = '';
  let value: unknown = emptyOf(item);
  for (const part of wireFields(entry)) {
    if (part.number === 1 && Buffer.isBuffer(part.value)) key = part.value.toString('utf8');
    else if (part.number === 2)
      value = item.kind === 'list' ? readWrappedList(item.item, part.value, depth) : readValue(item, part.value, depth);
  }
  put(map, key, value);
}

function emptyOf(item: FieldType): unknown {
  if (item.kind === 'list') return [];
  return item.kind === 'scalar' && item.scalar !== 'quantity' ? '' : item.kind === 'scalar' ? '0' : {};
}

/** A list as a map's value is a message of its own: ExtraValue { items = 1 }. */
function readWrappedList(item: FieldType, value: bigint | Buffer, depth: number): unknown[] {
  if (!Buffer.isBuffer(value)) throw malformed();
  return [...wireFields(value)].filter((f) => f.number === 1).map((f) => readValue(item, f.value, depth + 1));
}

function isNumeric(type: FieldType): boolean {
  return type.kind === 'scalar' && ['int32', 'int64', 'bool'].includes(type.scalar);
}

function packed(bytes: Buffer): number[] {
  const out: number[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of bytes) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte >= 0x80) continue;
    out.push(Number(BigInt.asIntN(64, value)));
    value = 0n;
    shift = 0n;
  }
  return out;
}

function readValue(type: FieldType, value: bigint | Buffer, depth: number): unknown {
  if (type.kind === 'scalar') return SCALARS[type.scalar](value);
  if (type.kind !== 'ref' || !Buffer.isBuffer(value)) throw malformed();
  return readMessage(planOf(type.type), value, depth + 1);
}

const number = (value: bigint | Buffer): number => (Buffer.isBuffer(value) ? 0 : Number(BigInt.asIntN(64, value)));
const text = (value: bigint | Buffer): string => (Buffer.isBuffer(value) ? value.toString('utf8') : '');
const members = (value: bigint | Buffer): Map<number, bigint | Buffer> =>
  new Map(Buffer.isBuffer(value) ? [...wireFields(value)].map((f) => [f.number, f.value]) : []);

const SCALARS: Record<ScalarType, (value: bigint | Buffer) => unknown> = {
  string: text,
  bytes: (value) => (Buffer.isBuffer(value) ? value.toString('base64') : ''),
  bool: (value) => value === 1n,
  int32: number,
  int64: number,
  double: (value) => {
    if (Buffer.isBuffer(value)) return 0;
    const bits = Buffer.alloc(8);
    bits.writeBigUInt64LE(value);
    return bits.readDoubleLE();
  },
  // RawExtension { raw = 1 }, FieldsV1 { Raw = 1 }: JSON inside.
  any: (value) => {
    const raw = members(value).get(1);
    return Buffer.isBuffer(raw) && raw.length > 0 ? parsedJson(raw) : undefined;
  },
  // IntOrString { type = 1, intVal = 2, strVal = 3 }
  intstr: (value) => {
    const m = members(value);
    return number(m.get(1) ?? 0n) === 1 ? text(m.get(3) ?? 0n) : number(m.get(2) ?? 0n);
  },
  quantity: (value) => text(members(value).get(1) ?? 0n) || '0',
  time: (value) => timeText(value, 0),
  microtime: (value) => timeText(value, 6),
};

/** Time { seconds = 1, nanos = 2 }; an empty message is Go's zero time, which means none. */
function timeText(value: bigint | Buffer, digits: number): string | undefined {
  const m = members(value);
  if (!m.has(1)) return undefined;
  const seconds = new Date(number(m.get(1) ?? 0n) * 1000).toISOString().slice(0, 19);
  const fraction = String(number(m.get(2) ?? 0n))
    .padStart(9, '0')
    .slice(0, digits);
  return `${seconds}${digits > 0 ? `.${fraction}` : ''}Z`;
}

function parsedJson(raw: Buffer): unknown {
  try {
    return JSON.parse(raw.toString('utf8'));
  } catch (error) {
    throw badRequest('an embedded object in the protobuf body is not JSON', error);
  }
}
