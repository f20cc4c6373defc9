/**
 * A map in key order. Keys lie in blocks of at most `BLOCK`, so that an insert moves a few hundred pointers whatever the size,
 * and a scan walks plain arrays. Around 20 bytes an entry beside key and value.
 */
const BLOCK = 512;

interface Block<V> {
  keys: string[];
  values: V[];
}

export class SortedMap<V> {
  #blocks: Block<V>[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: string): V | undefined {
    const block = this.#blocks[this.#blockOf(key)];
    if (!block) return undefined;
    const at = lowerBound(block.keys, key);
    return block.keys[at] === key ? block.values[at] : undefined;
  }

  /** Answers what was there. */
  set(key: string, value: V): V | undefined {
    const index = this.#blockOf(key);
    const block = this.#blocks[index];
    if (!block) {
      this.#blocks.push({ keys: [key], values: [value] });
      this.#size++;
      return undefined;
    }
    const at = lowerBound(block.keys, key);
    if (block.keys[at] === key) {
      const before = block.values[at];
      block.values[at] = value;
      return before;
    }
    block.keys.splice(at, 0, key);
    block.values.splice(at, 0, value);
    this.#size++;
    if (block.keys.length > BLOCK) this.#split(index, block);
    return undefined;
  }

  delete(key: string): boolean {
    const index = this.#blockOf(key);
    const block = this.#blocks[index];
    if (!block) return false;
    const at = lowerBound(block.keys, key);
    if (block.keys[at] !== key) return false;
    block.keys.splice(at, 1);
    block.values.splice(at, 1);
    this.#size--;
    if (block.keys.length === 0) this.#blocks.splice(index, 1);
    return true;
  }

  /** Calls `visit` for keys from `start` (included) to `end` (excluded; `''` is none) in order until it returns false. */
  scan(start: string, end: string, visit: (value: V, key: string) => boolean): void {
    let at: number | undefined;
    for (let b = this.#blockOf(start); b < this.#blocks.length; b++) {
      const block = this.#blocks[b];
      if (!block) return;
      at = at === undefined ? lowerBound(block.keys, start) : 0;
      for (; at < block.keys.length; at++) {
        const key = block.keys[at] as string;
        if (end !== '' && key >= end) return;
        if (!visit(block.values[at] as V, key)) return;
      }
    }
  }

  #split(index: number, block: Block<V>): void {
    // Keys often come in ascending order (names with counters): then the left block stays full and the right one grows.
    const isLast = index === this.#blocks.length - 1;
    const half = isLast ? BLOCK - BLOCK / 8 : BLOCK / 2;
    this.#blocks.splice(index + 1, 0, { keys: block.keys.splice(half), values: block.values.splice(half) });
  }

  /** The block that holds `key`, or would take it. */
  #blockOf(key: string): number {
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      const first = this.#blocks[middle]?.keys[0];
      if (first !== undefined && first <= key) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
