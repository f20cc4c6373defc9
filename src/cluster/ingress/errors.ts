import { defineError } from '#base/errors.ts';

export const IngressNotListening = defineError(
  'INGRESS_NOT_LISTENING',
  (d: { ip: string; port: number; errno: string }) => ({
    message: `ingress cannot listen on ${d.ip} port ${d.port}: ${d.errno}`,
    hint:
      d.errno === 'EADDRINUSE' ? 'a web server has the port; choose others with --ingress HTTP,HTTPS' : 'see --ingress',
  }),
);
