import type { Readable, Writable } from 'node:stream';
import type { EndpointRecord, MountRecord, PortRecord } from '#engine/core/record.ts';
import type { ContainerSpec, MountSpec, Origin } from '#engine/core/spec.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import type { CgroupPlan } from '#kernel/cgroup/plan.ts';
import type { IdMapping } from '#kernel/idmap.ts';
import type { Step } from '#kernel/plan/plan.ts';
import type { PortWish } from '#network/ports.ts';
import type { RunConfig } from '#spec/image/manifest.ts';
import type { OciConfig, OciMount, OciProcess } from '#spec/oci/config.ts';
import type { LinuxResources } from '#spec/oci/linux.ts';
import type { TxnOp } from '#storage/store.ts';

/** What the life of a container needs of the floors below, each as small as that. Chosen in `app`, replaced in tests. */
export interface NodeParts {
  images: ImageSource;
  roots: RootSource;
  volumes: VolumeSource;
  network: NetworkSource;
  processes: ProcessSource;
  sandboxes: SandboxSource;
}

export interface ImageSource {
  /** NO_SUCH_IMAGE, IMAGE_PLATFORM_NOT_HERE when the node does not have it; pulling is the caller's decision. */
  find(reference: string, platform?: string): Promise<FoundImage>;
}

export interface FoundImage {
  /** Digest of the configuration. */
  id: string;
  reference: string;
  config: RunConfig;
  /** Digest of the manifest or index that the name points to: what the image store finds it by. */
  target: string;
  /** `amd64`, as the configuration says. */
  architecture: string;
}

/** Root file systems: an image's layers below, what the container writes on top. */
export interface RootSource {
  /** What is answered is to be written with the container that it is made for. `ids`: those of its user namespace. */
  prepare(id: string, image: FoundImage, ids?: readonly IdMapping[]): Promise<TxnOp[]>;
  /** `/dev/shm` of `id` for those that join its IPC namespace, from its start to its end; `memoryOf` is where. */
  shareMemory(id: string, bytes: number): Promise<void>;
  unshareMemory(id: string): Promise<void>;
  memoryOf(id: string): string;
  /** Where config.json's root is; mounted when the container starts. */
  mount(id: string, wish: RootWish): Promise<string>;
  unmount(id: string): Promise<void>;
  /**
   * Given up: nobody mounts it again, and it is there until `remove`, or until the next start when a crash comes between. What is
   * answered tells that start so: it is to be written with what forgets the container.
   */
  retire(id: string): Promise<TxnOp[]>;
  /** Goes when `turn` has come; layers that it stands on are in use until then. `beside`: what else goes, in the same request. */
  remove(id: string, turn?: Promise<void>, beside?: readonly Step[]): Promise<void>;
  /** A small file of the mounted root as text, links resolved inside it; '' when there is none. */
  readFile(id: string, path: string): Promise<string>;
}

export interface RootWish {
  /** Whose container it is: a few files tell one of Docker's from a pod's. Of one container it is always the same. */
  by: Origin['by'];
  /** What is written need not outlive a power cut, as with a container that goes when it ends, and so nobody waits for the disk. */
  volatile?: boolean;
}

export interface VolumeSource {
  /** Makes or finds what the mounts name. Anonymous volumes belong to the container. */
  resolve(id: string, mounts: readonly MountSpec[]): Promise<MountRecord[]>;
  /** Once, at create: what the image has at the targets goes into volumes that are empty. `withRoot` is called only if one is. */
  populate(id: string, mounts: readonly MountRecord[], withRoot: WithRoot, ids?: readonly IdMapping[]): Promise<void>;
  /** Ready to be mounted: volumes with options are mounted, sub-paths resolved, missing sources of binds made. */
  attach(id: string, record: MountRecord): Promise<OciMount>;
  /** After a run, or a start that failed: unmounts what no other container that runs uses. */
  detach(id: string): Promise<void>;
  release(id: string, mounts: readonly MountRecord[], wish: { removeAnonymous: boolean }): Promise<void>;
}

/** Mounts the container's root for as long as `use` takes. */
export type WithRoot = <T>(use: (rootfs: string) => Promise<T>) => Promise<T>;

export interface NetworkSource {
  /** Checks the wish and fixes what does not change between starts: networks, static addresses, mac. */
  reserve(id: string, spec: ContainerSpec): Promise<Record<string, EndpointRecord>>;
  /** Answered when all is decided; see `Attachment.plug`. */
  attach(id: string, wish: AttachWish): Promise<Attachment>;
  detach(id: string): Promise<void>;
  /** Detached, and its files gone. */
  release(id: string): Promise<void>;
  /** What removes its files, for whoever runs a plan anyway. */
  leavings(id: string): Step[];
}

export interface AttachWish {
  name: string;
  hostname: string;
  spec: ContainerSpec;
  exposedPorts: string[];
  endpoints: Record<string, EndpointRecord>;
  /** The container whose network namespace this one shares (`container:NAME`). */
  sharedWith?: { id: string; pid: number };
}

export interface Attachment {
  /** Path of the network namespace, which is there; undefined leaves the host's. */
  namespace: string | undefined;
  /** Path of the user namespace that it belongs to, made for this run of a container that has its own. */
  userNamespace?: string | undefined;
  endpoints: Record<string, EndpointRecord>;
  ports: PortRecord[];
  /** `/etc/hosts` and its like, written and kept up to date outside the root. */
  files: { path: string; source: string }[];
  /**
   * Puts links, addresses, ports and names into the namespace, once, however often it is called: no program runs before. Rejects, with all
   * of it taken back, when that cannot be. To be awaited, in the bad case too, before `detach`.
   */
  plug(): Promise<void>;
}

/** Namespaces that several containers share: a pod. They need no process, outlive us, and are found again by id. */
export interface SandboxSource {
  create(id: string, wish: SandboxWish): Promise<SandboxRecord>;
  /** NO_SUCH_SANDBOX */
  find(id: string): SandboxRecord;
  list(): string[];
  /** Absent is fine. Its containers must be gone. */
  remove(id: string): Promise<void>;
}

export interface SandboxWish {
  /** For messages. */
  name: string;
  hostname: string;
  /** Undefined: the host's. */
  network: { name: string; ports: readonly PortWish[] } | undefined;
  ipc: 'private' | 'host';
  pid: 'shared' | 'private' | 'host';
  shmBytes: number;
  sysctls: Readonly<Record<string, string>>;
}

export interface SandboxRecord {
  id: string;
  /** Another one each time a sandbox of this id is made. */
  incarnation: string;
  /** Paths of those that are the sandbox's own. */
  namespaces: { network?: string; ipc?: string; uts?: string; pid?: string };
  ips: string[];
  /** What its containers have as `/dev/shm`. */
  shm: string;
  /** PID 1 of the shared PID namespace. */
  pause?: { pid: number; startTicks: string };
}

/** Processes behind shims: they outlive us, and are found again by id. */
export interface ProcessSource {
  /** Everything is set up and the program has not run. `runtime`: by another one's name than ours. `cgroups`: as planned before. */
  create(
    id: string,
    config: OciConfig,
    io: IoWish,
    how?: { runtime?: string; cgroups?: CgroupPlan },
  ): Promise<CreatedProcess>;
  /** Its cgroups, for `create`: decided before the rest of its configuration is known. */
  planCgroups(id: string, wish: CgroupWish): CgroupPlan;
  /** After a restart of ours; undefined when there is no shim. A program that a crash kept from its start begins now. */
  find(id: string): Promise<RunningProcess | undefined>;
  /** Ids of all shims there are, for the sweep. */
  list(): Promise<string[]>;
  /** How an exec ended that nobody watched; undefined while it runs. */
  execExit(id: string, exec: string): Promise<ExitStatus | undefined>;
  /** Nothing of it runs any more: a shim that is still making its container ends, and what outlived its shim is killed. */
  end(id: string): Promise<void>;
  /** Ended, and everything the shim left is gone: directory, cgroup, mounts. */
  remove(id: string): Promise<void>;
}

export interface CgroupWish {
  cgroupsPath?: string;
  resources?: LinuxResources;
  /** Capabilities that its programs can have. */
  bounding: readonly string[];
}

export interface IoWish {
  terminal: boolean;
  stdin: boolean;
  stdinOnce: boolean;
  log: { format: 'json' | 'cri' | 'none'; path: string; maxBytes: number; maxFiles: number };
}

export interface CreatedProcess extends RunningProcess {
  start(): Promise<void>;
}

export interface ExitStatus {
  /** 128 + signal when a signal ended it. */
  code: number;
  oomKilled: boolean;
  atMs: number;
}

export interface RunningProcess {
  readonly pid: number;
  readonly startTicks: number;
  /** Its cgroup in each hierarchy. */
  readonly cgroups: readonly CgroupPlace[];
  /** A client at the program's standard streams, from now on. Ends when the program ends or the client detaches. */
  attach(wish: { stdin: boolean }): Promise<Attached>;
  /** Known for good once it is known; resolves at once for a process that has ended. */
  wait(): Promise<ExitStatus>;
  signal(signal: number): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  update(resources: LinuxResources): Promise<void>;
  exec(id: string, process: OciProcess, io: Omit<IoWish, 'log'>): Promise<ExecProcess>;
}

/** The streams of one attached client. With a terminal all output is `stdout`. */
export interface Attached {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  detach(): void;
}

export interface ExecProcess {
  readonly pid: number;
  /** Attached before the program runs: nothing it says is lost. */
  readonly streams: Attached;
  start(): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
  wait(): Promise<ExitStatus>;
  signal(signal: number): Promise<void>;
}
