import type { KubeObject } from '#cluster/store/objects.ts';
import { COLUMNS, type Column, DEFAULT_COLUMNS } from './columns.ts';

export type IncludeObject = 'None' | 'Metadata' | 'Object';

export function columnsOf(resource: string): readonly Column[] {
  return COLUMNS[resource] ?? DEFAULT_COLUMNS;
}

/** `meta.k8s.io/v1` Table of some objects. `headers` false leaves the columns out: later events of a watch. */
export function tableOf(
  columns: readonly Column[],
  objects: readonly KubeObject[],
  options: { nowMs: number; include: IncludeObject; metadata: object; headers: boolean; apiVersion: string },
): { rows: object[]; [field: string]: unknown } {
  return {
    kind: 'Table',
    apiVersion: options.apiVersion,
    metadata: options.metadata,
    columnDefinitions: options.headers
      ? columns.map(({ name, type, wide }) => ({
          name,
          type,
          format: name === 'Name' ? 'name' : '',
          description: '',
          priority: wide ? 1 : 0,
        }))
      : null,
    rows: objects.map((object) => ({
      cells: columns.map((column) => column.cell(object, options.nowMs)),
      ...(options.include === 'None'
        ? {}
        : { object: options.include === 'Object' ? object : partialMetadata(object, options.apiVersion) }),
    })),
  };
}

export function partialMetadata(object: KubeObject, apiVersion = 'meta.k8s.io/v1'): object {
  return { kind: 'PartialObjectMetadata', apiVersion, metadata: object.metadata };
}
