/**
 * The plan's vocabulary: every kernel operation that Estiba ever performs, one row each. From this table come the TypeScript
 * types (`plan.ts`), the wire form (`wire.ts`), the printed form (`print.ts`) and the C reader's header
 * (`native/ops.gen.h`, by `tools/gen-native.mjs`). A row never changes its code, its arguments or its meaning, since shims of older builds
 * are told by it: what would is a row of its own, and `vocabulary.ts` says who knows it. An operation that goes leaves a hole.
 *
 *  argument   TypeScript      on the wire
 *  str        string          length, bytes, NUL; no NUL inside
 *  strs       string[]        count, then str each
 *  u32        number          4 bytes, little endian
 *  u64        bigint          8 bytes, little endian
 *  u32s       number[]        count, then u32 each
 *  bytes      Uint8Array      length, bytes
 *  slot       number          a register that holds a file descriptor; NO_SLOT is none
 */
export type ArgKind = 'str' | 'strs' | 'u32' | 'u64' | 'u32s' | 'bytes' | 'slot';

export interface ArgTypes {
  str: string;
  strs: readonly string[];
  u32: number;
  u64: bigint;
  u32s: readonly number[];
  bytes: Uint8Array;
  slot: number;
}

export const NO_SLOT = 0xffff_ffff;
export const SLOTS = 64;

export interface OpRow {
  code: number;
  args: Readonly<Record<string, ArgKind>>;
  /** What a reader sees; `{name}` stands for an argument. */
  says: string;
}

export const OPS = {
  // -- files. Paths are taken as they are, in the mount namespace and root of whoever runs the step.
  mkdir: { code: 1, args: { path: 'str', mode: 'u32', flags: 'u32' }, says: 'mkdir {path}' }, // flags: MKDIR_*
  rmdir: { code: 2, args: { path: 'str' }, says: 'rmdir {path}' }, // absent is fine
  unlink: { code: 3, args: { path: 'str' }, says: 'unlink {path}' }, // absent is fine
  symlink: { code: 4, args: { target: 'str', path: 'str' }, says: 'symlink {path} -> {target}' },
  mknod: { code: 5, args: { path: 'str', mode: 'u32', device: 'u64' }, says: 'mknod {path}' },
  chown: { code: 6, args: { path: 'str', uid: 'u32', gid: 'u32' }, says: 'chown {path} {uid}:{gid}' },
  chmod: { code: 7, args: { path: 'str', mode: 'u32' }, says: 'chmod {path} {mode}' },
  write: { code: 8, args: { path: 'str', data: 'bytes', flags: 'u32', mode: 'u32' }, says: 'write {data} to {path}' }, // flags: open(2)'s
  open: { code: 9, args: { into: 'slot', path: 'str', flags: 'u32', mode: 'u32' }, says: 'open {path}' },
  close: { code: 10, args: { slot: 'slot' }, says: 'close fd {slot}' },
  removeTree: { code: 11, args: { path: 'str' }, says: 'remove {path} and all below' }, // never crosses a mount, never follows a link
  removeCgroup: { code: 12, args: { path: 'str' }, says: 'remove cgroup {path}' }, // children first, waits out EBUSY for 1 s
  killCgroup: { code: 13, args: { path: 'str', signal: 'u32' }, says: 'signal {signal} to all in cgroup {path}' },

  // -- processes. `fork` and `clone` make the other two actors; see `Where` in plan.ts.
  fork: { code: 20, args: {}, says: 'fork a process that enters namespaces' },
  clone: {
    code: 21,
    args: { flags: 'u64', cgroup: 'slot', sibling: 'u32' },
    says: 'clone into new namespaces {flags}',
  },
  setns: { code: 22, args: { slot: 'slot', path: 'str', type: 'u32' }, says: 'enter namespace {path}' }, // slot, or path if NO_SLOT
  unshare: { code: 23, args: { flags: 'u32' }, says: 'unshare {flags}' },
  writeProc: { code: 24, args: { file: 'str', data: 'bytes' }, says: 'write {data} to /proc/PID/{file}' }, // PID: the container's
  idMapTool: { code: 25, args: { tool: 'str', map: 'strs' }, says: '{tool} PID {map}' }, // newuidmap, newgidmap
  // path: the cgroup's directory. init, middle: write 0 to v1's `tasks` or v2's `cgroup.procs`; host: writes the container's pid. Or slot:
  // one of these files, opened for writing by the host, where init of a user namespace may not open it itself.
  joinCgroup: { code: 26, args: { path: 'str', slot: 'slot' }, says: 'enter cgroup {path}' },
  setsid: { code: 27, args: {}, says: 'new session' },
  hostname: { code: 28, args: { name: 'str' }, says: 'hostname {name}' },
  domainname: { code: 29, args: { name: 'str' }, says: 'domainname {name}' },
  prctl: { code: 30, args: { option: 'u32', value: 'u64' }, says: 'prctl {option} {value}' },
  setgroups: { code: 31, args: { gids: 'u32s' }, says: 'setgroups {gids}' },
  setgid: { code: 32, args: { gid: 'u32' }, says: 'setgid {gid}' }, // real, effective and saved
  setuid: { code: 33, args: { uid: 'u32' }, says: 'setuid {uid}' },
  capset: {
    code: 34,
    args: { effective: 'u64', permitted: 'u64', inheritable: 'u64' },
    says: 'capset {effective} {permitted} {inheritable}',
  },
  capBounding: { code: 35, args: { keep: 'u64' }, says: 'bounding set {keep}' },
  capAmbient: { code: 36, args: { set: 'u64' }, says: 'ambient set {set}' },
  seccomp: {
    code: 37,
    args: { filter: 'bytes', flags: 'u32', listener: 'str', state: 'bytes', pidAt: 'u32s' },
    says: 'seccomp filter {filter}',
  },
  rlimit: { code: 38, args: { resource: 'u32', soft: 'u64', hard: 'u64' }, says: 'rlimit {resource} {soft}:{hard}' }, // host: the container's, by prlimit
  personality: { code: 39, args: { value: 'u64' }, says: 'personality {value}' },
  scheduler: { code: 40, args: { attr: 'bytes' }, says: 'sched_setattr {attr}' }, // struct sched_attr
  ioPriority: { code: 41, args: { value: 'u32' }, says: 'ioprio_set {value}' },
  affinity: { code: 42, args: { mask: 'bytes' }, says: 'sched_setaffinity {mask}' },
  memoryPolicy: { code: 43, args: { mode: 'u32', nodes: 'bytes' }, says: 'set_mempolicy {mode} {nodes}' },
  umask: { code: 44, args: { mask: 'u32' }, says: 'umask {mask}' },
  chdir: { code: 45, args: { path: 'str', inside: 'u32' }, says: 'chdir {path}' }, // inside: CHDIR_*
  keyring: { code: 46, args: { name: 'str' }, says: 'join session keyring {name}' },
  landlock: { code: 47, args: { attr: 'bytes', paths: 'strs', access: 'u32s' }, says: 'landlock {paths}' },
  closeFds: { code: 48, args: { from: 'u32' }, says: 'close all from fd {from} on at exec' },
  exec: { code: 49, args: { path: 'str', argv: 'strs', env: 'strs' }, says: 'exec {argv}' }, // PATH of env is searched, after seccomp
  lookup: { code: 51, args: { path: 'str', env: 'strs' }, says: 'find {path}' }, // as exec would, so that create fails and not start
  kill: {
    code: 52,
    args: { pid: 'u32', startTime: 'u64', signal: 'u32' }, // by pidfd; startTime: field 22 of /proc/PID/stat, another one is ESRCH
    says: 'signal {signal} to {pid}',
  },
  waitGone: {
    code: 53,
    args: { pid: 'u32', startTime: 'u64', timeoutMs: 'u32' },
    says: 'wait until {pid} is gone',
  },
  userns: {
    code: 54,
    args: { into: 'slot', uidMap: 'bytes', gidMap: 'bytes' },
    says: 'user namespace with {uidMap}',
  }, // without processes, for idmapped mounts; maps in the form of /proc/PID/uid_map
  openProcess: { code: 56, args: { into: 'slot', pid: 'u32', startTime: 'u64' }, says: 'pidfd of {pid}' }, // another start is ESRCH
  // Those of its namespaces, by its pidfd, in the order and with the checks of setns(2); pid: whom a kernel before 5.8 is asked about.
  enterProcess: {
    code: 57,
    args: { slot: 'slot', pid: 'u32', types: 'u32' },
    says: 'enter {types} of {pid}',
  },
  // As `clone` on the host, born in those of its namespaces: the executor enters them, clones and returns within this one step. Linux 5.8.
  cloneInto: {
    code: 58,
    args: { slot: 'slot', pid: 'u32', types: 'u32', flags: 'u64', cgroup: 'slot' },
    says: 'clone into {types} of {pid}',
  },
  ownStdio: { code: 55, args: { uid: 'u32' }, says: 'fds 0 to 2 to uid {uid}' }, // fchown, gid kept; not /dev/null; EPERM, EROFS, EINVAL are fine
  waitInit: { code: 50, args: { timeoutMs: 'u32' }, says: 'wait for the container to end' },

  // -- mounts. `…At` resolve their target below the directory in `root` with RESOLVE_IN_ROOT: no link leads out.
  mount: {
    code: 60,
    args: { source: 'str', target: 'str', type: 'str', flags: 'u64', data: 'str' },
    says: 'mount {type} {source} on {target} {flags} {data}',
  },
  umount: { code: 61, args: { target: 'str', flags: 'u32' }, says: 'umount {target}' },
  mountAt: {
    code: 62,
    args: { root: 'slot', source: 'str', target: 'str', type: 'str', flags: 'u64', data: 'str', create: 'u32' },
    says: 'mount {type} on {target} {flags} {data}',
  },
  bindAt: {
    code: 63,
    args: {
      root: 'slot',
      source: 'str',
      from: 'slot',
      target: 'str',
      recursive: 'u32',
      create: 'u32', // from: instead of source
      set: 'u64',
      clear: 'u64',
      attrRecursive: 'u32',
      propagation: 'u64',
      userns: 'slot', // MOUNT_ATTR_*
    },
    says: 'bind {source} on {target} {set} {propagation}',
  },
  mountAttr: {
    code: 64,
    args: { path: 'str', recursive: 'u32', set: 'u64', clear: 'u64', propagation: 'u64' },
    says: 'mount attributes of {path} {set} {propagation}',
  },
  attrAt: {
    code: 65,
    args: { root: 'slot', path: 'str', recursive: 'u32', set: 'u64', clear: 'u64', propagation: 'u64' },
    says: 'mount attributes of {path} {set} {propagation}',
  }, // of the mount at path; set, clear: MOUNT_ATTR_*
  pivotRoot: { code: 66, args: { root: 'str' }, says: 'pivot_root {root}, old root unmounted' },
  moveRoot: { code: 67, args: { root: 'str' }, says: 'MS_MOVE {root} to / and chroot' },
  chroot: { code: 68, args: { root: 'str' }, says: 'chroot {root}' }, // for a container in the mount namespace it was called from
  maskAt: { code: 69, args: { root: 'slot', path: 'str', label: 'str' }, says: 'mask {path}' }, // absent is fine
  readonlyAt: { code: 70, args: { root: 'slot', path: 'str' }, says: 'make {path} read-only' }, // absent is fine
  copyUpAt: {
    code: 71,
    args: { root: 'slot', target: 'str', data: 'str', flags: 'u64' },
    says: 'tmpfs on {target} with what is there',
  },
  deviceAt: {
    code: 72,
    args: { root: 'slot', path: 'str', mode: 'u32', device: 'u64', uid: 'u32', gid: 'u32', bind: 'u32' },
    says: 'device {path}',
  },
  symlinkAt: { code: 73, args: { root: 'slot', target: 'str', path: 'str' }, says: 'symlink {path} -> {target}' },
  mkdirAt: { code: 74, args: { root: 'slot', path: 'str', mode: 'u32' }, says: 'mkdir {path}' },
  openTree: {
    code: 76,
    args: {
      into: 'slot',
      path: 'str',
      recursive: 'u32',
      set: 'u64',
      clear: 'u64',
      attrRecursive: 'u32',
      userns: 'slot', // MOUNT_ATTR_*
    },
    says: 'copy of mount {path}',
  }, // open_tree(OPEN_TREE_CLONE), detached, for bindAt's `from`: the host may read a source that the user namespace may not
  fsMount: {
    code: 77,
    args: { target: 'str', type: 'str', options: 'strs', attr: 'u64' },
    says: 'mount {type} on {target} {options}',
  }, // fsopen(2): `key=value` or a bare flag each, so no limit of one page; a failure comes with the file system's own words
  renameFile: { code: 14, args: { from: 'str', to: 'str' }, says: 'rename {from} to {to}' },
  setXattr: {
    code: 15,
    args: { path: 'str', name: 'str', value: 'bytes' },
    says: 'attribute {name} of {path} = {value}',
  }, // links are not followed
  dumpXattrs: { code: 16, args: { path: 'str', to: 'str' }, says: 'list attributes below {path} in {to}' }, // format: src/image/xattrs.ts
  setTime: {
    code: 17,
    args: { path: 'str', seconds: 'u64', nanoseconds: 'u32' },
    says: 'time of {path} {seconds}.{nanoseconds}',
  }, // access and change alike, links not followed; seconds before 1970 as two's complement
  // A file system in a file; the loop device goes with the mount.
  mountLoop: {
    code: 78,
    args: { file: 'str', target: 'str', type: 'str', flags: 'u64', data: 'str' },
    says: 'mount {type} in {file} on {target}',
  },
  checkProc: { code: 75, args: { path: 'str' }, says: 'make sure {path} is proc itself' }, // CVE-2019-16884 and after

  // -- terminals, networks, hooks, devices
  // socket '' = to the shim; bind=1: also as /dev/console
  console: {
    code: 80,
    args: { socket: 'str', rows: 'u32', cols: 'u32', bind: 'u32' },
    says: 'terminal to {socket}',
  },
  netlink: { code: 90, args: { protocol: 'u32', messages: 'bytes', pidAt: 'u32s' }, says: 'netlink {messages}' }, // each is acknowledged
  deviceFilter: { code: 91, args: { cgroup: 'str', program: 'bytes' }, says: 'device filter on {cgroup}' }, // BPF_PROG_TYPE_CGROUP_DEVICE
  hook: {
    code: 100,
    args: { path: 'str', argv: 'strs', env: 'strs', timeoutMs: 'u32', state: 'bytes', pidAt: 'u32s' }, // pidAt: where PID goes in state
    says: 'hook {argv}',
  },
  // A program of somebody else's, to its end; a word that is '{console}' becomes the path of a console socket. pidFile '': that is all. Else
  // it gets the stdio of the process to be, which it makes and names there: that one becomes ours (PR_SET_CHILD_SUBREAPER).
  program: {
    code: 101,
    args: { path: 'str', argv: 'strs', env: 'strs', timeoutMs: 'u32', pidFile: 'str' },
    says: '{argv}',
  },

  // -- what the outside learns and decides
  writePid: { code: 110, args: { path: 'str', withStart: 'u32' }, says: 'write the pid to {path}' }, // renamed into place
  ready: { code: 111, args: {}, says: 'created' }, // the executor answers its caller; the rest runs on
  awaitStart: { code: 112, args: { fifo: 'str', slot: 'slot' }, says: 'wait for start' }, // '' = wait for the shim's word
} as const satisfies Record<string, OpRow>;

export const MKDIR_PARENTS = 1;
export const MKDIR_MAY_EXIST = 2;

export const CHDIR_INSIDE = 1; // fails when the result is out of the root (CVE-2024-21626)
export const CHDIR_OR_LATER = 2; // EACCES is left to a later chdir, after the user has changed
export const CHDIR_IF_NOT_YET = 4; // nothing to do when an earlier one succeeded

/** What `…At` makes when the target is missing. */
export const CREATE_NOTHING = 0;
export const CREATE_DIRECTORY = 1;
export const CREATE_FILE = 2;
export const CREATE_LIKE_SOURCE = 3;
/** Added to CREATE_*: the target's path holds no link at all (proc and sysfs; CVE-2023-27561). */
export const TARGET_NO_LINKS = 0x100;
/** Added to CREATE_*: the target may lie inside procfs, which is refused otherwise (CVE-2019-16884, CVE-2025-52881). */
export const TARGET_MAY_BE_PROC = 0x200;
