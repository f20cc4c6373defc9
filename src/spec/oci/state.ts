import { integer, type Out, object, oneOf, optional, record, text } from '#base/shape.ts';
import { absolutePath } from '#spec/oci/fields.ts';
import { parseJson } from '#spec/oci/json.ts';

/** `paused` is an addition that runc made and every engine reads. */
export const STATUSES = ['creating', 'created', 'running', 'stopped', 'paused'] as const;
export type Status = (typeof STATUSES)[number];

/** The state of a container (runtime.md, "State"): what hooks get on stdin and `state` prints, the latter with more. */
export const State = object({
  ociVersion: text({ nonEmpty: true }),
  id: text({ nonEmpty: true }),
  status: oneOf(...STATUSES),
  pid: optional(integer({ min: 0 })),
  bundle: absolutePath(),
  annotations: optional(record(text())),
});
export type OciState = Out<typeof State>;

export function parseState(source: string): OciState {
  return State(parseJson(source), '$');
}
