import { integer, object, optional, string } from '#base/shape.ts';

/** What the store keeps of an unpacked layer, by its diff id. */
export const layerRecord = object({
  name: string({ match: /^[0-9a-z]{1,8}$/ }),
  blob: string(),
  imageBytes: integer({ min: 0 }),
  contentBytes: integer({ min: 0 }),
  inodes: integer({ min: 0 }),
  /** SHA-256 of the image file or tree, once it was computed. */
  checksum: optional(string()),
});
export type LayerRecord = ReturnType<typeof layerRecord>;
