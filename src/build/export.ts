import type { BuildNode } from '#build/node.ts';
import { saveImages } from '#image/archive-save.ts';
import type { Image } from '#image/images.ts';
import { treeTar } from '#image/overlays.ts';
import type { ExportType } from '#spec/estiba/build.ts';

/** A result as one stream: an image layout that docker loads as well, or the files of its root as a tar. */
export async function* exportImage(node: BuildNode, image: Image, type: ExportType): AsyncGenerator<Buffer> {
  const lease = node.content.lease(`export of ${image.id}`);
  try {
    for (const { digest } of image.platform.manifest.layers) lease.add(digest);
    if (type !== 'tar') yield* saveImages(node.content, [{ image, names: image.repoTags }]);
    else yield* rootOf(node, image);
  } finally {
    lease.release();
  }
}

async function* rootOf(node: BuildNode, image: Image): AsyncGenerator<Buffer> {
  const root = await node.overlays.view(await node.images.layersOf(image));
  try {
    yield* treeTar(root, await node.readXattrs(root));
  } finally {
    await node.overlays.unmount(root);
  }
}
