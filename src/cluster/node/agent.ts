import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import { Informer } from '#cluster/client/informer.ts';
import { DONE, type Requeue, WorkQueue } from '#cluster/client/queue.ts';
import { keyIn, type Live, PODS, SERVICES } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { DiskWatch } from '#cluster/node/disk.ts';
import { PodImages } from '#cluster/node/images.ts';
import { PodObjects } from '#cluster/node/objects.ts';
import { podCgroup, QOS_CLASSES } from '#cluster/node/pod/resources.ts';
import { LABEL } from '#cluster/node/pod/runs.ts';
import { PodWorker } from '#cluster/node/pod/worker.ts';
import { Registration } from '#cluster/node/registration.ts';
import type { NodeEngine, NodeHost, NodeImages, NodeSettings, PodDrain } from '#cluster/node/seams.ts';
import { PodTokens } from '#cluster/node/volumes/tokens.ts';
import { namesIn, PodVolumes } from '#cluster/node/volumes/volumes.ts';
import type { ConditionalProfile } from '#engine/core/spec.ts';
import type { Pod } from '#spec/kubernetes/types.gen.ts';

export interface AgentOptions {
  client: KubeClient;
  clock: Clock;
  random: Random;
  log: Logger;
  events: EventRecorder;
  engine: NodeEngine;
  images: NodeImages;
  host: NodeHost;
  drain: PodDrain;
  settings: NodeSettings;
  seccompProfile: (name: string) => ConditionalProfile;
}

const WORKERS = 64;
/** Volumes that follow objects are looked at this often even if nobody told of a change; tokens are renewed then too. */
const REFRESH_MS = 60_000;
const BACKOFF_MS = { base: 100, max: 10_000 };

/**
 * The node agent: pods that the scheduler gave to this node run here as the API says, and the API says how they run.
 *
 *     start    node registered → pods, services listed → what nobody owns swept → every pod looked at
 *     change   pod, or a container's end, or a probe's verdict → queue → worker: plan, begin, report
 *     stop     watching ends; pods run on
 */
export class NodeAgent {
  readonly #o: AgentOptions;
  readonly #deps: AgentDeps;
  readonly #pods: Informer<Pod>;
  readonly #services;
  readonly #workers = new Map<string, PodWorker>();
  readonly #queue: WorkQueue;
  readonly #registration: Registration;
  readonly #disk: DiskWatch;
  #unsubscribe: () => void = () => undefined;
  #cancelRefresh: () => void = () => undefined;

  constructor(options: AgentOptions) {
    this.#o = options;
    const { client, clock, log, settings, host, images } = options;
    this.#pods = new Informer(options, PODS, { fieldSelector: `spec.nodeName=${settings.name}` });
    this.#services = new Informer(options, SERVICES);
    const objects = new PodObjects(options, (uid) => void this.#refresh(uid));
    this.#deps = {
      ...options,
      images: new PodImages(images, clock),
      objects,
      volumes: new PodVolumes({
        client,
        objects,
        tokens: new PodTokens(client, clock),
        host,
        clock,
        dataDir: join(settings.dataDir, 'pods'),
        runDir: join(settings.runDir, 'pods'),
      }),
      services: () => this.#services.list(),
      wake: (uid) => this.#queue.add(uid),
    };
    this.#queue = new WorkQueue({
      name: 'pods',
      clock,
      concurrency: WORKERS,
      backoffMs: BACKOFF_MS,
      work: (uid) => this.#work(uid),
      onError: (uid, error, failures) => {
        const pod = this.#workers.get(uid)?.pod;
        log.warn('a pod could not be looked after', {
          pod: keyIn(pod?.metadata.namespace, pod?.metadata.name ?? uid),
          failures,
          error: describeChain(error),
        });
      },
    });
    this.#disk = new DiskWatch({
      ...options,
      pods: () => this.pods(),
      volumePath: (uid, volume) => this.#deps.volumes.emptyDirPath(uid, volume),
      evict: (uid, message) => this.#workers.get(uid)?.evict(message),
    });
    this.#registration = new Registration({ client, clock, log, host, images, settings });
  }

  /** Resolves when the node is Ready and every pod of it is known. */
  async start(): Promise<void> {
    await this.#registration.start();
    this.#pods.start();
    this.#services.start();
    await Promise.all([this.#pods.synced, this.#services.synced]);
    await this.#sweep();
    this.#pods.onChange((now, before) => this.#changed(now, before));
    this.#unsubscribe = this.#o.engine.events.subscribe(({ type, attributes }) => {
      const uid = attributes[LABEL.uid];
      if (type === 'container' && uid !== undefined && this.#workers.has(uid)) this.#queue.add(uid);
    });
    this.#queue.start();
    this.#disk.start();
    this.#scheduleRefresh();
  }

  /** Pods run on; the next agent finds them. */
  async stop(): Promise<void> {
    this.#unsubscribe();
    this.#cancelRefresh();
    this.#disk.stop();
    this.#registration.stop();
    await this.#queue.stop();
    for (const worker of this.#workers.values()) worker.close();
    await Promise.all([this.#pods.stop(), this.#services.stop(), this.#deps.objects.stop()]);
  }

  /** Pods this node knows, for those who serve their streams and figures. */
  pods(): Live<Pod>[] {
    return [...this.#workers.values()].map((worker) => worker.pod);
  }

  #changed(now: Live<Pod> | undefined, before: Live<Pod> | undefined): void {
    const pod = now ?? before;
    if (!pod) return;
    const { uid } = pod.metadata;
    let worker = this.#workers.get(uid);
    if (!worker && now) {
      worker = new PodWorker(this.#deps, now);
      this.#workers.set(uid, worker);
    }
    worker?.update(now);
    this.#queue.add(uid);
  }

  async #work(uid: string): Promise<Requeue> {
    const worker = this.#workers.get(uid);
    if (!worker) return DONE;
    const again = await worker.reconcile();
    if (worker.gone) this.#workers.delete(uid);
    return again;
  }

  async #refresh(uid: string): Promise<void> {
    try {
      await this.#workers.get(uid)?.refresh();
    } catch (error) {
      this.#o.log.warn('volumes could not be brought up to date', { pod: uid, error: describeChain(error) });
    }
  }

  #scheduleRefresh(): void {
    this.#cancelRefresh = this.#o.clock.after(REFRESH_MS, () => {
      void Promise.all([...this.#workers.keys()].map((uid) => this.#refresh(uid)));
      this.#scheduleRefresh();
    });
  }

  /**
   * What a pod left that the API does not know any more: containers first, then sandbox and directories. One that cannot be
   * removed now holds up nobody; the next start tries again.
   */
  async #sweep(): Promise<void> {
    const { engine, settings } = this.#o;
    const known = new Set(this.#pods.list().map((pod) => pod.metadata.uid));
    const lost = (uid: string | undefined): uid is string => uid !== undefined && !known.has(uid);
    const orphans = engine.containers
      .list()
      .filter(({ spec }) => spec.origin.by === 'kubernetes' && lost(spec.labels[LABEL.uid]));
    await this.#tryAll(orphans, ({ id }) => engine.containers.remove(id, { force: true, volumes: true }));
    await this.#tryAll(engine.sandboxes.list().filter(lost), (id) => engine.sandboxes.remove(id));
    const directories = [settings.runDir, settings.dataDir].map((root) => namesIn(join(root, 'pods')));
    const uids = new Set((await Promise.all(directories)).flat());
    await this.#tryAll([...uids].filter(lost), async (uid) => {
      await this.#deps.volumes.release(uid);
      for (const qos of QOS_CLASSES) await this.#o.host.removePodCgroup(podCgroup(settings.cgroupParent, qos, uid));
    });
  }

  async #tryAll<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const outcomes = await Promise.allSettled(items.map(work));
    for (const outcome of outcomes)
      if (outcome.status === 'rejected')
        this.#o.log.error('what a lost pod left could not be removed', { error: describeChain(outcome.reason) });
  }
}
