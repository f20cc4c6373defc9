import { accountController, tokenSecretController } from './accounts.ts';
import { aggregationController } from './aggregation.ts';
import { autoscaleController, type PodMetrics } from './autoscale.ts';
import { cronJobController } from './cronjob.ts';
import { daemonSetController } from './daemonset.ts';
import { deploymentController } from './deployment.ts';
import { disruptionController } from './disruption.ts';
import { endpointsController } from './endpoints.ts';
import { ephemeralController } from './ephemeral.ts';
import { eventTtlController } from './event-ttl.ts';
import { garbageController } from './garbage.ts';
import { jobController } from './job.ts';
import type { Controller, ControllerDeps } from './loop.ts';
import { namespaceController } from './namespaces.ts';
import { nodeController } from './nodes.ts';
import { quotaController } from './quota.ts';
import { replicaSetController, replicationController } from './replicaset.ts';
import { startGateController } from './start-gate.ts';
import { statefulSetController } from './statefulset.ts';
import { type Provisioner, volumeController } from './volumes.ts';

/** What controllers need of the world besides the API. */
export interface Seams {
  provisioners: readonly Provisioner[];
  metrics: PodMetrics;
  /** PEM of the cluster's authority. */
  authority: string;
}

/** Every controller of a cluster, in one process on one set of caches. Start the view, then these. */
export function allControllers(deps: ControllerDeps, seams: Seams): Controller[] {
  return [
    deploymentController(deps),
    replicaSetController(deps),
    replicationController(deps),
    statefulSetController(deps),
    daemonSetController(deps),
    jobController(deps),
    cronJobController(deps),
    endpointsController(deps),
    disruptionController(deps),
    autoscaleController(deps, seams.metrics),
    volumeController(deps, seams.provisioners),
    ephemeralController(deps),
    aggregationController(deps),
    accountController(deps, seams.authority),
    tokenSecretController(deps, seams.authority),
    quotaController(deps),
    garbageController(deps),
    namespaceController(deps),
    nodeController(deps),
    eventTtlController(deps),
    startGateController(deps),
  ];
}
