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

export function renderList(resource: Resource, listing: Listing, view: View): WholeResponse {
  const metadata = {
    resourceVersion: String(listing.revision),
    ...(listing.continueToken === '' ? {} : { continue: listing.continueToken }),
    ...(listing.remaining === undefined ? {} : { remainingItemCount: listing.remaining }),
  };
  if (view.accepted.form === 'table') {
    const table = tableOf(columnsOf(resource.facts.resource), listing.items, {
      ...view,
      metadata,
      headers: true,
      apiVersion: 'meta.k8s.io/v1',
    });
    return json(200, table, view.accepted.format);
  }
  const isMetadata = view.accepted.form === 'metadata';
  const head = isMetadata
    ? { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata }
    : { kind: `${resource.facts.kind}List`, apiVersion: resource.facts.apiVersion, metadata };
  const items = listing.items.map((object) => (isMetadata ? partialMetadata(object) : present(resource, object)));
  return json(200, { ...head, items }, view.accepted.format);
}

function inForm<T>(form: Form, makers: Record<Form, () => T>): T {
  return makers[form]();
}
