import { defineError } from '#base/errors.ts';

export const DnsNotListening = defineError('DNS_NOT_LISTENING', (d: { ip: string; port: number; errno: string }) => ({
  message: `cluster DNS cannot listen on ${d.ip} port ${d.port}: ${d.errno}`,
  hint: d.errno === 'EADDRINUSE' ? 'another name server has the port' : 'the address must be one of this host',
}));
