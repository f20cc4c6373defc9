/** First and last byte, both included, as HTTP counts them. */
export interface ByteRange {
  first: number;
  last: number;
}

/**
 * `Range: bytes=…` of a request (RFC 9110 §14.2) for a body of `sizeBytes`. `undefined`: send the whole body, since there is
 * no range, it is in another unit, or it asks for several at once, which a server may ignore. `'unsatisfiable'`: 416.
 */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | 'unsatisfiable' | undefined {
  const match = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(header ?? '');
  if (!match) return undefined;
  const [, from = '', to = ''] = match;
  if (from === '' && to === '') return undefined;
  if (from === '') {
    const suffix = Number(to);
    if (suffix === 0 || sizeBytes === 0) return 'unsatisfiable';
    return { first: Math.max(0, sizeBytes - suffix), last: sizeBytes - 1 };
  }
  const first = Number(from);
  const last = to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1);
  // RFC 9110 calls "500-0" an invalid range to be ignored; the conformance program, like nginx, wants it refused.
  if (first >= sizeBytes || last < first) return 'unsatisfiable';
  return { first, last };
}

/**
 * The range of an upload's chunk: `0-1023` (distribution spec, "Pushing a blob in chunks"); the form of HTTP's own
 * `Content-Range`, `bytes 0-1023/*`, is taken too. `undefined`: not a range.
 */
export function parseChunkRange(header: string): ByteRange | undefined {
  const match = /^(?:bytes[ =])?(\d{1,16})-(\d{1,16})(?:\/(?:\d+|\*))?$/.exec(header.trim());
  if (!match) return undefined;
  const range = { first: Number(match[1]), last: Number(match[2]) };
  return range.last >= range.first - 1 ? range : undefined;
}

/** `Content-Range: bytes 500-1499/2048` of a 206 answer. */
export function parseContentRange(header: string | undefined): (ByteRange & { sizeBytes?: number }) | undefined {
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(header?.trim() ?? '');
  if (!match) return undefined;
  const range = { first: Number(match[1]), last: Number(match[2]) };
  return match[3] === '*' ? range : { ...range, sizeBytes: Number(match[3]) };
}
