import type { KubeClient } from '#cluster/client/client.ts';
import { Informer, type InformerDeps } from '#cluster/client/informer.ts';
import {
  CONFIG_MAPS,
  type KubeObject,
  keyIn,
  type Live,
  type ObjectKey,
  type Resource,
  SECRETS,
} from '#cluster/client/resources.ts';
import type { ConfigMap, Container, Pod, Secret } from '#spec/kubernetes/types.gen.ts';

type Kind = 'configmap' | 'secret';

interface Watched {
  informer: Informer<KubeObject>;
  users: Set<string>;
  /** Calls off the end of the watch, once it is due. */
  cancelEnd: () => void;
}

/** Pods are replaced by others that name the same: a rollout need not look everything up again. */
const LINGER_MS = 30_000;

const RESOURCES: Record<Kind, Resource<KubeObject>> = { configmap: CONFIG_MAPS, secret: SECRETS };

/**
 * The config maps and secrets that this node's pods name, each watched by its name as long as a pod uses it: a node may read no
 * others, and a change reaches the volumes at once.
 */
export class PodObjects {
  readonly #deps: InformerDeps & { client: KubeClient };
  readonly #changed: (uid: string) => void;
  readonly #watched = new Map<string, Watched>();

  constructor(deps: InformerDeps, changed: (uid: string) => void) {
    this.#deps = deps;
    this.#changed = changed;
  }

  /** Begins to watch what the pod names, and lets go of nothing. Resolves when all of it has been looked up. */
  async follow(pod: Live<Pod>): Promise<void> {
    const { uid, namespace = '' } = pod.metadata;
    await Promise.all(namedBy(pod).map(([kind, name]) => this.#watch(kind, keyIn(namespace, name), uid)));
  }

  configMap(namespace: string, name: string): ConfigMap | undefined {
    return this.#get('configmap', keyIn(namespace, name)) as ConfigMap | undefined;
  }

  secret(namespace: string, name: string): Secret | undefined {
    return this.#get('secret', keyIn(namespace, name)) as Secret | undefined;
  }

  /** The pod is gone: what only it used is watched no more, unless another one comes soon. */
  forget(uid: string): void {
    const { clock, log } = this.#deps;
    for (const [id, watched] of this.#watched) {
      if (!watched.users.delete(uid) || watched.users.size > 0) continue;
      watched.cancelEnd();
      watched.cancelEnd = clock.after(LINGER_MS, () => {
        if (watched.users.size > 0 || this.#watched.get(id) !== watched) return;
        this.#watched.delete(id);
        watched.informer
          .stop()
          .catch((error: unknown) => log.debug('a watch did not end', () => ({ id, error: String(error) })));
      });
    }
  }

  async stop(): Promise<void> {
    for (const { cancelEnd } of this.#watched.values()) cancelEnd();
    await Promise.all([...this.#watched.values()].map((w) => w.informer.stop()));
    this.#watched.clear();
  }

  #get(kind: Kind, key: ObjectKey): KubeObject | undefined {
    return this.#watched.get(`${kind} ${key}`)?.informer.get(key);
  }

  async #watch(kind: Kind, key: ObjectKey, uid: string): Promise<void> {
    const id = `${kind} ${key}`;
    let watched = this.#watched.get(id);
    if (!watched) {
      const [namespace = '', name = ''] = key.split('/');
      const informer = new Informer(this.#deps, RESOURCES[kind], { namespace, fieldSelector: `metadata.name=${name}` });
      const made: Watched = { informer, users: new Set(), cancelEnd: () => undefined };
      informer.onChange(() => {
        for (const user of made.users) this.#changed(user);
      });
      this.#watched.set(id, made);
      informer.start();
      watched = made;
    }
    watched.users.add(uid);
    await watched.informer.synced;
  }
}

/** Every config map and secret that the pod's spec names. Pure. */
export function namedBy(pod: Pod): [Kind, string][] {
  const found = new Map<string, [Kind, string]>();
  const add = (kind: Kind, name: string | undefined): void => {
    if (name) found.set(`${kind} ${name}`, [kind, name]);
  };
  const { spec } = pod;
  for (const volume of spec.volumes ?? []) {
    add('configmap', volume.configMap?.name);
    add('secret', volume.secret?.secretName);
    for (const source of volume.projected?.sources ?? []) {
      add('configmap', source.configMap?.name);
      add('secret', source.secret?.name);
    }
  }
  for (const { name } of spec.imagePullSecrets ?? []) add('secret', name);
  const containers: Container[] = [...(spec.initContainers ?? []), ...spec.containers];
  for (const container of containers) {
    for (const from of container.envFrom ?? []) {
      add('configmap', from.configMapRef?.name);
      add('secret', from.secretRef?.name);
    }
    for (const { valueFrom } of container.env ?? []) {
      add('configmap', valueFrom?.configMapKeyRef?.name);
      add('secret', valueFrom?.secretKeyRef?.name);
    }
  }
  return [...found.values()];
}
