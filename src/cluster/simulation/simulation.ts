import { generateKeyPairSync } from 'node:crypto';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { type Random, seededRandom } from '#base/random.ts';
import { type RunningApi, startApi } from '#cluster/api/start.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { allControllers } from '#cluster/controllers/all.ts';
import type { PodMetrics } from '#cluster/controllers/autoscale.ts';
import type { Controller } from '#cluster/controllers/loop.ts';
import type { Provisioner } from '#cluster/controllers/volumes.ts';
import { Scheduler } from '#cluster/scheduler/scheduler.ts';
import { memoryStore } from '#storage/memory.ts';
import { type Faults, FaultyTransport, NO_FAULTS } from './faults.ts';
import { CALM, FakeKubelets, type KubeletBehaviour } from './kubelets.ts';
import { Referee } from './referee.ts';

export interface SimulationOptions {
  seed: number;
  nodes: number;
  faults?: Faults;
  behaviour?: KubeletBehaviour;
  node?: { cpu: string; memory: string; pods: number };
  /** Only the scheduler runs, for measuring it. */
  controllers?: boolean;
  metrics?: PodMetrics;
}

const AUTHORITY = 'simulated';
const NO_METRICS: PodMetrics = { usage: () => Promise.resolve(new Map()) };

/** Volumes on the node where the first pod stands. */
const localProvisioner: Provisioner = {
  name: 'estiba.dev/local',
  remark: '',
  provision: ({ name, claim, node = '' }) =>
    Promise.resolve({
      capacity: { storage: claim.spec.resources?.requests?.['storage'] ?? '1Gi' },
      accessModes: claim.spec.accessModes ?? ['ReadWriteOnce'],
      local: { path: `/volumes/${name}` },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [node] }] },
          ],
        },
      },
    }),
  remove: () => Promise.resolve(),
};

const ADMIN = { username: 'simulation', groups: ['system:masters', 'system:authenticated'] };
// Long enough for every promise chain between two timers; short enough to find what happens between.
const STEP_MS = 100;

/**
 * A whole control plane in one process on a clock that stands still until told: real API server, store, scheduler and controllers,
 * fake nodes, a network that delays, loses and cuts. The same seed gives the same run.
 */
export class Simulation {
  readonly clock = new FakeClock();
  readonly random: Random;
  /** Sees the truth: no faults. */
  readonly client: KubeClient;
  readonly truth: ClusterView;
  readonly referee: Referee;
  readonly kubelets: FakeKubelets;
  readonly scheduler: Scheduler;
  readonly #networks: FaultyTransport[] = [];
  readonly #views: ClusterView[] = [];
  readonly #controllers: Controller[];
  readonly #api: RunningApi;
  readonly #options: SimulationOptions;

  private constructor(options: SimulationOptions, api: RunningApi, clock: FakeClock, random: Random) {
    this.#options = options;
    this.#api = api;
    this.clock = clock;
    this.random = random;
    const log = logger('cluster:ctrl', silentSink);
    const direct = new InProcessTransport(api.server, ADMIN, { frozen: true });
    this.client = new KubeClient(direct, { fieldManager: 'simulation' });
    this.truth = new ClusterView({ client: this.client, clock, random, log });
    this.#views.push(this.truth);
    const view = (): ClusterView => {
      const transport = new FaultyTransport(direct, { clock, random, faults: options.faults ?? NO_FAULTS });
      this.#networks.push(transport);
      const made = new ClusterView({ client: new KubeClient(transport, { fieldManager: 'sim' }), clock, random, log });
      this.#views.push(made);
      return made;
    };
    const recorder = (from: ClusterView) => (component: string) =>
      new EventRecorder({ client: from.client, clock, log, component });
    const [forScheduler, forControllers, forKubelets] = [view(), view(), view()];
    this.scheduler = new Scheduler({
      view: forScheduler,
      clock,
      random,
      log,
      events: recorder(forScheduler)('default-scheduler'),
    });
    this.#controllers =
      options.controllers === false
        ? []
        : allControllers(
            { view: forControllers, clock, random, log, events: recorder(forControllers) },
            { provisioners: [localProvisioner], metrics: options.metrics ?? NO_METRICS, authority: AUTHORITY },
          );
    this.kubelets = new FakeKubelets({ view: forKubelets, clock, random, behaviour: options.behaviour ?? CALM });
    this.referee = new Referee(this.truth);
  }

  static async start(options: SimulationOptions): Promise<Simulation> {
    const clock = new FakeClock();
    const random = seededRandom(options.seed);
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const starting = startApi({
      store: memoryStore(clock),
      clock,
      random: () => random.next(),
      log: logger('cluster:api', silentSink),
      serviceCidr: '10.96.0.0/12',
      authority: AUTHORITY,
      tokenKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    });
    const simulation = new Simulation(options, await driven(clock, starting), clock, random);
    await driven(clock, simulation.#bringUp());
    return simulation;
  }

  async #bringUp(): Promise<void> {
    await Promise.all(this.#views.map((v) => v.start()));
    for (const controller of this.#controllers) controller.start();
    this.scheduler.start();
    const shape = this.#options.node ?? { cpu: '4', memory: '8Gi', pods: 32 };
    for (let i = 0; i < this.#options.nodes; i++) {
      const labels = { 'topology.kubernetes.io/zone': `zone-${i % 3}` };
      await this.kubelets.add({ name: `node-${i}`, labels, ...shape });
    }
  }

  /** Does something that needs the clock to move, and moves it until it is done. */
  do<T>(work: Promise<T>): Promise<T> {
    return driven(this.clock, work);
  }

  async run(ms: number): Promise<void> {
    const endMs = this.clock.now() + ms;
    while (this.clock.now() < endMs) await this.clock.advance(Math.min(STEP_MS, endMs - this.clock.now()));
  }

  /** Until `done` holds; answers whether it did within `limitMs`. */
  async until(done: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.clock.now() + limitMs;
    while (!done()) {
      if (this.clock.now() >= endMs) return false;
      await this.clock.advance(STEP_MS);
    }
    return true;
  }

  /** The network behaves from now on. */
  calm(): void {
    for (const network of this.#networks) network.faults = NO_FAULTS;
    this.kubelets.behaviour = { ...this.kubelets.behaviour, crash: 0 };
  }

  async stop(): Promise<void> {
    const stopping = Promise.all([
      this.scheduler.stop(),
      ...this.#controllers.map((c) => c.stop()),
      ...this.#views.map((v) => v.stop()),
    ]);
    await driven(this.clock, stopping);
    this.#api.stop();
  }
}

async function driven<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  let settled = false;
  const watched = work.finally(() => {
    settled = true;
  });
  watched.catch(() => undefined); // the caller hears of it
  while (!settled) await clock.advance(10);
  return watched;
}
