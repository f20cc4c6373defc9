import { isCode } from '#base/errors.ts';
import type { Events } from '#engine/core/events.ts';
import type { Volume } from '#volume/model.ts';
import type { Volumes, VolumeWish } from '#volume/volumes.ts';

export type { Volume, VolumeWish };

/** The node's volumes for every front end: the volume layer, with what happens to it told to whoever listens. */
export class NodeVolumes {
  readonly #volumes: Volumes;
  readonly #events: Events;

  constructor(volumes: Volumes, events: Events) {
    this.#volumes = volumes;
    this.#events = events;
  }

  list(): Volume[] {
    return this.#volumes.list();
  }

  find(name: string): Volume {
    return this.#volumes.find(name);
  }

  /** Ids of containers that have it, running or not. */
  usersOf(name: string): string[] {
    return this.#volumes.usersOf(name);
  }

  async create(wish: VolumeWish): Promise<Volume> {
    const { volume, made } = await this.#volumes.create(wish);
    if (made) this.tell(volume.name, 'create', { driver: volume.driver });
    return volume;
  }

  /** `force`: one that is not there is no error. Volumes that a container has stay, whatever is asked. */
  async remove(name: string, how: { force: boolean }): Promise<void> {
    try {
      await this.#volumes.remove(name);
    } catch (error) {
      if (how.force && isCode(error, 'VOLUME_NOT_FOUND')) return;
      throw error;
    }
    this.tell(name, 'destroy', { driver: 'local' });
  }

  /** Removes what nobody has and `wanted` takes; answers names and the bytes that came free. */
  async prune(wanted: (volume: Volume) => boolean): Promise<{ names: string[]; bytes: number }> {
    const names: string[] = [];
    let bytes = 0;
    for (const volume of this.list()) {
      const { name } = volume;
      if (this.usersOf(name).length > 0 || !wanted(volume)) continue;
      const size = Math.max(0, await this.#volumes.usage(name));
      try {
        await this.remove(name, { force: true });
      } catch (error) {
        if (isCode(error, 'VOLUME_IN_USE')) continue; // a container took it meanwhile
        throw error;
      }
      names.push(name);
      bytes += size;
    }
    this.tell('', 'prune', { reclaimed: String(bytes) });
    return { names, bytes };
  }

  /** Bytes on disk; −1 when its files are not mounted. */
  usage(name: string): Promise<number> {
    return this.#volumes.usage(name);
  }

  tell(name: string, action: string, attributes: Record<string, string>): void {
    this.#events.publish({ type: 'volume', action, id: name, attributes });
  }
}
