import type { ContainerRecord } from '#engine/core/record.ts';

const short = (id: string): string => id.replace(/^sha256:/, '').slice(0, 12);

/** What a log option `tag` may say, of Docker's template: fields alone, no functions. */
const TAG_FIELDS: Readonly<Record<string, (record: ContainerRecord) => string>> = {
  DaemonName: () => 'estiba',
  FullID: ({ id }) => id,
  ID: ({ id }) => short(id),
  ImageFullID: ({ image }) => image.id,
  ImageID: ({ image }) => short(image.id),
  ImageName: ({ image }) => image.reference,
  Name: ({ name }) => name,
};
const TAG_FIELD = /\{\{\s*\.(\w+)\s*\}\}/g;

/** True for a text without braces but around known fields. */
export function isTagTemplate(text: string): boolean {
  const rest = text.replace(TAG_FIELD, (whole, field: string) => (Object.hasOwn(TAG_FIELDS, field) ? '' : whole));
  return !/[{}]/.test(rest);
}

/** Labels and variables that the log options name, and the tag, as `--details` shows them: sorted, and escaped as in a URL. */
export function detailsOf(record: ContainerRecord): string {
  const { options } = record.spec.logging;
  const { labels, env } = record.process;
  const variables = env.map((entry) => [entry.split('=', 1)[0] ?? '', entry.replace(/^[^=]*=?/, '')] as const);
  const tag = options['tag']?.replace(TAG_FIELD, (whole, field: string) => TAG_FIELDS[field]?.(record) ?? whole);
  const pairs = [
    ...named(Object.entries(labels), options['labels'], options['labels-regex']),
    ...named(variables, options['env'], options['env-regex']),
    ...(tag ? [['tag', tag] as const] : []),
  ];
  const lines = pairs.map(([name, value]) => `${queryEscape(name)}=${queryEscape(value)}`);
  return `${[...new Set(lines)].sort().join(',')} `;
}

function named(
  pairs: readonly (readonly [string, string])[],
  list: string | undefined,
  pattern: string | undefined,
): (readonly [string, string])[] {
  const names = new Set(list?.split(','));
  const regex = pattern ? new RegExp(pattern) : undefined;
  return pairs.filter(([name]) => names.has(name) || regex?.test(name));
}

/** As Go's url.QueryEscape. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');
}
