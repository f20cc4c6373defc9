import { boolean, integer, object, oneOf, optional, record, string } from '#base/shape.ts';

/** A volume as the node remembers it: `volume/NAME` in the node's store. */
export const volumeShape = object({
  name: string({ nonEmpty: true }),
  createdAtMs: integer({ min: 0 }),
  labels: record(string()),
  /** As they came; what they mean is `options.ts`. */
  options: record(string()),
  /** Made for this container, which takes it along when it goes with its volumes. */
  anonymousOf: optional(string()),
  /** `making`: a disk image is being formatted. `going`: the intent of a removal. Both are finished at start by removing it. */
  state: oneOf('making', 'ready', 'going'),
  /** A copy from an image that has begun: see `fill`. */
  filling: optional(
    object({
      staging: string({ match: /^\.estiba-fill-[0-9a-f]+$/ }),
      complete: boolean(),
      top: object({ uid: integer(), gid: integer(), mode: integer() }),
    }),
  ),
});
export type VolumeRecord = ReturnType<typeof volumeShape>;

export interface Volume {
  name: string;
  driver: 'local';
  /** Where its files are on the host; mounted only while a container runs, when the options name something to mount. */
  path: string;
  createdAtMs: number;
  labels: Readonly<Record<string, string>>;
  options: Readonly<Record<string, string>>;
  anonymous: boolean;
}
