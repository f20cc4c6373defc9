import { defineError } from '#base/errors.ts';

/** A layer that cannot be unpacked: which blob, which entry, which rule. */
export const LayerInvalid = defineError('LAYER_INVALID', (d: { blob: string; entry: string; rule: string }) => ({
  message: `${d.blob}: ${d.entry === '' ? '' : `entry ${JSON.stringify(d.entry.slice(0, 300))} `}${d.rule}`,
  hint: 'the layer is damaged, or was made to do harm; ask whoever built the image',
}));
