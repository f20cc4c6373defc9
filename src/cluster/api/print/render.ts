import type { KubeObject } from '#cluster/store/objects.ts';
import type { Accepted, Form } from '../http/negotiate.ts';
import { json } from '../http/respond.ts';
import type { WholeResponse } from '../http/types.ts';
import { present } from '../registry/decode.ts';
import type { Listing } from '../registry/list.ts';
import type { Resource } from '../resources/table.ts';
import { columnsOf, type IncludeObject, partialMetadata, tableOf } from './table.ts';

/** Turns stored objects into what the client asked for: the object in its version, a Table, or metadata alone. */
export interface View {
  accepted: Accepted;
  include: IncludeObject;
  nowMs: number;
}

export function viewOf(accepted: Accepted, query: URLSearchParams, nowMs: number): View {
  const include = query.get('includeObject');
  return { accepted, include: include === 'None' || include === 'Object' ? include : 'Metadata', nowMs };
}

/** Names the encoding of one event, so that watchers with the same wish share it. */
export function viewKey(resource: Resource, view: View): string {
  return `${resource.facts.apiVersion} ${view.accepted.form} ${view.include}`;
}

export function renderOne(resource: Resource, object: KubeObject, view: View, headers = true): unknown {
  return inForm(view.accepted.form, {
    object: () => present(resource, object),
    table: () =>
      tableOf(columnsOf(resource.facts.resource), [object], {
        ...view,
        metadata:
          object.metadata.resourceVersion === undefined ? {} : { resourceVersion: object.metadata.resourceVersion },
        headers,
        apiVersion: 'meta.k8s.io/v1',
      }),
    metadata: () => partialMetadata(object),
  });
}

/** Objects turned into text before others get their turn: a list of everything must not stop the server. */
const SLICE_OBJECTS = 250;

export async function renderList(resource: Resource, listing: Listing, view: View): Promise<WholeResponse> {
  const metadata = {
    resourceVersion: String(listing.revision),
    ...(listing.continueToken === '' ? {} : { continue: listing.continueToken }),
    ...(listing.remaining === undefined ? {} : { remainingItemCount: listing.remaining }),
  };
  const { form, format } = view.accepted;
  if (form === 'table') {
    const columns = columnsOf(resource.facts.resource);
    const parts = { nowMs: view.nowMs, include: view.include, metadata, headers: true, apiVersion: 'meta.k8s.io/v1' };
    const { rows: _, ...head } = tableOf(columns, [], parts);
    return whole(head, 'rows', listing.items, format, (object) => tableOf(columns, [object], parts).rows[0]);
  }
  if (form === 'metadata') {
    const head = { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata };
    return whole(head, 'items', listing.items, format, (object) => partialMetadata(object));
  }
  const head = { kind: `${resource.facts.kind}List`, apiVersion: resource.facts.apiVersion, metadata };
  return whole(head, 'items', listing.items, format, (object) => present(resource, object));
}

async function whole(
  head: object,
  member: string,
  objects: readonly KubeObject[],
  format: 'json' | 'yaml',
  render: (object: KubeObject) => unknown,
): Promise<WholeResponse> {
  if (format === 'yaml') return json(200, { ...head, [member]: objects.map(render) }, format);
  const texts: string[] = [];
  for (const [i, object] of objects.entries()) {
    texts.push(JSON.stringify(render(object)));
    if (i % SLICE_OBJECTS === SLICE_OBJECTS - 1) await new Promise((next) => setImmediate(next));
  }
  return json(200, `${JSON.stringify(head).slice(0, -1)},"${member}":[${texts.join(',')}]}`);
}

function inForm<T>(form: Form, makers: Record<Form, () => T>): T {
  return makers[form]();
}
