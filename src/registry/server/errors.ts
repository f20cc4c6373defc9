import { defineError } from '#base/errors.ts';
import { ERROR_CODES, type WireCode } from '#registry/server/codes.gen.ts';

/**
 * What the server answers a client with. Everything a handler refuses is one of these; anything else that is thrown is our
 * own failure and becomes a 500 without details.
 */
export const Refused = defineError(
  'REGISTRY_REFUSED',
  (d: { wire: WireCode; says?: string; detail?: unknown; status?: number; headers?: Record<string, string> }) => ({
    message: d.says ?? ERROR_CODES[d.wire][1],
  }),
);
export type Refusal = InstanceType<typeof Refused>;

export function refuse(
  wire: WireCode,
  says?: string,
  more: { detail?: unknown; status?: number; headers?: Record<string, string> } = {},
): never {
  throw new Refused({ wire, ...(says === undefined ? {} : { says }), ...more });
}

export function statusOf(refusal: Refusal): number {
  return refusal.data.status ?? ERROR_CODES[refusal.data.wire][0];
}

/** The JSON body of a refusal (distribution spec, "Error Codes"). */
export function errorBody(code: string, message: string, detail?: unknown): string {
  return JSON.stringify({ errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }] });
}

/** A body went on after its bound, or stopped before its length; the connection is of no more use. */
export const BodyBroken = defineError('REGISTRY_BODY_BROKEN', (d: { why: string }) => ({
  message: `request body: ${d.why}`,
}));
