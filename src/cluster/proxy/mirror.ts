import type { SetElement } from '#cluster/proxy/elements.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import { addElements, deleteElements, type Element, type TableRef } from '#kernel/nft/message.ts';

/**
 * What the kernel's sets hold, with who wanted it there. An element that several want alike is there once; one that is wanted
 * with another value belongs to who came first, and the others are told who that is.
 */
export class Mirror {
  readonly #sets = new Map<string, Map<string, Held>>();
  readonly #wishes = new Map<string, SetElement[]>();
  readonly #blocked = new Map<string, Set<string>>();

  /**
   * Replaces the owner's wishes. The change is noted at once; `changes` turns what was noted into messages. Returns the owners
   * that stand in the way.
   */
  wish(owner: string, elements: readonly SetElement[], changes: Changes): Set<string> {
    const inTheWay = new Set<string>();
    const granted: SetElement[] = [];
    const wanted = new Map(elements.map((e) => [nameOf(e), e]));
    for (const old of this.#wishes.get(owner) ?? []) {
      const now = wanted.get(nameOf(old));
      if (!now || valueOf(now.element) !== valueOf(old.element)) this.#leave(owner, old, changes);
    }
    for (const element of wanted.values()) {
      const holder = this.#enter(owner, element, changes);
      if (holder === undefined) granted.push(element);
      else inTheWay.add(holder);
    }
    if (granted.length > 0) this.#wishes.set(owner, granted);
    else this.#wishes.delete(owner);
    if (inTheWay.size > 0) this.#blocked.set(owner, inTheWay);
    else this.#blocked.delete(owner);
    return inTheWay;
  }

  /** Those who did not get all they wished because of this owner: they may try again when it changes. */
  waitingFor(owner: string): string[] {
    return [...this.#blocked].flatMap(([waiting, holders]) => (holders.has(owner) ? [waiting] : []));
  }

  get size(): number {
    return [...this.#sets.values()].reduce((sum, set) => sum + set.size, 0);
  }

  #enter(owner: string, { set, element }: SetElement, changes: Changes): string | undefined {
    const held = this.#sets.get(set) ?? new Map<string, Held>();
    this.#sets.set(set, held);
    const name = keyText(element);
    const value = valueOf(element);
    const there = held.get(name);
    if (there && there.value !== value) return [...there.owners][0];
    if (there) there.owners.add(owner);
    else {
      held.set(name, { value, owners: new Set([owner]) });
      changes.add(set, element);
    }
    return undefined;
  }

  #leave(owner: string, { set, element }: SetElement, changes: Changes): void {
    const held = this.#sets.get(set);
    const there = held?.get(keyText(element));
    if (!there?.owners.delete(owner) || there.owners.size > 0) return;
    held?.delete(keyText(element));
    changes.remove(set, element);
  }
}

interface Held {
  value: string;
  owners: Set<string>;
}

/** Elements that come and go in one transaction. */
export class Changes {
  readonly #removed = new Map<string, Map<string, Element>>();
  readonly #added = new Map<string, Map<string, Element>>();

  get isEmpty(): boolean {
    return this.#removed.size === 0 && this.#added.size === 0;
  }

  add(set: string, element: Element): void {
    const name = keyText(element);
    const removed = this.#removed.get(set)?.get(name);
    // Gone and back with the same value within one transaction: it never went.
    if (removed && valueOf(removed) === valueOf(element)) drop(this.#removed, set, name);
    else put(this.#added, set, name, element);
  }

  remove(set: string, element: Element): void {
    const name = keyText(element);
    if (this.#added.get(set)?.has(name)) drop(this.#added, set, name);
    else put(this.#removed, set, name, element);
  }

  /** In order, as text: for `--explain` and tests. */
  list(): { do: 'remove' | 'add'; set: string; key: string; value: string }[] {
    const of = (act: 'remove' | 'add', map: Map<string, Map<string, Element>>) =>
      [...map].flatMap(([set, elements]) =>
        [...elements].map(([key, element]) => ({ do: act, set, key, value: valueOf(element) })),
      );
    return [...of('remove', this.#removed), ...of('add', this.#added)];
  }

  /** Those that go, first: a key may come back with another value. */
  messages(table: TableRef): Message[] {
    return [
      ...[...this.#removed].flatMap(([set, elements]) =>
        parted([...elements.values()]).map((part) => deleteElements(table, set, part.map(keyOnly))),
      ),
      ...[...this.#added].flatMap(([set, elements]) =>
        parted([...elements.values()]).map((part) => addElements(table, set, part)),
      ),
    ];
  }
}

/** Elements in one message: a netlink attribute ends at 64 KiB, an element of ours takes at most some hundred bytes. */
const MESSAGE_ELEMENTS = 256;

function parted(elements: readonly Element[]): Element[][] {
  const out: Element[][] = [];
  for (let at = 0; at < elements.length; at += MESSAGE_ELEMENTS) out.push(elements.slice(at, at + MESSAGE_ELEMENTS));
  return out;
}

function keyOnly({ key, keyEnd }: Element): Element {
  return { key, ...(keyEnd ? { keyEnd } : {}) };
}

function put(map: Map<string, Map<string, Element>>, set: string, name: string, element: Element): void {
  const elements = map.get(set) ?? new Map<string, Element>();
  elements.set(name, element);
  map.set(set, elements);
}

function drop(map: Map<string, Map<string, Element>>, set: string, name: string): void {
  const elements = map.get(set);
  elements?.delete(name);
  if (elements?.size === 0) map.delete(set);
}

function nameOf({ set, element }: SetElement): string {
  return `${set} ${keyText(element)}`;
}

function keyText({ key, keyEnd }: Element): string {
  return `${hex(key)}${keyEnd ? `-${hex(keyEnd)}` : ''}`;
}

function valueOf({ data, verdict }: Element): string {
  if (verdict) return 'chain' in verdict ? `${verdict.verdict} ${verdict.chain}` : verdict.verdict;
  return data ? hex(data) : '';
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
