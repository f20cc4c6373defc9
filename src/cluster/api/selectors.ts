import type { KubeObject } from '#cluster/store/objects.ts';
import { matchesRequirements, parseSelector, type Requirement } from '#spec/kubernetes/selector.ts';
import { badRequest } from './status.ts';

/** What a list or watch asks for beyond its namespace. */
export interface Selection {
  labels: readonly Requirement[];
  fields: readonly FieldTerm[];
}

interface FieldTerm {
  field: string;
  equal: boolean;
  value: string;
}

/** The fields a resource may be selected by, and their value in an object. */
export type SelectableFields = Readonly<Record<string, (object: KubeObject) => string>>;

export const EVERYTHING: Selection = { labels: [], fields: [] };

export function parseSelection(
  query: { labels: string | null; fields: string | null },
  selectable: SelectableFields,
  apiVersion: string,
): Selection {
  const labels = parseSelector(query.labels ?? '');
  if (typeof labels === 'string') throw badRequest(`unable to parse requirement: ${labels}`);
  return { labels, fields: parseFields(query.fields ?? '', selectable, apiVersion) };
}

function parseFields(text: string, selectable: SelectableFields, apiVersion: string): FieldTerm[] {
  return text
    .split(',')
    .filter((term) => term !== '')
    .map((term) => {
      const match = /^([^=!]+)(==|!=|=)(.*)$/.exec(term);
      if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
      const [, field = '', operator, value = ''] = match;
      if (!Object.hasOwn(selectable, field))
        throw badRequest(
          `Unable to find "${apiVersion}" that match label selector "", field selector "${text}": field label not supported: ${field}`,
        );
      return { field, equal: operator !== '!=', value };
    });
}

export function isEverything(selection: Selection): boolean {
  return selection.labels.length === 0 && selection.fields.length === 0;
}

export function selects(selection: Selection, object: KubeObject, selectable: SelectableFields): boolean {
  if (!matchesRequirements(selection.labels, object.metadata.labels)) return false;
  return selection.fields.every((term) => (selectable[term.field]?.(object) === term.value) === term.equal);
}
