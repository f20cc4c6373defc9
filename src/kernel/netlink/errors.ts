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
