import type { LabelSelector } from './types.gen.ts';

/** One requirement on labels; all requirements of a selector must hold. */
export type Requirement =
  | { key: string; operator: 'In' | 'NotIn'; values: readonly string[] }
  | { key: string; operator: 'Exists' | 'DoesNotExist' }
  | { key: string; operator: 'Gt' | 'Lt'; value: number };

type Labels = Readonly<Record<string, string>> | undefined;

export function matchesRequirements(requirements: readonly Requirement[], labels: Labels): boolean {
  return requirements.every((r) => matchesRequirement(r, labels));
}

function matchesRequirement(r: Requirement, labels: Labels): boolean {
  const value = labels && Object.hasOwn(labels, r.key) ? labels[r.key] : undefined;
  switch (r.operator) {
    case 'In':
      return value !== undefined && r.values.includes(value);
    case 'NotIn':
      return value === undefined || !r.values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'Gt':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) > r.value;
    case 'Lt':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) < r.value;
  }
}

/** The object form, as in a Deployment's `spec.selector`. Undefined selects nothing, an empty one everything. */
export function matchesSelector(selector: LabelSelector | undefined, labels: Labels): boolean {
  return selector !== undefined && matchesRequirements(requirementsOf(selector), labels);
}

export function requirementsOf(selector: LabelSelector): Requirement[] {
  const equal = Object.entries(selector.matchLabels ?? {}).map(
    ([key, value]): Requirement => ({ key, operator: 'In', values: [value] }),
  );
  const expressions = (selector.matchExpressions ?? []).map((e): Requirement => {
    if (e.operator === 'Exists' || e.operator === 'DoesNotExist') return { key: e.key, operator: e.operator };
    return { key: e.key, operator: e.operator === 'NotIn' ? 'NotIn' : 'In', values: e.values ?? [] };
  });
  return [...equal, ...expressions];
}

/** The string form of `labelSelector=` and of Scale's `status.selector`. */
export function formatRequirements(requirements: readonly Requirement[]): string {
  const sorted = [...requirements].sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  return sorted.map(formatRequirement).join(',');
}

function formatRequirement(r: Requirement): string {
  switch (r.operator) {
    case 'In':
      return r.values.length === 1 ? `${r.key}=${r.values[0]}` : `${r.key} in (${[...r.values].sort().join(',')})`;
    case 'NotIn':
      return `${r.key} notin (${[...r.values].sort().join(',')})`;
    case 'Exists':
      return r.key;
    case 'DoesNotExist':
      return `!${r.key}`;
    case 'Gt':
      return `${r.key}>${r.value}`;
    case 'Lt':
      return `${r.key}<${r.value}`;
  }
}

/**
 * Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`. Returns what is wrong as a string instead of requirements when it is malformed.
 */
export function parseSelector(text: string): Requirement[] | string {
  const out: Requirement[] = [];
  for (const part of splitOutsideParentheses(text)) {
    const requirement = parseRequirement(part.trim());
    if (typeof requirement === 'string') return requirement;
    if (requirement) out.push(requirement);
  }
  return out;
}

function splitOutsideParentheses(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '(') depth++;
    else if (c === ')') depth--;
    else if (c === ',' && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  return text.trim() === '' ? [] : [...parts, text.slice(start)];
}

const KEY = /^(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?$/;
const VALUE = /^(?:[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?)?$/;

function parseRequirement(part: string): Requirement | string | undefined {
  if (part === '') return 'found an empty requirement';
  const set = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set) {
    const [, key = '', operator, list = ''] = set;
    const values = list.split(',').map((v) => v.trim());
    return checked(key, values) ?? { key, operator: operator === 'in' ? 'In' : 'NotIn', values };
  }
  const compare = /^([^=!<>\s]+)\s*(==|=|!=|>|<)\s*(.*)$/.exec(part);
  if (compare) {
    const [, key = '', operator, value = ''] = compare;
    const wrong = checked(key, [value]);
    if (wrong) return wrong;
    if (operator === '>' || operator === '<')
      return /^-?\d+$/.test(value)
        ? { key, operator: operator === '>' ? 'Gt' : 'Lt', value: Number(value) }
        : `for 'Gt', 'Lt' operators, the value must be an integer`;
    return { key, operator: operator === '!=' ? 'NotIn' : 'In', values: [value] };
  }
  const absent = part.startsWith('!');
  const key = absent ? part.slice(1).trim() : part;
  return checked(key, []) ?? { key, operator: absent ? 'DoesNotExist' : 'Exists' };
}

function checked(key: string, values: readonly string[]): string | undefined {
  if (!KEY.test(key)) return `invalid label key ${JSON.stringify(key)}`;
  const wrong = values.find((v) => !VALUE.test(v) || v.length > 63);
  return wrong === undefined
    ? undefined
    : `invalid label value ${JSON.stringify(wrong)} for key ${JSON.stringify(key)}`;
}
