import type { Duplex } from 'node:stream';
import { acceptHead, chooseProtocol } from '#base/websocket.ts';
import type { JsonObject } from '../codec/json.ts';
import { errorResponse } from '../http/respond.ts';
import type { ResourceRoute } from '../http/route.ts';
import type { ApiRequest } from '../http/types.ts';
import type { ExecOptions } from '../node-proxy.ts';
import type { ApiServer } from '../server.ts';
import { badRequest, noSuchResource } from '../status.ts';
import { containerTarget, podTarget } from '../verbs/log.ts';
import { flag } from '../verbs/options.ts';
import { EXEC_PROTOCOLS, EXEC_SPDY_PROTOCOLS, serveExec, serveExecOverSpdy } from './exec.ts';
import {
  CHANNEL_PROTOCOL,
  forwardOverChannels,
  forwardOverSpdy,
  MessageStream,
  type PortForward,
  SPDY_PROTOCOL,
  TUNNEL_PROTOCOL,
} from './port-forward.ts';

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

async function open(upgrade: Upgrade): Promise<void> {
  const { server, request } = upgrade;
  const { route } = await server.admit(request);
  if (route.is === 'path') throw noSuchResource(request.url);
  if (route.subresource === 'exec' || route.subresource === 'attach') await openExec(upgrade, route);
  else if (route.subresource === 'portforward') await openPortForward(upgrade, route);
  else throw noSuchResource(request.url);
}

async function openExec({ server, request, socket, head, onError }: Upgrade, route: ResourceRoute): Promise<void> {
  const language = chooseLanguage(request, { webSocket: EXEC_PROTOCOLS, spdy: EXEC_SPDY_PROTOCOLS });
  const { command, ...streams } = execOptions(route.query);
  const target = containerTarget(await podOf(server, route), route.query.get('container') ?? '');
  if (route.subresource === 'exec' && command.length === 0)
    throw badRequest('you must specify at least 1 command for the container');
  const { nodes } = server.services;
  const session =
    route.subresource === 'attach'
      ? await nodes.attach(target, streams)
      : await nodes.exec(target, { command, ...streams });
  socket.write(language.accept);
  if (language.is === 'spdy') serveExecOverSpdy(socket, head, streams, session, server.services.clock, onError);
  else serveExec(socket, head, session, onError);
}

async function openPortForward({ server, request, socket, head }: Upgrade, route: ResourceRoute): Promise<void> {
  const language = chooseLanguage(request, {
    webSocket: [TUNNEL_PROTOCOL, CHANNEL_PROTOCOL],
    spdy: [SPDY_PROTOCOL],
  });
  const pod = await podOf(server, route);
  const target = podTarget(pod);
  const forward: PortForward = {
    clock: server.services.clock,
    connect: (port, signal) => server.services.nodes.portForward(target, port, signal),
    pod: `${target.namespace}/${target.pod}`,
  };
  if (language.protocol !== CHANNEL_PROTOCOL) {
    socket.write(language.accept);
    if (language.is === 'spdy') forwardOverSpdy(socket, head, forward);
    else forwardOverSpdy(new MessageStream(socket, head), Buffer.alloc(0), forward);
    return;
  }
  const ports = route.query.getAll('ports').flatMap((list) => list.split(',').map(Number));
  if (ports.length === 0 || ports.some((port) => !(port >= 1 && port <= 65_535)))
    throw badRequest('query parameter "ports" is required: numbers of ports, from 1 to 65535');
  socket.write(language.accept);
  forwardOverChannels(socket, head, forward, ports);
}

type Language = { is: 'webSocket' | 'spdy'; protocol: string; accept: string };

/** What both sides speak, with the head that says so. */
function chooseLanguage(
  { headers }: ApiRequest,
  ours: { webSocket: readonly string[]; spdy: readonly string[] },
): Language {
  const upgrade = (headers['upgrade'] ?? '').toLowerCase();
  if (upgrade === 'spdy/3.1') {
    const protocol = chooseProtocol(headers['x-stream-protocol-version'], ours.spdy);
    if (protocol === undefined) throw unknownProtocol(ours.spdy);
    return { is: 'spdy', protocol, accept: spdyHead(protocol) };
  }
  const key = headers['sec-websocket-key'];
  if (upgrade !== 'websocket' || key === undefined)
    throw badRequest(
      `unable to upgrade: this server speaks WebSocket and SPDY/3.1 here, the client asked for ${headers['upgrade'] ?? 'nothing'}`,
    );
  const protocol = chooseProtocol(headers['sec-websocket-protocol'], ours.webSocket);
  if (protocol === undefined) throw unknownProtocol(ours.webSocket);
  return { is: 'webSocket', protocol, accept: acceptHead(key, protocol) };
}

function unknownProtocol(ours: readonly string[]): Error {
  return badRequest(
    `unable to upgrade: none of the client's protocols is known; this server speaks ${ours.join(', ')}`,
  );
}

function spdyHead(protocol: string): string {
  return `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`;
}

async function podOf(server: ApiServer, route: ResourceRoute): Promise<JsonObject> {
  const at = { namespace: route.namespace, name: route.name ?? '' };
  const { object } = await server.services.registry.get(route.resource, at);
  return object as unknown as JsonObject;
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
