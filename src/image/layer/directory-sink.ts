import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoOf, isCode, messageOf } from '#base/errors.ts';
import type { Unpacked } from '#image/layer/erofs-sink.ts';
import { type IdMap, isWhiteout, LayerTree, type Node, OPAQUE_XATTR } from '#image/layer/tree.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { LayerInvalid } from '#image/tar/errors.ts';
import type { TarConsumer } from '#image/tar/reader.ts';
import type { Op } from '#kernel/plan/plan.ts';

/**
 * Writes a layer as a directory, for kernels that mount no EROFS file and for users who may not mount:
 *
 *     <target>/data/<n>     contents as they come in, flat; gone when the tree stands
 *     <target>/fs           the tree, made from nothing when all of the layer has been seen
 *
 * No name of the layer is looked up on the host while its entries come: the tree is checked in memory first, then every
 * directory is made new, so no link can be on the way.
 *
 * What Node has no call for (attributes, devices, whiteouts, nanoseconds) is left for the caller's plan, and so are the times of
 * what that plan would change.
 */
export interface Unfinished {
  ops: Op[];
  /** Further names of devices and pipes. */
  links: [from: string, to: string][];
  times: Time[];
}

type Time = Omit<Op<'setTime'>, 'op'>;

/**
 * `keep`: owners, devices and attributes as the layer has them. `mapped`: the same by root of a user namespace, which may make no
 * devices (they are empty files) and sets no attributes of the host's root. `mine`: everything belongs to the user who unpacks,
 * and only `user.` attributes stay, as umoci's and Podman's rootless storage begins too.
 */
export type Ownership = 'keep' | 'mapped' | 'mine';

/** Attributes that the unpacker may set (xattr(7)): the kernel gives file capabilities of a user namespace its root's id. */
const SETTABLE: Readonly<Record<Ownership, RegExp>> = {
  keep: /^/,
  mapped: /^(?:user\.|system\.posix_acl_|security\.capability$)/,
  mine: /^user\./,
};

const BLOCK = 4096;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;
const OWNER_WRITES = 0o200;

export class DirectorySink implements TarConsumer {
  readonly #target: string;
  readonly #blob: string;
  readonly #tree: LayerTree;
  readonly #ownership: Ownership;
  readonly #left: Unfinished = { ops: [], links: [], times: [] };
  /** Where a node with several names was made first. */
  readonly #places = new Map<Node, string>();
  #node: Node | undefined;
  #fd: number | undefined;
  #written = 0;
  #nextData = 1;
  #contentBytes = 0;
  #diskBytes = 0;

  constructor(target: string, blob: string, ids: IdMap | undefined, ownership: Ownership) {
    this.#target = target;
    this.#blob = blob;
    this.#tree = new LayerTree(blob, ids);
    this.#ownership = ownership;
    mkdirSync(target, { mode: 0o700 });
    mkdirSync(join(target, 'data'), { mode: 0o700 });
  }

  entry(entry: TarEntry): void {
    const node = this.#tree.add(entry);
    this.#node = node;
    if (!node) return;
    this.#contentBytes += entry.size;
    node.data = this.#nextData++;
    this.#fd = openSync(this.#dataPath(node), 'wx', 0o600);
    this.#written = 0;
  }

  data(chunk: Buffer, offset: number): void {
    if (this.#fd === undefined) return;
    let done = 0;
    while (done < chunk.length) done += writeSync(this.#fd, chunk, done, chunk.length - done, offset + done);
    this.#written = offset + chunk.length;
    this.#diskBytes += chunk.length;
  }

  end(): void {
    if (this.#fd === undefined || !this.#node) return;
    // A hole at the end has no data that would make the file as long as it is.
    if (this.#written < this.#node.size) ftruncateSync(this.#fd, this.#node.size);
    closeSync(this.#fd);
    this.#fd = undefined;
    this.#node = undefined;
  }

  finish(): Unpacked & { left: Unfinished } {
    this.#tree.finish();
    const root = join(this.#target, 'fs');
    mkdirSync(root, { mode: 0o700 });
    let inodes = 1;
    const pending: [path: string, node: Node][] = [[root, this.#tree.root]];
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [at, directory] = next;
      for (const [name, node] of directory.children ?? []) {
        const path = `${at}/${name}`;
        if (this.#make(path, node)) inodes++;
        if (node.type === 'dir') pending.push([path, node]);
      }
      this.#describe(at, directory);
    }
    rmSync(join(this.#target, 'data'), { recursive: true });
    return {
      imageBytes: this.#diskBytes + inodes * BLOCK,
      contentBytes: this.#contentBytes,
      inodes,
      left: this.#left,
    };
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** False: one more name of what is there. */
  #make(path: string, node: Node): boolean {
    try {
      const first = this.#places.get(node);
      if (first !== undefined) {
        if (this.#isLeft(node)) this.#left.links.push([first, path]);
        else linkSync(first, path);
        return false;
      }
      if (node.type !== 'dir' && node.links > 1) this.#places.set(node, path);
      switch (node.type) {
        case 'dir':
          mkdirSync(path, { mode: 0o700 }); // described once all that lies in it is made
          return true;
        case 'file':
          renameSync(this.#dataPath(node), path);
          break;
        case 'symlink':
          symlinkSync(node.linkTarget, path);
          break;
        default:
          if (this.#isLeft(node)) this.#leave(path, node);
          else closeSync(openSync(path, 'wx', 0o600));
      }
      this.#describe(path, node);
      return true;
    } catch (cause) {
      if (isCode(cause, 'LAYER_INVALID')) throw cause;
      throw this.#refused(path, `cannot be made as a ${node.type} here: ${messageOf(cause)}`, cause);
    }
  }

  /** Whether the caller's plan makes it. Whiteouts need no privilege since Linux 5.8, pipes never did. */
  #isLeft(node: Node): boolean {
    if (node.type === 'fifo' || isWhiteout(node)) return true;
    return (node.type === 'char' || node.type === 'block') && this.#ownership === 'keep';
  }

  #leave(path: string, node: Node): void {
    const type = node.type === 'fifo' ? S_IFIFO : node.type === 'block' ? S_IFBLK : S_IFCHR;
    this.#left.ops.push({ op: 'mknod', path, mode: type | this.#modeOf(node), device: deviceNumber(node) });
  }

  /** chown clears set-id bits and capabilities, so mode comes after it and attributes last. */
  #describe(path: string, node: Node): void {
    const { uid, gid } = node;
    const mode = this.#modeOf(node);
    const isOwnerKept = this.#ownership !== 'mine';
    // An attribute of a file that its owner may not write is refused to everybody but root.
    const mayLack = this.#ownership === 'mine' && (node.xattrs !== undefined || node.opaque);
    if (this.#isLeft(node)) {
      if (isOwnerKept) this.#left.ops.push({ op: 'chown', path, uid, gid });
      this.#left.ops.push({ op: 'chmod', path, mode });
    } else {
      if (isOwnerKept) this.#own(path, node);
      if (node.type !== 'symlink') chmodSync(path, mode | (mayLack ? OWNER_WRITES : 0));
    }
    this.#setTime(path, node);
    for (const [name, value] of node.xattrs ?? [])
      if (SETTABLE[this.#ownership].test(name)) this.#left.ops.push({ op: 'setXattr', path, name, value });
    if (node.opaque) {
      const name = this.#ownership === 'keep' ? OPAQUE_XATTR : USER_OPAQUE_XATTR;
      this.#left.ops.push({ op: 'setXattr', path, name, value: Buffer.from('y') });
    }
    if (mayLack && node.type !== 'symlink') this.#left.ops.push({ op: 'chmod', path, mode });
  }

  #own(path: string, { uid, gid }: Node): void {
    try {
      lchownSync(path, uid, gid);
    } catch (cause) {
      // What user_namespaces(7) promises for an id without a mapping.
      if (errnoOf(cause) !== 'EINVAL') throw cause;
      const rule = `belongs to ${uid}:${gid}, an id that this user namespace has not: /etc/subuid and /etc/subgid give more`;
      throw this.#refused(path, rule, cause);
    }
  }

  #refused(path: string, rule: string, cause: unknown): Error {
    const entry = path.slice(this.#target.length + '/fs/'.length);
    return new LayerInvalid({ blob: this.#blob, entry, rule }, { cause });
  }

  /** Node takes seconds as a double, which is some 200 ns off for what is not whole. */
  #setTime(path: string, node: Node): void {
    const { mtimeSec: seconds, mtimeNsec: nanoseconds } = node;
    if (node.type === 'dir' || this.#isLeft(node) || nanoseconds !== 0)
      this.#left.times.push({ path, seconds: BigInt.asUintN(64, BigInt(seconds)), nanoseconds });
    // As text: of a negative number Node makes the present time.
    else lutimesSync(path, String(seconds), String(seconds));
  }

  /** Who is not root must be able to read what is his, and to remove it. */
  #modeOf(node: Node): number {
    if (this.#ownership !== 'mine') return node.mode;
    return node.mode | (node.type === 'dir' ? 0o700 : 0o400);
  }

  #dataPath(node: Node): string {
    return join(this.#target, 'data', `${node.data}`);
  }
}

/** What overlayfs reads instead when it is mounted with `userxattr` (Linux 5.11), as it is in user namespaces. */
export const USER_OPAQUE_XATTR = 'user.overlay.opaque';

/** glibc's makedev(3). */
function deviceNumber({ deviceMajor, deviceMinor }: Node): bigint {
  const [major, minor] = [BigInt(deviceMajor), BigInt(deviceMinor)];
  return ((major & 0xfffff000n) << 32n) | ((major & 0xfffn) << 8n) | ((minor & 0xffffff00n) << 12n) | (minor & 0xffn);
}
