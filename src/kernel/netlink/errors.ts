import { getSystemErrorName } from 'node:util';
import { defineError } from '#base/errors.ts';

export const NetlinkTruncated = defineError('NETLINK_TRUNCATED', (d: { what: string; atByte: number }) => ({
  message: `netlink: ${d.what} at byte ${d.atByte} is longer than what was received`,
}));

export const NetlinkRefused = defineError(
  'NETLINK_REFUSED',
  (d: { what: string; errno: number; says: string | undefined; sequence: number; offset: number | undefined }) => ({
    message: `${d.what}: ${getSystemErrorName(-d.errno)}${d.says ? ` (${d.says})` : ''}, message ${d.sequence} of its batch`,
  }),
);

export const BadAddress = defineError('BAD_ADDRESS', (d: { text: string; wanted: string }) => ({
  message: `${JSON.stringify(d.text)} is not ${d.wanted}`,
}));

export const NetworkStepFailed = defineError('NETWORK_STEP_FAILED', (d: { what: string; errno: string }) => ({
  message: `${d.what}: ${d.errno}`,
}));

export const NetHandGone = defineError('NET_HAND_GONE', (d: { what: string }) => ({
  message: `${d.what}: the helper estiba-net has ended`,
  hint: 'its last words are in the daemon’s log',
}));
