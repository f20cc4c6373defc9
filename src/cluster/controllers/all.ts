import { cronJobController } from './cronjob.ts';
import { daemonSetController } from './daemonset.ts';
import { deploymentController } from './deployment.ts';
import { endpointsController } from './endpoints.ts';
import { garbageController } from './garbage.ts';
import { jobController } from './job.ts';
import type { Controller, ControllerDeps } from './loop.ts';
import { namespaceController } from './namespaces.ts';
import { nodeController } from './nodes.ts';
import { replicaSetController } from './replicaset.ts';
import { statefulSetController } from './statefulset.ts';

/** Every controller of a cluster, in one process on one set of caches. Start the view, then these. */
export function allControllers(deps: ControllerDeps): Controller[] {
  return [
    deploymentController(deps),
    replicaSetController(deps),
    statefulSetController(deps),
    daemonSetController(deps),
    jobController(deps),
    cronJobController(deps),
    endpointsController(deps),
    garbageController(deps),
    namespaceController(deps),
    nodeController(deps),
  ];
}
