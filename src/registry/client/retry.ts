/** Delays double from `firstMs` to `longestMs`; up to half of each is left to chance, so that a herd does not come back as one. */
export interface RetryPolicy {
  attempts: number;
  firstMs: number;
  longestMs: number;
  /** A server that asks for more patience than this is not waited for: the user should know now. */
  retryAfterMaxMs: number;
}

export const RETRIES: RetryPolicy = { attempts: 4, firstMs: 250, longestMs: 8_000, retryAfterMaxMs: 30_000 };
/** Between breaks of one body: a registry may be restarting. Starts anew whenever bytes arrive. */
export const BODY_RETRIES: RetryPolicy = { attempts: 8, firstMs: 250, longestMs: 8_000, retryAfterMaxMs: 30_000 };

/**
 * How long to wait before the next try, or undefined to give up. `attempt` counts tries made, from 1; `random` is in [0, 1).
 */
export function delayBeforeRetry(
  policy: RetryPolicy,
  attempt: number,
  random: number,
  retryAfterMs: number | undefined,
): number | undefined {
  if (attempt >= policy.attempts) return undefined;
  if (retryAfterMs !== undefined) return retryAfterMs <= policy.retryAfterMaxMs ? retryAfterMs : undefined;
  const full = Math.min(policy.firstMs * 2 ** (attempt - 1), policy.longestMs);
  return full * (1 - random / 2);
}

/** `Retry-After` (RFC 9110 §10.2.3): seconds or a date. */
export function retryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const dateMs = Date.parse(header);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

/** Statuses that may pass: overload and restarts. */
export function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status === 500 || status === 502 || status === 503 || status === 504;
}
