import type { Image } from '#image/images.ts';
import type { LayerInfo } from '#image/layers.ts';
import type { LayerSurvey, Survey } from '#image/survey.ts';
import type { Digest } from '#spec/image/digest.ts';
import type { Descriptor, ImageConfig } from '#spec/image/manifest.ts';
import { formatPlatform } from '#spec/image/platform.ts';

/** One line of `docker history`, newest first there; here lowest first, with the layer it made. */
export interface HistoryLine {
  createdBy: string;
  created: string | undefined;
  comment: string;
  author: string;
  layer?: { diffId: Digest; blob: Digest; blobBytes: number; contentBytes: number };
}

/** Pairs history with layers: lines that are not `empty_layer` made one each. Images without history get a line a layer. */
export function historyOf(
  config: ImageConfig,
  layers: readonly Descriptor[],
  unpacked: (diffId: Digest) => LayerInfo | undefined,
): HistoryLine[] {
  const told: NonNullable<ImageConfig['history']> = [...(config.history ?? [])];
  const withLayer = told.filter((line) => !line.empty_layer).length;
  for (let i = withLayer; i < layers.length; i++) told.push({ created_by: '' });
  let next = 0;
  return told.map((line) => {
    const diffId = line.empty_layer ? undefined : config.rootfs.diff_ids[next];
    const blob = line.empty_layer ? undefined : layers[next];
    if (!line.empty_layer) next++;
    return {
      createdBy: line.created_by ?? '',
      created: line.created,
      comment: line.comment ?? '',
      author: line.author ?? '',
      ...(diffId && blob
        ? {
            layer: {
              diffId,
              blob: blob.digest,
              blobBytes: blob.size,
              contentBytes: unpacked(diffId)?.contentBytes ?? 0,
            },
          }
        : {}),
    };
  });
}

/** `estiba image explain`: which instruction added which bytes, and what of them is wasted. Sizes in bytes. */
export interface Explanation extends Omit<Survey, 'layers'> {
  id: Digest;
  names: string[];
  platform: string;
  /** Of its layers as they are stored and travel. */
  blobBytes: number;
  /** Lowest first. */
  instructions: Instruction[];
}

export interface Instruction extends Omit<HistoryLine, 'layer'> {
  /** `position` is what `hidden` and `duplicates` count in, lowest 0. */
  layer?: NonNullable<HistoryLine['layer']> & Omit<LayerSurvey, 'bytes'> & { position: number };
}

export function explanationOf(
  { id, repoTags, platform: { config } }: Image,
  history: readonly HistoryLine[],
  { layers, ...survey }: Survey,
): Explanation {
  let next = 0;
  const instructions = history.map(({ layer, ...line }): Instruction => {
    const surveyed = layer && layers[next];
    if (!surveyed) return line;
    const { bytes: contentBytes, ...rest } = surveyed;
    return { ...line, layer: { ...layer, contentBytes, position: next++, ...rest } };
  });
  const blobBytes = history.reduce((sum, { layer }) => sum + (layer?.blobBytes ?? 0), 0);
  return { id, names: repoTags, platform: formatPlatform(config), blobBytes, instructions, ...survey };
}
