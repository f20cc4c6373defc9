import type { Duplex } from 'node:stream';
import { connect as tlsConnect } from 'node:tls';
import type { Clock } from '#base/clock.ts';
import { messageOf } from '#base/errors.ts';
import { type Backend, connectTo, nameOf } from '#cluster/ingress/backends.ts';
import type { InRequest } from '#cluster/ingress/exchange.ts';
import { type Client, forwardHeaders } from '#cluster/ingress/headers.ts';
import type { Page } from '#cluster/ingress/pages.ts';

export interface Upgrading {
  request: InRequest;
  socket: Duplex;
  head: Buffer;
  client: Client;
  backend: Backend;
  name: string;
  clock: Clock;
}

/**
 * WebSocket and other upgrades: the request's head goes to the backend as it is, and from then on both sides speak to each other;
 * the backend's answer, 101 or a refusal, comes back with the rest.
 */
export async function upgrade(u: Upgrading): Promise<Page | undefined> {
  const { request, socket, head, client, backend } = u;
  const tried = new Set<string>();
  socket.on('error', () => socket.destroy());
  for (;;) {
    const target = backend.pick(tried);
    if (!target && tried.size === 0)
      return {
        status: 503,
        code: 'NO_ENDPOINTS',
        says: backend.entry.why ?? `${u.name} has no endpoint that is ready`,
      };
    if (!target)
      return {
        status: 502,
        code: 'BACKEND_REFUSED',
        says: `${u.name} takes no connection at ${[...tried].join(', ')}`,
      };
    tried.add(nameOf(target));
    let there: Duplex;
    try {
      const plain = await connectTo(target, u.clock);
      there = backend.entry.protocol === 'https' ? tlsConnect({ socket: plain, rejectUnauthorized: false }) : plain;
    } catch (error) {
      backend.avoid(target);
      if (socket.destroyed) return undefined;
      if (tried.size >= backend.entry.targets.length)
        return { status: 502, code: 'BACKEND_REFUSED', says: `${u.name} at ${nameOf(target)}: ${messageOf(error)}` };
      continue;
    }
    const over = backend.begin(target);
    const headers = {
      ...forwardHeaders(request.headers, client),
      connection: 'Upgrade',
      upgrade: request.headers['upgrade'] ?? '',
    };
    const lines = Object.entries(headers).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).map((v) => `${name}: ${String(v)}\r\n`),
    );
    there.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
    if (head.length > 0) there.write(head);
    there.on('error', () => socket.destroy());
    there.on('close', () => {
      over();
      socket.destroy();
    });
    socket.on('close', () => there.destroy());
    there.pipe(socket);
    socket.pipe(there);
    return undefined;
  }
}
