import { compareQuantities, formatQuantity, nanoOf } from '#spec/kubernetes/quantity.ts';
import type { LimitRange, LimitRangeItem } from '#spec/kubernetes/types.gen.ts';
import type { Cache } from '../cache/cache.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { forbidden } from '../status.ts';
import type { AdmissionRequest, MutatingPlugin } from './admission.ts';

/** LimitRanger: default requests and limits of a namespace, then its minima, maxima and ratios. */
export function limitRanger(cache: Cache): MutatingPlugin {
  return {
    name: 'LimitRanger',
    mutate(request) {
      const { resource, object, old, context } = request;
      const kind = resource.facts.resource;
      if (context.subresource !== '' || (!(kind === 'pods' && !old) && kind !== 'persistentvolumeclaims')) return;
      const items = [...cache.resource('limitranges').all(object.metadata.namespace)].flatMap(
        (s) => (s.object as unknown as LimitRange).spec?.limits ?? [],
      );
      if (items.length === 0) return;
      const errors = kind === 'pods' ? limitPod(object, items) : limitClaim(object, items);
      if (errors.length > 0)
        throw forbidden(
          {
            group: resource.facts.group,
            resource: kind,
            name: object.metadata.name || object.metadata.generateName || '',
          },
          errors.length === 1 ? (errors[0] ?? '') : `[${errors.join(', ')}]`,
        );
    },
  };
}

const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
type Amounts = Record<string, string>;

function limitPod(object: AdmissionRequest['object'], items: readonly LimitRangeItem[]): string[] {
  const spec = part(object, 'spec');
  const containers = [...list(spec['containers']), ...list(spec['initContainers'])];
  const errors: string[] = [];
  for (const item of items.filter((i) => i.type === 'Container')) {
    for (const container of containers) {
      const resources = part(container, 'resources');
      container['resources'] = withDefaults(resources, item);
      errors.push(...outOfRange(part(container, 'resources'), item, 'Container'));
    }
  }
  for (const item of items.filter((i) => i.type === 'Pod')) {
    errors.push(
      ...outOfRange(
        { requests: sums(list(spec['containers']), 'requests'), limits: sums(list(spec['containers']), 'limits') },
        item,
        'Pod',
      ),
    );
  }
  return errors;
}

function withDefaults(resources: JsonObject, item: LimitRangeItem): JsonObject {
  const limits = { ...item.default, ...(part(resources, 'limits') as Amounts) };
  const requests = { ...item.defaultRequest, ...(part(resources, 'requests') as Amounts) };
  return {
    ...resources,
    ...(Object.keys(limits).length > 0 ? { limits } : {}),
    ...(Object.keys(requests).length > 0 ? { requests } : {}),
  };
}

function sums(containers: readonly JsonObject[], kind: string): Amounts {
  const total: Record<string, bigint> = {};
  for (const container of containers) {
    for (const [name, value] of Object.entries(part(part(container, 'resources'), kind)))
      total[name] = (total[name] ?? 0n) + nanoOf(String(value));
  }
  return Object.fromEntries(
    Object.entries(total).map(([name, nano]) => [
      name,
      formatQuantity({ nano, format: name === 'cpu' ? 'decimal' : 'binary' }),
    ]),
  );
}

function outOfRange(resources: JsonObject, item: LimitRangeItem, type: string): string[] {
  const requests = part(resources, 'requests') as Amounts;
  const limits = part(resources, 'limits') as Amounts;
  const errors: string[] = [];
  for (const [name, min] of Object.entries(item.min ?? {})) {
    const has = requests[name] ?? limits[name];
    if (has === undefined) errors.push(`minimum ${name} usage per ${type} is ${min}.  No request is specified`);
    else if (compareQuantities(has, min) < 0)
      errors.push(`minimum ${name} usage per ${type} is ${min}, but request is ${has}`);
  }
  for (const [name, max] of Object.entries(item.max ?? {})) {
    const has = limits[name];
    if (has === undefined) errors.push(`maximum ${name} usage per ${type} is ${max}.  No limit is specified`);
    else if (compareQuantities(has, max) > 0)
      errors.push(`maximum ${name} usage per ${type} is ${max}, but limit is ${has}`);
  }
  for (const [name, ratio] of Object.entries(item.maxLimitRequestRatio ?? {})) {
    const request = nanoOf(requests[name]);
    const limit = nanoOf(limits[name]);
    if (request === 0n || limit === 0n)
      errors.push(
        `${name} max limit to request ratio per ${type} is ${ratio}, but no ${request === 0n ? 'request' : 'limit'} is specified or it is 0`,
      );
    else if (limit * 1_000_000_000n > nanoOf(ratio) * request)
      errors.push(
        `${name} max limit to request ratio per ${type} is ${ratio}, but provided ratio is ${(Number(limit) / Number(request)).toFixed(6)}`,
      );
  }
  return errors;
}

function limitClaim(object: AdmissionRequest['object'], items: readonly LimitRangeItem[]): string[] {
  const requests = part(part(part(object, 'spec'), 'resources'), 'requests') as Amounts;
  return items
    .filter((i) => i.type === 'PersistentVolumeClaim')
    .flatMap((item) => outOfRange({ requests, limits: requests }, item, 'PersistentVolumeClaim'));
}
