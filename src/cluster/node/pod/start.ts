import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { defineError, describeChain, isCode } from '#base/errors.ts';
import { type Live, PODS } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { BadContainerConfig } from '#cluster/node/errors.ts';
import { containerName, containerSpec, volumeMount } from '#cluster/node/pod/container-spec.ts';
import { environment } from '#cluster/node/pod/environment.ts';
import { expand } from '#cluster/node/pod/expand.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import { podNames } from '#cluster/node/pod/files.ts';
import { podCgroup, qosClass } from '#cluster/node/pod/resources.ts';
import { type Run, streakAfter } from '#cluster/node/pod/runs.ts';
import { securityOf } from '#cluster/node/pod/security.ts';
import type { ReadyVolume } from '#cluster/node/volumes/volumes.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { MountSpec } from '#engine/core/spec.ts';
import type { Container, Pod, Secret } from '#spec/kubernetes/types.gen.ts';

/** A container does not run, and why, as its status says it. */
export const CannotStart = defineError(
  'CANNOT_START_CONTAINER',
  (d: { reason: string; message: string; retry: boolean }) => ({
    message: d.message,
  }),
);

export interface StartWish {
  self: Self;
  container: Container;
  attempt: number;
  /** The run before; one that was made and never ran is taken away. */
  after: Run | undefined;
  sandbox: string;
  volumes: ReadonlyMap<string, ReadyVolume>;
  /** `/etc/hosts` and its like: path → source. */
  files: ReadonlyMap<string, string>;
  shm: string;
  /** Told as soon as there is a record of it, before it runs. */
  made: (id: string) => void;
  /** The pod ends: nobody waits for an image any more. */
  ending: AbortSignal;
}

const LAST_WORDS = '/dev/termination-log';
/** Reason of a start that was given up, which no status shows. */
export const ENDING = 'PodEnding';

/** One run of a pod's container, from its image to its running program. Each line is a chapter. */
export async function startContainer(deps: AgentDeps, wish: StartWish): Promise<ContainerRecord> {
  const { self, container, attempt } = wish;
  const { pod } = self;
  const tell = (type: 'Normal' | 'Warning', reason: string, message: string): void =>
    deps.events.record(PODS, pod, { type, reason, message });

  const image = await unlessEnding(
    deps.images.ensure(container, pullSecrets(deps, pod), (event) => tell(event.type, event.reason, event.message)),
    wish.ending,
  );
  const spec = await configured(tell, async () => {
    const env = environmentOf(deps, wish);
    const security = securityOf(pod.spec, container, { user: image.config.User ?? '' }, deps.seccompProfile);
    const facts = deps.host.facts();
    return containerSpec({
      pod,
      container,
      attempt,
      streak: wish.after && wish.after.state === 'ended' ? streakAfter(wish.after) : (wish.after?.streak ?? 0),
      sandbox: wish.sandbox,
      hostname: podNames(pod, deps.settings.clusterDomain).hostname,
      env,
      security,
      mounts: await mountsOf(deps, wish, env),
      cgroupParent: podCgroup(deps.settings.cgroupParent, qosClass(pod.spec), pod.metadata.uid),
      host: facts,
    });
  });
  if (wish.after?.state === 'made') await deps.engine.containers.remove(wish.after.id, { force: true, volumes: true });
  const record = await made(tell, () =>
    deps.engine.containers.create(containerName(pod, container.name, attempt), spec),
  );
  wish.made(record.id);
  tell('Normal', 'Created', `Created container: ${container.name}`);
  try {
    await deps.engine.containers.start(record.id);
  } catch (error) {
    const message = describeChain(error);
    tell('Warning', 'Failed', `Error: ${message}`);
    throw new CannotStart({ reason: 'RunContainerError', message, retry: true }, { cause: error });
  }
  tell('Normal', 'Started', `Started container ${container.name}`);
  return record;
}

/** The work's outcome, or CANNOT_START_CONTAINER as soon as the pod ends; the work goes on for whoever else wants it. */
export function unlessEnding<T>(work: Promise<T>, ending: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(new CannotStart({ reason: ENDING, message: 'the pod ends', retry: false }));
    if (ending.aborted) stop();
    ending.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => ending.removeEventListener('abort', stop));
  });
}

export function environmentOf(
  deps: AgentDeps,
  { self, container }: Pick<StartWish, 'self' | 'container'>,
): Map<string, string> {
  const { namespace = '' } = self.pod.metadata;
  return environment(container, self, {
    configMap: (name) => deps.objects.configMap(namespace, name),
    secret: (name) => deps.objects.secret(namespace, name),
    services: deps.services(),
  });
}

function pullSecrets(deps: AgentDeps, pod: Live<Pod>): Secret[] {
  const { namespace = '' } = pod.metadata;
  return (pod.spec.imagePullSecrets ?? []).flatMap(({ name }) => deps.objects.secret(namespace, name ?? '') ?? []);
}

/** Volumes as the container asks for them, then the node's own files where it asks for nothing. */
async function mountsOf(deps: AgentDeps, wish: StartWish, env: ReadonlyMap<string, string>): Promise<MountSpec[]> {
  const { container, volumes, self } = wish;
  const { uid } = self.pod.metadata;
  const mounts: MountSpec[] = [];
  await deps.volumes.dropSubPaths(uid, container.name);
  for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
    const volume = volumes.get(mount.name);
    if (!volume) throw new BadContainerConfig({ message: `volume "${mount.name}" is not ready` });
    const below = mount.subPathExpr ? expanded(mount.subPathExpr, env) : mount.subPath;
    const source = below
      ? await deps.volumes.bindSubPath(uid, { container: container.name, index, volume: volume.source, path: below })
      : volume.source;
    mounts.push(volumeMount(mount, source, volume.readonly));
  }
  const own = (source: string, target: string, readonly: boolean): void => {
    if (mounts.some((m) => m.target === target)) return;
    mounts.push({
      type: 'bind',
      source,
      target,
      readonly: readonly ? 'top' : false,
      propagation: 'rprivate',
      recursive: false,
      createSource: false,
    });
  };
  const readonlyRoot = container.securityContext?.readOnlyRootFilesystem ?? false;
  for (const [target, source] of wish.files) own(source, target, readonlyRoot);
  own(wish.shm, '/dev/shm', false);
  own(await messageFile(deps, wish), container.terminationMessagePath || LAST_WORDS, false);
  return mounts;
}

function expanded(expression: string, env: ReadonlyMap<string, string>): string {
  const path = expand(expression, env);
  if (/\$\([^)]*\)/.test(path))
    throw new BadContainerConfig({ message: `subPathExpr ${expression} names a variable that is not set` });
  return path;
}

export function messagePath(
  deps: Pick<AgentDeps, 'settings'>,
  uid: string,
  container: string,
  attempt: number,
): string {
  return join(deps.settings.dataDir, 'pods', uid, 'messages', container, String(attempt));
}

/** Where the program leaves its last words. Any user may write them. On a disk, which may be busy: nobody else waits for it. */
async function messageFile(deps: AgentDeps, { self, container, attempt }: StartWish): Promise<string> {
  const path = messagePath(deps, self.pod.metadata.uid, container.name, attempt);
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await writeFile(path, '', { mode: 0o666 });
  await chmod(path, 0o666); // past the umask
  return path;
}

type Tell = (type: 'Normal' | 'Warning', reason: string, message: string) => void;

async function configured<T>(tell: Tell, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isCode(error, 'BAD_CONTAINER_CONFIG')) throw error;
    tell('Warning', 'Failed', `Error: ${error.message}`);
    throw new CannotStart(
      { reason: 'CreateContainerConfigError', message: error.message, retry: true },
      { cause: error },
    );
  }
}

async function made<T>(tell: Tell, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const message = describeChain(error);
    tell('Warning', 'Failed', `Error: ${message}`);
    throw new CannotStart({ reason: 'CreateContainerError', message, retry: true }, { cause: error });
  }
}
