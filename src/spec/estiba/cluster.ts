/** Names of ours that stand in Kubernetes objects: written by `estiba up`, read by controllers and the proxy (docs/specs/up.md). */

/** Label of every object and pod of an app. */
export const APP_LABEL = 'estiba.dev/app';
/** Label of the objects and pods of one service of an app. */
export const SERVICE_LABEL = 'estiba.dev/service';

/**
 * How `depends_on` holds a pod back: the pod carries a scheduling gate of this name and, under the same name, an annotation with
 * a JSON map of service to condition. The controller `start-gate` takes the gate away once all hold.
 */
export const START_GATE = 'estiba.dev/depends-on';
