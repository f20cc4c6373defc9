import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { Undo } from '#base/undo.ts';
import type { FileInfo, SourceTree } from '#build/context/tree.ts';
import type { MountedTree } from '#build/copy/mounted.ts';
import { readText } from '#build/copy/resolve.ts';
import { type OciHost, ociConfig } from '#engine/core/oci.ts';
import type { NetworkSource, ProcessSource } from '#engine/core/parts.ts';
import { PLAIN_RESOURCES, plainSpec } from '#engine/core/plain-spec.ts';
import { SeccompProfiles } from '#engine/core/seccomp-profiles.ts';
import type { ContainerSpec, ResourceSpec } from '#engine/core/spec.ts';
import { resolveUser } from '#engine/core/user.ts';
import type { BuildLimits } from '#spec/estiba/build.ts';
import type { OciMount } from '#spec/oci/config.ts';
import type { LinuxDevice } from '#spec/oci/linux.ts';

/** What a command of a build is run with, besides its root. */
export interface SandboxLimits {
  resources: ResourceSpec;
  shmBytes: number;
  ulimits: ContainerSpec['ulimits'];
  extraHosts: string[];
  /** Name of the network that `--network=default` means; `host` and `none` as well. */
  network: string;
}

export const DEFAULT_LIMITS: SandboxLimits = {
  resources: PLAIN_RESOURCES,
  shmBytes: 64 * 1024 * 1024,
  ulimits: [],
  extraHosts: [],
  network: 'bridge',
};

/** The limits that a client wished, in both APIs' common form. */
export function sandboxLimits(
  { shmBytes, ulimits, ...wished }: BuildLimits,
  more: { network: string; extraHosts: string[] },
): SandboxLimits {
  const given = Object.fromEntries(Object.entries(wished).filter(([, value]) => value !== undefined));
  return {
    resources: { ...DEFAULT_LIMITS.resources, ...given },
    shmBytes: shmBytes || DEFAULT_LIMITS.shmBytes,
    ulimits,
    extraHosts: more.extraHosts,
    network: more.network === 'default' ? DEFAULT_LIMITS.network : more.network,
  };
}

export interface SandboxRequest {
  id: string;
  root: MountedTree;
  argv: string[];
  env: string[];
  cwd: string;
  user: string;
  mounts: OciMount[];
  network: 'default' | 'none' | 'host';
  limits: SandboxLimits;
  /** Takes both streams as they come; a slow one holds the command up. */
  output(stream: 'stdout' | 'stderr', source: Readable): Promise<void>;
}

export interface SandboxParts {
  /** One empty file a running sandbox, by id: what a crash leaves behind is found by it. Volatile. */
  intents: string;
  network: NetworkSource;
  processes: ProcessSource;
  host: OciHost;
  cgroupParent: string;
  devices(spec: ContainerSpec): Promise<LinuxDevice[]>;
}

const SIGKILL = 9;
const PASSWD_MAX_BYTES = 1024 * 1024;
/** The same in every build: a host name that changes would end in files. */
export const SANDBOX_HOSTNAME = 'buildsandbox';

/**
 * Runs one command as the engine runs containers: same isolation, networks, names, limits. Answers its exit code; nothing of it runs
 * any more then (its PID namespace has ended with it), and what is left of its sandbox goes with `undo`.
 */
export async function runInSandbox(
  parts: SandboxParts,
  request: SandboxRequest,
  undo: Undo,
  signal: AbortSignal,
): Promise<number> {
  signal.throwIfAborted();
  const { id, root } = request;
  const spec = sandboxSpec(request);
  const user = resolveUser(request.user, await accounts(root));
  const intent = join(parts.intents, id);
  await writeFile(intent, ''); // before anything exists: see `sweepSandboxes`
  undo.add('intent', () => rm(intent, { force: true }));
  const net = await parts.network.attach(id, {
    name: id.slice(0, 12),
    hostname: SANDBOX_HOSTNAME,
    spec,
    exposedPorts: [],
    endpoints: {},
  });
  undo.add('network', () => parts.network.release(id));
  await net.plug();
  const config = ociConfig({
    id,
    spec,
    process: {
      argv: request.argv,
      env: request.env,
      cwd: request.cwd,
      user: request.user,
      stopSignal: 'SIGKILL',
      labels: {},
      volumes: [],
      exposedPorts: [],
      health: undefined,
    },
    user,
    hostname: SANDBOX_HOSTNAME,
    rootfs: root.root,
    mounts: request.mounts,
    files: net.files,
    join: net.namespace === undefined ? {} : { network: net.namespace },
    cgroupsPath: `${request.limits.resources.cgroupParent ?? parts.cgroupParent}/${id}`,
    devices: await parts.devices(spec),
    profiles: new SeccompProfiles(parts.host),
    host: parts.host,
  });
  const log = { format: 'none' as const, path: '', maxBytes: 0, maxFiles: 0 };
  const process = await parts.processes.create(id, config, { terminal: false, stdin: false, stdinOnce: false, log });
  undo.add('process', () => parts.processes.remove(id));
  const streams = await process.attach({ stdin: false });
  const copied = Promise.all([request.output('stdout', streams.stdout), request.output('stderr', streams.stderr)]);
  copied.catch(() => undefined); // awaited below, unless the command itself could not be run
  const kill = (): void => void process.signal(SIGKILL).catch(() => undefined); // ended meanwhile; `remove` kills all that is left
  signal.addEventListener('abort', kill, { once: true });
  try {
    signal.throwIfAborted();
    await process.start();
    const { code } = await process.wait();
    signal.throwIfAborted();
    await copied;
    return code;
  } finally {
    signal.removeEventListener('abort', kill);
    streams.detach();
  }
}

/** Ends and removes what a daemon that crashed was running. */
export async function sweepSandboxes(parts: SandboxParts): Promise<void> {
  await mkdir(parts.intents, { recursive: true, mode: 0o700 });
  for (const id of await readdir(parts.intents)) {
    await parts.processes.remove(id);
    await parts.network.release(id);
    await rm(join(parts.intents, id), { force: true });
  }
}

/** `user[:group]` as numbers, by the root's own files. */
export async function ownerIn(root: SourceTree, wish: string): Promise<Pick<FileInfo, 'uid' | 'gid'>> {
  const { uid, gid } = resolveUser(wish, await accounts(root));
  return { uid, gid };
}

async function accounts(root: SourceTree): Promise<{ passwd: string; group: string }> {
  const [passwd, group] = await Promise.all([
    readText(root, 'etc/passwd', PASSWD_MAX_BYTES),
    readText(root, 'etc/group', PASSWD_MAX_BYTES),
  ]);
  return { passwd, group };
}

function sandboxSpec({ network, limits, env, cwd, user }: SandboxRequest): ContainerSpec {
  const name = network === 'default' ? limits.network : network;
  const plain = plainSpec();
  const joinsNone = name === 'host' || name === 'none';
  return {
    ...plain,
    origin: { by: 'cli' },
    process: { ...plain.process, env, cwd, user },
    namespaces: { ...plain.namespaces, network: name === 'host' ? { kind: 'host' } : { kind: 'private' } },
    resources: limits.resources,
    ulimits: limits.ulimits,
    shmBytes: limits.shmBytes,
    network: {
      ...plain.network,
      endpoints: joinsNone ? [] : [{ network: name, aliases: [], links: [], driverOptions: {} }],
      extraHosts: limits.extraHosts,
    },
    logging: { driver: 'none', options: {} },
    autoRemove: true,
  };
}
