/** `Link: </v2/a/tags/list?n=2&last=b>; rel="next"` (RFC 8288), the only relation registries use: where the next page is. */
export function nextLink(pathAndQuery: string): string {
  return `<${pathAndQuery}>; rel="next"`;
}

/** The target of the `next` relation, as sent (relative or absolute), or undefined. */
export function parseNextLink(header: string | undefined): string | undefined {
  for (const match of (header ?? '')
    .slice(0, 16_384)
    .matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\*?=(?:"[^"]*"|[^",;\s]+))*)/g)) {
    const relation = /;\s*rel=(?:"([^"]*)"|([^",;\s]+))/i.exec(match[2] ?? '');
    const names = (relation?.[1] ?? relation?.[2] ?? '').toLowerCase().split(/\s+/);
    if (names.includes('next')) return match[1];
  }
  return undefined;
}
