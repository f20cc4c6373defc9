import { messageOf } from '#base/errors.ts';
import { referenceTo } from '#cluster/client/events.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  keyIn,
  keyOf,
  type Live,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  STORAGE_CLASSES,
} from '#cluster/client/resources.ts';
import { claimNameOf } from '#spec/kubernetes/pod-volumes.ts';
import { compareQuantities } from '#spec/kubernetes/quantity.ts';
import type { PersistentVolume, PersistentVolumeClaim, Pod, StorageClass } from '#spec/kubernetes/types.gen.ts';
import { NO_PROVISIONER, SELECTED_NODE, storageClassOf, suits } from '#spec/kubernetes/volume-match.ts';
import { type ControllerDeps, type Reconciler, reconciler, writeStatus } from './loop.ts';
import { isOver } from './pods.ts';

export const CLAIM_PROTECTION = 'kubernetes.io/pvc-protection';
export const VOLUME_PROTECTION = 'kubernetes.io/pv-protection';
const BIND_COMPLETED = 'pv.kubernetes.io/bind-completed';
const BOUND_BY_US = 'pv.kubernetes.io/bound-by-controller';
const PROVISIONED_BY = 'pv.kubernetes.io/provisioned-by';
const PROVISION_RETRY_MS = 5_000;

/**
 * Makes volumes of a storage class. `provision` may be called again for the same claim (after a crash, after a lost answer) and
 * must answer the same volume; `remove` of one that is gone succeeds.
 */
export interface Provisioner {
  /** As in `StorageClass.provisioner`. */
  readonly name: string;
  /** What users should know of its volumes, as the end of a sentence: `; their size …`; or ''. */
  readonly remark: string;
  provision(request: {
    /** The volume's name: `pvc-UID`. */
    name: string;
    claim: Live<PersistentVolumeClaim>;
    storageClass: Live<StorageClass>;
    /** Where the first pod will stand, when the class waits for one. */
    node: string | undefined;
  }): Promise<PersistentVolume['spec']>;
  remove(volume: Live<PersistentVolume>): Promise<void>;
}

export type ClaimStep =
  | { do: 'nothing' }
  | { do: 'bind'; volume: Live<PersistentVolume> }
  | { do: 'provision'; storageClass: Live<StorageClass>; node: string | undefined }
  | { do: 'markBound'; volume: Live<PersistentVolume> }
  | { do: 'lost' }
  | { do: 'wait'; reason: string; message: string };

/** The smallest volume that serves goes to a claim; one set aside for it by name goes first. */
export function planClaim(
  claim: Live<PersistentVolumeClaim>,
  volumes: readonly Live<PersistentVolume>[],
  storageClass: Live<StorageClass> | undefined,
): ClaimStep {
  if (claim.metadata.deletionTimestamp) return { do: 'nothing' };
  const { volumeName } = claim.spec;
  const storageClassName = storageClassOf(claim);
  if (volumeName) {
    const volume = volumes.find((v) => v.metadata.name === volumeName);
    if (!volume) return claim.status?.phase === 'Bound' ? { do: 'lost' } : { do: 'wait', ...waitsFor(volumeName) };
    const holder = volume.spec?.claimRef;
    if (holder && !holds(volume, claim))
      return {
        do: 'wait',
        reason: 'FailedBinding',
        message: `volume "${volumeName}" already bound to a different claim.`,
      };
    if (!holder?.uid) return { do: 'bind', volume };
    return claim.status?.phase === 'Bound' ? { do: 'nothing' } : { do: 'markBound', volume };
  }
  const late = storageClass?.volumeBindingMode === 'WaitForFirstConsumer';
  const node = claim.metadata.annotations?.[SELECTED_NODE];
  if (late && !node)
    return {
      do: 'wait',
      reason: 'WaitForFirstConsumer',
      message: 'waiting for first consumer to be created before binding',
    };
  const candidates = volumes
    .filter((v) => (v.status?.phase === 'Available' || holds(v, claim)) && suits(v, claim))
    .sort((a, b) => Number(holds(b, claim)) - Number(holds(a, claim)) || compareQuantities(sizeOf(a), sizeOf(b)));
  if (candidates[0]) return { do: 'bind', volume: candidates[0] };
  if (storageClass && storageClass.provisioner !== NO_PROVISIONER) return { do: 'provision', storageClass, node };
  const none = storageClassName
    ? storageClass
      ? 'no persistent volumes available for this claim and no storage class provisioner'
      : `storageclass.storage.k8s.io "${storageClassName}" not found`
    : 'no persistent volumes available for this claim and no storage class is set';
  return {
    do: 'wait',
    reason: storageClassName && !storageClass ? 'ProvisioningFailed' : 'FailedBinding',
    message: none,
  };
}

function waitsFor(volume: string): { reason: string; message: string } {
  return { reason: 'FailedBinding', message: `volume "${volume}" not found` };
}

function holds(volume: PersistentVolume, claim: Live<PersistentVolumeClaim>): boolean {
  const held = volume.spec?.claimRef;
  if (held?.namespace !== claim.metadata.namespace || held?.name !== claim.metadata.name) return false;
  return !held?.uid || held.uid === claim.metadata.uid;
}

function sizeOf(volume: PersistentVolume): string {
  return volume.spec?.capacity?.['storage'] ?? '0';
}

export type VolumeStep =
  | { do: 'nothing' }
  | { do: 'phase'; phase: 'Available' | 'Bound' | 'Released'; message?: string }
  | { do: 'reclaim' };

/** What becomes of a volume whose claim has gone: kept as Released, or deleted by who made it. */
export function planVolume(volume: Live<PersistentVolume>, claim: Live<PersistentVolumeClaim> | undefined): VolumeStep {
  const held = volume.spec?.claimRef;
  const phase = volume.status?.phase;
  if (volume.metadata.deletionTimestamp && !held?.uid) return { do: 'nothing' };
  if (!held?.uid) return phase === 'Available' ? { do: 'nothing' } : { do: 'phase', phase: 'Available' };
  if (claim?.metadata.uid === held.uid) {
    const bound = claim.spec.volumeName === volume.metadata.name;
    return bound && phase !== 'Bound' ? { do: 'phase', phase: 'Bound' } : { do: 'nothing' };
  }
  if (volume.spec?.persistentVolumeReclaimPolicy === 'Delete') return { do: 'reclaim' };
  return phase === 'Released' ? { do: 'nothing' } : { do: 'phase', phase: 'Released' };
}

export function volumeController(deps: ControllerDeps, provisioners: readonly Provisioner[] = []): Reconciler {
  const { view } = deps;
  const claims = view.of(PERSISTENT_VOLUME_CLAIMS);
  const volumes = view.of(PERSISTENT_VOLUMES);
  const classes = view.of(STORAGE_CLASSES);
  const pods = view.of(PODS);
  const events = deps.events('persistentvolume-controller');
  pods.informer.addIndex('claims', claimsOf);
  // One at a time: two claims must not be given one volume.
  const loop = reconciler(deps, 'volumes', reconcile, 1);
  claims.informer.onChange((now, before) => add('claim', now ?? before));
  volumes.informer.onChange((now, before) => {
    add('volume', now ?? before);
    const held = (now ?? before)?.spec?.claimRef;
    if (held) loop.queue.add(`claim|${keyIn(held.namespace, held.name ?? '')}`);
    // A free volume may be what a claim waits for.
    else for (const claim of claims.list()) if (!claim.spec.volumeName) add('claim', claim);
  });
  classes.informer.onChange(() => {
    for (const claim of claims.list()) if (!claim.spec.volumeName) add('claim', claim);
  });
  // A claim that is being deleted waits for the last pod that uses it.
  pods.informer.onChange((now, before) => {
    if (before && (!now || isOver(now))) for (const key of claimsOf(before)) loop.queue.add(`claim|${key}`);
  });
  return loop;

  function add(
    kind: 'claim' | 'volume',
    object: Live<PersistentVolumeClaim> | Live<PersistentVolume> | undefined,
  ): void {
    if (object) loop.queue.add(`${kind}|${keyOf(object)}`);
  }

  async function reconcile(entry: string): Promise<Requeue> {
    const [kind = '', key = ''] = entry.split('|');
    if (kind === 'volume') {
      const volume = volumes.get(key);
      if (volume) await tendVolume(volume);
      return DONE;
    }
    const claim = claims.get(key);
    if (claim) return tendClaim(claim);
    for (const volume of volumes.list()) {
      const held = volume.spec?.claimRef;
      if (keyIn(held?.namespace, held?.name ?? '') === key) await tendVolume(volume);
    }
    return DONE;
  }

  async function tendClaim(claim: Live<PersistentVolumeClaim>): Promise<Requeue> {
    if (claim.metadata.deletionTimestamp) {
      await letClaimGo(claim);
      return DONE;
    }
    if (!claim.metadata.finalizers?.includes(CLAIM_PROTECTION)) {
      const finalizers = [...(claim.metadata.finalizers ?? []), CLAIM_PROTECTION];
      await claims.update({ ...claim, metadata: { ...claim.metadata, finalizers } });
      return DONE; // its own event brings it back
    }
    const step = planClaim(claim, volumes.list(), classes.get(storageClassOf(claim)));
    switch (step.do) {
      case 'nothing':
        return DONE;
      case 'wait':
        events.record(PERSISTENT_VOLUME_CLAIMS, claim, { type: 'Normal', reason: step.reason, message: step.message });
        if (claim.status?.phase === undefined) await claims.updateStatus({ ...claim, status: { phase: 'Pending' } });
        return DONE;
      case 'bind':
        await bind(claim, step.volume);
        return DONE;
      case 'markBound':
        await markBound(claim, step.volume);
        return DONE;
      case 'lost': {
        const message = 'Bound claim has lost its PersistentVolume. Data on the volume is lost!';
        events.record(PERSISTENT_VOLUME_CLAIMS, claim, { type: 'Warning', reason: 'ClaimLost', message });
        await writeStatus(claims, claim, { ...claim.status, phase: 'Lost' });
        return DONE;
      }
      case 'provision':
        return provision(claim, step.storageClass, step.node);
    }
  }

  /** The volume names its claim first: should we stop in between, nobody else can take it. */
  async function bind(claim: Live<PersistentVolumeClaim>, volume: Live<PersistentVolume>): Promise<void> {
    const {
      apiVersion = 'v1',
      kind = '',
      namespace = '',
      name = '',
      uid = '',
    } = referenceTo(PERSISTENT_VOLUME_CLAIMS, claim);
    const claimRef = { apiVersion, kind, namespace, name, uid };
    const annotations = { ...volume.metadata.annotations, [BOUND_BY_US]: 'yes' };
    const held =
      volume.spec?.claimRef?.uid === uid
        ? volume
        : await volumes.update({
            ...volume,
            metadata: { ...volume.metadata, annotations },
            spec: { ...volume.spec, claimRef },
          });
    const marked = { ...claim.metadata.annotations, [BIND_COMPLETED]: 'yes', [BOUND_BY_US]: 'yes' };
    const bound = await claims.update({
      ...claim,
      metadata: { ...claim.metadata, annotations: marked },
      spec: { ...claim.spec, volumeName: volume.metadata.name },
    });
    await markBound(bound, held);
  }

  async function markBound(claim: Live<PersistentVolumeClaim>, volume: Live<PersistentVolume>): Promise<void> {
    if (volume.status?.phase !== 'Bound') await writeStatus(volumes, volume, { ...volume.status, phase: 'Bound' });
    await writeStatus(claims, claim, {
      ...claim.status,
      phase: 'Bound',
      ...(volume.spec?.accessModes ? { accessModes: volume.spec.accessModes } : {}),
      ...(volume.spec?.capacity ? { capacity: volume.spec.capacity } : {}),
    });
  }

  async function provision(
    claim: Live<PersistentVolumeClaim>,
    storageClass: Live<StorageClass>,
    node: string | undefined,
  ): Promise<Requeue> {
    const provisioner = provisioners.find((p) => p.name === storageClass.provisioner);
    if (!provisioner) {
      const message =
        `Waiting for a volume to be created either by the external provisioner '${storageClass.provisioner}' or manually by the ` +
        'system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.';
      events.record(PERSISTENT_VOLUME_CLAIMS, claim, { type: 'Normal', reason: 'ExternalProvisioning', message });
      return DONE;
    }
    const name = `pvc-${claim.metadata.uid}`;
    try {
      const spec = await provisioner.provision({ name, claim, storageClass, node });
      const { namespace = '', uid } = claim.metadata;
      const claimRef = { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: claim.metadata.name, uid };
      const volume = await volumes.create({
        metadata: { name, annotations: { [PROVISIONED_BY]: provisioner.name }, finalizers: [VOLUME_PROTECTION] },
        spec: {
          ...spec,
          claimRef,
          storageClassName: storageClass.metadata.name,
          persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? 'Delete',
        },
      });
      const message = `Successfully provisioned volume ${name}${provisioner.remark}`;
      events.record(PERSISTENT_VOLUME_CLAIMS, claim, { type: 'Normal', reason: 'ProvisioningSucceeded', message });
      await bind(claim, volume);
      return DONE;
    } catch (error) {
      const message = `failed to provision volume with StorageClass "${storageClass.metadata.name}": ${messageOf(error)}`;
      events.record(PERSISTENT_VOLUME_CLAIMS, claim, { type: 'Warning', reason: 'ProvisioningFailed', message });
      return { afterMs: PROVISION_RETRY_MS };
    }
  }

  async function letClaimGo(claim: Live<PersistentVolumeClaim>): Promise<void> {
    const users = pods.informer.by('claims', keyOf(claim)).filter((p) => !isOver(p));
    if (users.length > 0 || !claim.metadata.finalizers?.includes(CLAIM_PROTECTION)) return;
    const finalizers = claim.metadata.finalizers.filter((f) => f !== CLAIM_PROTECTION);
    await claims.update({ ...claim, metadata: { ...claim.metadata, finalizers } });
  }

  async function tendVolume(volume: Live<PersistentVolume>): Promise<void> {
    const held = volume.spec?.claimRef;
    const key = keyIn(held?.namespace, held?.name ?? '');
    // Data is at stake: what the cache does not show may still be there.
    const claim = held ? (claims.get(key) ?? (await claims.fresh(key))) : undefined;
    const step = planVolume(volume, claim);
    if (step.do === 'phase') await writeStatus(volumes, volume, { ...volume.status, phase: step.phase });
    else if (step.do === 'reclaim') await reclaim(volume);
    const free = !held?.uid || step.do === 'reclaim';
    if (volume.metadata.deletionTimestamp && free) await letVolumeGo(volume);
  }

  async function reclaim(volume: Live<PersistentVolume>): Promise<void> {
    const provisioner = provisioners.find((p) => p.name === volume.metadata.annotations?.[PROVISIONED_BY]);
    if (!provisioner) {
      await writeStatus(volumes, volume, { ...volume.status, phase: 'Released' });
      return;
    }
    try {
      await provisioner.remove(volume);
    } catch (error) {
      events.record(PERSISTENT_VOLUMES, volume, {
        type: 'Warning',
        reason: 'VolumeFailedDelete',
        message: messageOf(error),
      });
      await writeStatus(volumes, volume, { ...volume.status, phase: 'Failed', message: messageOf(error) });
      throw error;
    }
    await letVolumeGo(volume);
    await volumes.remove(volumes.get(volume.metadata.name) ?? volume);
  }

  async function letVolumeGo(volume: Live<PersistentVolume>): Promise<void> {
    const present = volumes.get(volume.metadata.name) ?? volume;
    if (!present.metadata.finalizers?.includes(VOLUME_PROTECTION)) return;
    const finalizers = present.metadata.finalizers.filter((f) => f !== VOLUME_PROTECTION);
    await volumes.update({ ...present, metadata: { ...present.metadata, finalizers } });
  }
}

function claimsOf(pod: Pod): string[] {
  return (pod.spec.volumes ?? []).flatMap((v) => {
    const name = claimNameOf(pod, v);
    return name === undefined ? [] : [keyIn(pod.metadata.namespace, name)];
  });
}
