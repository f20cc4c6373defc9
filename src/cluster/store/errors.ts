import { defineError } from '#base/errors.ts';

export const ValueUnreadable = defineError('KUBE_VALUE_UNREADABLE', (d: { key: string; why: string }) => ({
  message: `${d.key}: the stored value cannot be read: ${d.why}`,
  hint: 'the encryption key may be the wrong one; restore it or a backup',
}));
