import { defineError } from '#base/errors.ts';

export const ValueUnreadable = defineError('KUBE_VALUE_UNREADABLE', (d: { key: string; why: string }) => ({
  message: `${d.key}: the stored value cannot be read: ${d.why}`,
  hint: 'the encryption key may be the wrong one; restore it or a backup',
}));

/** No member of the etcd cluster answered in time. A write may or may not have happened. */
export const StoreTimeout = defineError('STORE_TIMEOUT', (d: { what: string; endpoints: string }) => ({
  message: `etcd at ${d.endpoints} did not answer: ${d.what}`,
  hint: 'look at the health of the etcd members; more than half of them must be up',
}));

export const EtcdRefused = defineError('STORE_ETCD_REFUSED', (d: { what: string; details: string }) => ({
  message: `etcd refused ${d.what}: ${d.details}`,
}));
