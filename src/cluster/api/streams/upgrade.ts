import type { Duplex } from 'node:stream';
import type { JsonObject } from '../codec/json.ts';
import { errorResponse } from '../http/respond.ts';
import type { ResourceRoute } from '../http/route.ts';
import type { ApiRequest } from '../http/types.ts';
import type { ExecOptions } from '../node-proxy.ts';
import type { ApiServer } from '../server.ts';
import { badRequest, noSuchResource } from '../status.ts';
import { containerTarget } from '../verbs/log.ts';
import { flag } from '../verbs/options.ts';
import { EXEC_PROTOCOLS, serveExec } from './exec.ts';
import { acceptHead, chooseProtocol } from './websocket.ts';

/** Requests that leave HTTP behind: authorized as all others, opened at the node, then accepted; so that a refusal still has a code. */
export interface Upgrade {
  server: ApiServer;
  request: ApiRequest;
  socket: Duplex;
  head: Buffer;
  onError: (error: unknown) => void;
}

export async function handleUpgrade(upgrade: Upgrade): Promise<void> {
  const { request, socket, onError } = upgrade;
  socket.on('error', () => undefined); // the client's connection: its end is what counts
  try {
    await open(upgrade);
  } catch (error) {
    const { code, headers, body } = errorResponse(error, onError);
    const lines = Object.entries({ ...headers, connection: 'close', 'content-length': Buffer.byteLength(body) }).map(
      ([k, v]) => `${k}: ${String(v)}\r\n`,
    );
    socket.end(`HTTP/1.1 ${code} ${request.method}\r\n${lines.join('')}\r\n${body.toString()}`);
  }
}

async function open({ server, request, socket, head, onError }: Upgrade): Promise<void> {
  const { route } = await server.admit(request);
  if (route.is === 'path' || (route.subresource !== 'exec' && route.subresource !== 'attach'))
    throw noSuchResource(request.url);
  const protocol = chooseProtocol(request.headers['sec-websocket-protocol'], EXEC_PROTOCOLS);
  const key = request.headers['sec-websocket-key'];
  if ((request.headers['upgrade'] ?? '').toLowerCase() !== 'websocket' || key === undefined)
    throw badRequest(
      `unable to upgrade: this server speaks WebSocket here, the client asked for ${request.headers['upgrade'] ?? 'nothing'}`,
    );
  if (protocol === undefined)
    throw badRequest(
      `unable to upgrade: none of the client's protocols is known; this server speaks ${EXEC_PROTOCOLS.join(', ')}`,
    );
  const session = await openSession(server, route);
  socket.write(acceptHead(key, protocol));
  serveExec(socket, head, session, onError);
}

async function openSession(server: ApiServer, route: ResourceRoute) {
  const { registry, nodes } = server.services;
  const { query } = route;
  const { object } = await registry.get(route.resource, { namespace: route.namespace, name: route.name ?? '' });
  const target = containerTarget(object as unknown as JsonObject, query.get('container') ?? '');
  const { command, ...streams } = execOptions(query);
  if (route.subresource === 'attach') return nodes.attach(target, streams);
  if (command.length === 0) throw badRequest('you must specify at least 1 command for the container');
  return nodes.exec(target, { command, ...streams });
}

function execOptions(query: URLSearchParams): ExecOptions {
  const tty = flag(query, 'tty') ?? false;
  const options = {
    command: query.getAll('command'),
    stdin: flag(query, 'stdin') ?? false,
    stdout: flag(query, 'stdout') ?? false,
    // A terminal has one output.
    stderr: !tty && (flag(query, 'stderr') ?? false),
    tty,
  };
  if (!options.stdin && !options.stdout && !options.stderr)
    throw badRequest('you must specify at least 1 of stdin, stdout, stderr');
  return options;
}
