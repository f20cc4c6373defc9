import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Live } from '#cluster/client/resources.ts';
import { CannotProvision } from '#cluster/node/errors.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '#spec/kubernetes/types.gen.ts';

/** The default StorageClass: a directory of this node a claim, in the shape of the controllers' `Provisioner`. */
export class LocalVolumes {
  readonly name: string;
  readonly remark = ': a directory of the node, whose size is not enforced';
  readonly #dir: string;
  readonly #node: string;

  /** `dir`: durable; a directory a volume below it, by the volume's name. */
  constructor(options: { name: string; dir: string; node: string }) {
    this.name = options.name;
    this.#dir = options.dir;
    this.#node = options.node;
  }

  /** The same volume for the same claim, however often it is asked. CANNOT_PROVISION: it asks for what a directory is not. */
  async provision({
    name,
    claim,
  }: {
    name: string;
    claim: Live<PersistentVolumeClaim>;
  }): Promise<NonNullable<PersistentVolume['spec']>> {
    const { spec } = claim;
    const source = spec.dataSourceRef ?? spec.dataSource;
    if (source)
      throw new CannotProvision({ why: `volumes are made empty: ${source.kind} ${source.name} is not copied` });
    if (spec.volumeMode === 'Block')
      throw new CannotProvision({ why: 'volumes are directories: volumeMode Block is not served' });
    if (spec.selector) throw new CannotProvision({ why: 'claim.spec.selector is for volumes that are there already' });
    const path = join(this.#dir, name);
    await mkdir(path, { recursive: true, mode: 0o711 });
    await chmod(path, 0o777); // any user of a pod may write; only root comes as far as here on the host
    return {
      capacity: { storage: claim.spec.resources?.requests?.['storage'] ?? '1Gi' },
      accessModes: claim.spec.accessModes ?? ['ReadWriteOnce'],
      local: { path },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [this.#node] }] },
          ],
        },
      },
    };
  }

  async remove(volume: Live<PersistentVolume>): Promise<void> {
    await rm(join(this.#dir, volume.metadata.name), { recursive: true, force: true });
  }
}
