import { type EntryType, type TarEntry, XATTR_MAX_BYTES } from '#image/tar/entry.ts';
import { LayerInvalid } from '#image/tar/errors.ts';
import { BrokenRule, broken } from '#image/tar/header.ts';

/**
 * The tree of one layer, built from its entries before anything of it touches a file system: what could lead out of the
 * layer (a link on the way, a file where a directory was) is refused here, once, for every way of storing a layer.
 *
 * Whiteouts (image-spec, layer.md) become what overlayfs understands: a character device 0:0 hides a name of the layers
 * below, and `trusted.overlay.opaque` on a directory hides all of them.
 */
export interface Node {
  type: Exclude<EntryType, 'hardlink'>;
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  size: number;
  linkTarget: string;
  deviceMajor: number;
  deviceMinor: number;
  xattrs: Map<string, Uint8Array> | undefined;
  /** Names it has; directories: 2 and one for each sub-directory. */
  links: number;
  /** Of directories. */
  children: Map<string, Node> | undefined;
  /** Made because something in it was, without an entry of its own (yet). */
  implicit: boolean;
  opaque: boolean;
  /** Where the store of the layer put the file's data; its own to use. */
  data: number;
  /** Contents of small files, kept to stand beside the inode. */
  inline: Buffer | undefined;
}

export interface IdMap {
  uid(id: number): number;
  gid(id: number): number;
}

export const SAME_IDS: IdMap = { uid: (id) => id, gid: (id) => id };

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** aufs kept its own files under this prefix; Docker and containerd skip them too. */
const AUFS = '.wh..wh.';

/** These steer overlayfs itself; in a layer from outside they could point anywhere (trusted.overlay.redirect). */
const OVERLAY_XATTR = /^(?:trusted|user)\.overlay\./;
const OVERLAY_HARMLESS = /\.(?:opaque|origin|impure|nlink|upper|uuid|whiteout|whiteouts)$/;

const STORABLE_XATTR = /^(?:(?:user|trusted|security)\..|system\.posix_acl_(?:access|default)$)/;
/** EROFS counts an inode's attributes in 16 bits of 4 bytes; ext4 takes less. */
const XATTRS_MAX_BYTES = 200_000;

export class LayerTree {
  readonly root: Node = directory();
  readonly #blob: string;
  readonly #ids: IdMap;
  readonly #whiteouts = new Map<Node, Set<string>>();
  #lastPath = '';
  #lastParent: Node = this.root;

  constructor(blob: string, ids: IdMap = SAME_IDS) {
    this.#blob = blob;
    this.#ids = ids;
  }

  /** Takes the entry in. The node that its data belongs to; undefined when it has none (whiteouts, links). */
  add(entry: TarEntry): Node | undefined {
    try {
      return this.#add(entry);
    } catch (error) {
      if (!(error instanceof BrokenRule)) throw error;
      throw new LayerInvalid({ blob: this.#blob, entry: entry.path, rule: error.message });
    }
  }

  /** Puts the whiteouts in. After it nothing is added. */
  finish(): void {
    for (const [parent, names] of this.#whiteouts) {
      for (const name of names) {
        const present = parent.children?.get(name);
        // A name removed and made again in one layer: only what lies in the layers below is hidden.
        if (present?.type === 'dir') present.opaque = true;
        else if (!present) parent.children?.set(name, whiteout());
      }
    }
    this.#whiteouts.clear();
  }

  #add(entry: TarEntry): Node | undefined {
    if (entry.path === '') {
      if (entry.type !== 'dir') broken('is the root of the image, but not a directory');
      this.#describe(this.root, entry);
      return undefined;
    }
    const slash = entry.path.lastIndexOf('/');
    const name = entry.path.slice(slash + 1);
    const parent = this.#parent(slash < 0 ? '' : entry.path.slice(0, slash));
    if (name.startsWith(WHITEOUT)) return this.#whiteout(parent, name);
    if (entry.type === 'hardlink') return this.#link(parent, name, entry);
    return this.#node(parent, name, entry);
  }

  #node(parent: Node, name: string, entry: TarEntry): Node | undefined {
    const present = parent.children?.get(name);
    if (present) {
      // Directories come twice in layers that were put together from several; anything else has one meaning only once.
      if (present.type !== 'dir' || entry.type !== 'dir')
        broken(`stands in the layer twice: as ${present.type} and as ${entry.type}`);
      this.#describe(present, entry);
      return undefined;
    }
    const node =
      entry.type === 'dir'
        ? directory()
        : { ...directory(), type: entry.type as Node['type'], children: undefined, links: 1 };
    this.#describe(node, entry);
    this.#put(parent, name, node);
    return node.type === 'file' ? node : undefined;
  }

  #link(parent: Node, name: string, entry: TarEntry): undefined {
    if (parent.children?.has(name)) broken('stands in the layer twice, the second time as a hard link');
    const target = this.find(entry.linkTarget);
    if (!target) broken(`is a hard link to ${JSON.stringify(entry.linkTarget)}, which is not in the layer before it`);
    if (target.type === 'dir') broken('is a hard link to a directory');
    target.links++;
    parent.children?.set(name, target);
  }

  #whiteout(parent: Node, name: string): undefined {
    if (name === OPAQUE) parent.opaque = true;
    else if (!name.startsWith(AUFS)) {
      const hidden = name.slice(WHITEOUT.length);
      if (hidden === '' || hidden === '.' || hidden === '..') broken('is a whiteout of no name');
      const names = this.#whiteouts.get(parent) ?? new Set();
      this.#whiteouts.set(parent, names.add(hidden));
    }
  }

  find(path: string): Node | undefined {
    let at: Node | undefined = this.root;
    if (path === '') return at;
    for (const part of path.split('/')) at = at?.children?.get(part);
    return at;
  }

  /** The directory of that path, made where it is missing. Links on the way are not followed: they could lead anywhere. */
  #parent(path: string): Node {
    if (path === this.#lastPath) return this.#lastParent;
    let at = this.root;
    if (path !== '') {
      for (const part of path.split('/')) {
        let next = at.children?.get(part);
        if (!next) {
          next = directory();
          this.#put(at, part, next);
        }
        if (next.type !== 'dir')
          broken(`lies below ${JSON.stringify(part)}, which is a ${next.type} and not a directory`);
        at = next;
      }
    }
    this.#lastPath = path;
    this.#lastParent = at;
    return at;
  }

  #put(parent: Node, name: string, node: Node): void {
    parent.children?.set(name, node);
    if (node.type === 'dir') parent.links++;
  }

  #describe(node: Node, entry: TarEntry): void {
    node.mode = entry.mode;
    node.uid = this.#ids.uid(entry.uid);
    node.gid = this.#ids.gid(entry.gid);
    node.mtimeSec = entry.mtimeSec;
    node.mtimeNsec = entry.mtimeNsec;
    node.size = entry.size;
    node.linkTarget = entry.linkTarget;
    node.deviceMajor = entry.deviceMajor;
    node.deviceMinor = entry.deviceMinor;
    node.implicit = false;
    node.xattrs = undefined;
    for (const [name, value] of entry.xattrs ?? []) this.#xattr(node, name, value);
  }

  #xattr(node: Node, name: string, value: Uint8Array): void {
    if (OVERLAY_XATTR.test(name)) {
      if (!OVERLAY_HARMLESS.test(name)) broken(`has the attribute ${name}, which would redirect overlayfs`);
      if (name.endsWith('.opaque')) node.opaque = true;
      return;
    }
    if (!STORABLE_XATTR.test(name)) broken(`has the attribute ${name}, which no file system of ours holds`);
    node.xattrs ??= new Map();
    node.xattrs.set(name, value);
    let bytes = 0;
    for (const [n, v] of node.xattrs) bytes += n.length + v.length + 8;
    if (value.length >= XATTR_MAX_BYTES || bytes > XATTRS_MAX_BYTES)
      broken(`has more than ${XATTRS_MAX_BYTES} bytes of attributes`);
  }
}

function directory(): Node {
  return {
    type: 'dir',
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    size: 0,
    linkTarget: '',
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    links: 2,
    children: new Map(),
    implicit: true,
    opaque: false,
    data: 0,
    inline: undefined,
  };
}

function whiteout(): Node {
  return { ...directory(), type: 'char', mode: 0, links: 1, children: undefined, implicit: false };
}

export function isWhiteout(node: Node): boolean {
  return node.type === 'char' && node.deviceMajor === 0 && node.deviceMinor === 0;
}

export const OPAQUE_XATTR = 'trusted.overlay.opaque';
