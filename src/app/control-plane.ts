import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { startKubeApi } from '#app/kube-api.ts';
import { systemClock } from '#base/clock.ts';
import { logger } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { allControllers } from '#cluster/controllers/all.ts';
import { Scheduler } from '#cluster/scheduler/scheduler.ts';
import { openEmbedded } from '#storage/embedded.ts';

export interface ControlPlaneOptions {
  dataRoot: string;
  runRoot: string;
  host: string;
  port: number;
}

export interface ControlPlane {
  url: string;
  kubeconfigPath: string;
  close(): Promise<void>;
}

const SYSTEM = ['system:masters', 'system:authenticated'];

/** API server, scheduler and controllers in this process, on the embedded store. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const clock = systemClock;
  const random = systemRandom;
  const log = logger('cluster:ctrl');
  await mkdir(options.runRoot, { recursive: true, mode: 0o700 });
  const store = await openEmbedded(join(options.dataRoot, 'cluster'), { clock, keepRevisions: 100_000 });
  const api = await startKubeApi({
    store,
    directory: join(options.dataRoot, 'kube'),
    host: options.host,
    port: options.port,
  });

  // Two views: what the scheduler waits for must not stand in line behind the controllers.
  const view = (user: string): ClusterView => {
    const transport = new InProcessTransport(api.server, { username: user, groups: SYSTEM });
    return new ClusterView({ client: new KubeClient(transport, { fieldManager: user }), clock, random, log });
  };
  const [forScheduler, forControllers] = [view('system:kube-scheduler'), view('system:kube-controller-manager')];
  const events = (from: ClusterView, component: string): EventRecorder =>
    new EventRecorder({ client: from.client, clock, log, component });
  const scheduler = new Scheduler({
    view: forScheduler,
    clock,
    random,
    log,
    events: events(forScheduler, 'default-scheduler'),
  });
  const controllers = allControllers(
    { view: forControllers, clock, random, log, events: (component) => events(forControllers, component) },
    // Provisioners and pod metrics come with the node agent; until a node joins there is nothing to provision or to measure.
    { provisioners: [], metrics: { usage: () => Promise.resolve(new Map()) }, authority: api.authority.certificate },
  );
  await Promise.all([forScheduler.start(), forControllers.start()]);
  for (const controller of controllers) controller.start();
  scheduler.start();

  return {
    url: api.url,
    kubeconfigPath: api.kubeconfigPath,
    async close() {
      await scheduler.stop();
      await Promise.all(controllers.map((controller) => controller.stop()));
      await Promise.all([forScheduler.stop(), forControllers.stop()]);
      await api.close();
      await store.close();
    },
  };
}
