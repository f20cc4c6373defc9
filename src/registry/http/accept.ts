/** One entry of an `Accept` header; `type` in lower case, `*` allowed on either side. */
export interface AcceptEntry {
  type: string;
  quality: number;
}

const ACCEPT_MAX_ENTRIES = 64;

export function parseAccept(header: string | undefined): AcceptEntry[] {
  return (header ?? '')
    .split(',', ACCEPT_MAX_ENTRIES)
    .map((part) => {
      const [type = '', ...parameters] = part.split(';').map((s) => s.trim().toLowerCase());
      const quality = parameters.find((p) => p.startsWith('q='))?.slice(2);
      return { type, quality: quality === undefined ? 1 : Number(quality) || 0 };
    })
    .filter((entry) => entry.type !== '');
}

/** No header at all accepts everything (RFC 9110 §12.5.1). */
export function accepts(entries: readonly AcceptEntry[], mediaType: string): boolean {
  if (entries.length === 0) return true;
  const type = mediaType.toLowerCase();
  const family = `${type.split('/')[0]}/*`;
  return entries.some((e) => e.quality > 0 && (e.type === type || e.type === '*/*' || e.type === family));
}
