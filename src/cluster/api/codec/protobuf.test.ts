import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FieldType, kubernetesFacts, type TypeFacts } from '#spec/kubernetes/facts.ts';
import type { JsonObject } from './json.ts';
import { decodeProtobuf, openEnvelope } from './protobuf.ts';

// A writer of the same wire form, made from the same numbers: reading what it writes gives the object back.
function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}
const bytesField = (number: number, payload: Buffer): Buffer =>
  Buffer.concat([varint(BigInt((number << 3) | 2)), varint(BigInt(payload.length)), payload]);
const numberField = (number: number, value: number): Buffer =>
  Buffer.concat([varint(BigInt(number << 3)), varint(BigInt(value))]);

function message(type: TypeFacts, object: JsonObject): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of Object.entries(object)) {
    const field = type.fields.get(name);
    if (!field || field.wire.length === 0) continue;
    const [last = 0, ...outer] = [...field.wire].reverse();
    const written =
      Array.isArray(value) && field.type.kind === 'list'
        ? Buffer.concat(value.map((v) => one(last, itemOf(field.type), v)))
        : one(last, field.type, value);
    parts.push(outer.reduce((inner, number) => bytesField(number, inner), written));
  }
  return Buffer.concat(parts);
}
const itemOf = (type: FieldType): FieldType => (type.kind === 'list' ? type.item : type);

function one(number: number, type: FieldType, value: unknown): Buffer {
  if (type.kind === 'ref') return bytesField(number, message(type.type, value as JsonObject));
  if (type.kind === 'map')
    return Buffer.concat(
      Object.entries(value as JsonObject).map(([k, v]) =>
        bytesField(number, Buffer.concat([bytesField(1, Buffer.from(k)), one(2, type.item, v)])),
      ),
    );
  if (type.kind === 'list') throw new Error('a list of lists');
  switch (type.scalar) {
    case 'quantity':
      return bytesField(number, bytesField(1, Buffer.from(String(value))));
    case 'intstr':
      return bytesField(
        number,
        typeof value === 'number'
          ? Buffer.concat([numberField(1, 0), numberField(2, value)])
          : Buffer.concat([numberField(1, 1), bytesField(3, Buffer.from(String(value)))]),
      );
    case 'time':
      return bytesField(number, numberField(1, Date.parse(String(value)) / 1000));
    case 'bytes':
      return bytesField(number, Buffer.from(String(value), 'base64'));
    case 'bool':
      return numberField(number, value === true ? 1 : 0);
    case 'int32':
    case 'int64':
      return numberField(number, Number(value));
    default:
      return bytesField(number, Buffer.from(String(value)));
  }
}

function roundTrip(typeName: string, object: JsonObject): JsonObject {
  const type = kubernetesFacts().types.get(typeName);
  if (!type) throw new Error(`no ${typeName}`);
  const meta = Buffer.concat([
    bytesField(1, Buffer.from(String(object['apiVersion']))),
    bytesField(2, Buffer.from(String(object['kind']))),
  ]);
  const envelope = Buffer.concat([Buffer.from('k8s\0'), bytesField(1, meta), bytesField(2, message(type, object))]);
  return decodeProtobuf(type, openEnvelope(envelope));
}

describe('protobuf bodies', () => {
  it('read back as the object they were written from, inlined messages included', () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'p', labels: { a: 'b', __proto__x: 'c' }, creationTimestamp: '2026-01-02T03:04:05Z' },
      spec: {
        containers: [
          {
            name: 'c',
            image: 'busybox',
            command: ['a', ''],
            livenessProbe: { httpGet: { path: '/', port: 'web' }, periodSeconds: 3 },
            readinessProbe: { tcpSocket: { port: 80 }, failureThreshold: 2 },
            resources: { limits: { cpu: '100m', memory: '1Gi' } },
            env: [{ name: 'X', valueFrom: { secretKeyRef: { name: 's', key: 'k', optional: true } } }],
          },
        ],
        volumes: [
          { name: 'v', configMap: { name: 'm', defaultMode: 420 } },
          { name: 'e', emptyDir: {} },
        ],
        terminationGracePeriodSeconds: -5,
        automountServiceAccountToken: false,
      },
    };
    expect(roundTrip('core.v1.Pod', pod)).toEqual(pod);
  });

  it('keep bytes, replicas of zero and other zeros that mean something', () => {
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 's' },
      data: { a: 'AAEC', b: '' },
      immutable: false,
    };
    expect(roundTrip('core.v1.Secret', secret)).toEqual(secret);
    const deployment = {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'd' },
      spec: { replicas: 0, strategy: { rollingUpdate: { maxSurge: '25%', maxUnavailable: 0 } } },
    };
    expect(roundTrip('apps.v1.Deployment', deployment)).toEqual(deployment);
  });

  it('whatever config map was written is read', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 20 });
    fc.assert(
      fc.property(fc.dictionary(text, text), (data) => {
        const object = {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'm' },
          ...(Object.keys(data).length > 0 ? { data: { ...data } } : {}),
        };
        expect(roundTrip('core.v1.ConfigMap', object)).toEqual(object);
      }),
    );
  });
});
