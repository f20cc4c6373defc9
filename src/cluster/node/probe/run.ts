import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { Client, credentials, status as grpcStatus, Metadata } from '@grpc/grpc-js';
import { messageOf } from '#base/errors.ts';
import type { ProbeOutcome } from '#cluster/node/probe/watch.ts';
import type { Container, ExecAction, GRPCAction, HTTPGetAction, IntOrString } from '#spec/kubernetes/types.gen.ts';

const BODY_BYTES = 10 * 1024;
const REDIRECTS = 10;
const SERVING = 1;

/** What a probe or a hook does: the four kinds the API knows. */
export interface Action {
  exec?: ExecAction;
  httpGet?: HTTPGetAction;
  tcpSocket?: { host?: string; port: IntOrString };
  grpc?: GRPCAction;
}

export interface ActionTarget {
  container: Container;
  ip: string;
  exec: (argv: readonly string[], timeoutMs: number) => Promise<{ code: number; output: string; late: boolean }>;
}

/** Never throws: what cannot be asked is a failure with its reason. */
export async function runAction(action: Action, target: ActionTarget, timeoutMs: number): Promise<ProbeOutcome> {
  try {
    if (action.exec) return await execAction(action.exec, target, timeoutMs);
    if (action.httpGet) return await httpAction(httpUrl(action.httpGet, target), action.httpGet, timeoutMs, REDIRECTS);
    if (action.tcpSocket)
      return await tcpAction(action.tcpSocket.host || target.ip, portOf(action.tcpSocket.port, target), timeoutMs);
    if (action.grpc) return await grpcAction(`${target.ip}:${action.grpc.port}`, action.grpc.service ?? '', timeoutMs);
    return { ok: false, output: 'missing probe handler' };
  } catch (error) {
    return { ok: false, output: messageOf(error) };
  }
}

/** A number, or the name of one of the container's ports. */
export function portOf(port: IntOrString, { container }: Pick<ActionTarget, 'container'>): number {
  const named = container.ports?.find((p) => p.name === port)?.containerPort;
  const number = named ?? Number(port);
  if (!Number.isInteger(number) || number < 1 || number > 65_535) throw new Error(`invalid port ${port}`);
  return number;
}

async function execAction(action: ExecAction, target: ActionTarget, timeoutMs: number): Promise<ProbeOutcome> {
  const { code, output, late } = await target.exec(action.command ?? [], timeoutMs);
  if (late)
    return {
      ok: false,
      output: `command timed out: "${(action.command ?? []).join(' ')}" timed out after ${timeoutMs / 1000}s`,
    };
  return { ok: code === 0, output };
}

function httpUrl(action: HTTPGetAction, target: ActionTarget): URL {
  const host = action.host || target.ip;
  const scheme = (action.scheme ?? 'HTTP').toLowerCase();
  const path = action.path ?? '/';
  return new URL(
    `${scheme}://${host.includes(':') ? `[${host}]` : host}:${portOf(action.port, target)}${path.startsWith('/') ? path : `/${path}`}`,
  );
}

function httpAction(url: URL, action: HTTPGetAction, timeoutMs: number, redirects: number): Promise<ProbeOutcome> {
  const headers: Record<string, string> = { 'user-agent': 'kube-probe/1.36', accept: '*/*', connection: 'close' };
  for (const { name, value } of action.httpHeaders ?? []) headers[name.toLowerCase()] = value;
  return new Promise((resolve) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(url, { headers, agent: false, rejectUnauthorized: false }, (response) => {
      let body = '';
      const code = response.statusCode ?? 0;
      response.on('data', (chunk: Buffer) => {
        if (body.length < BODY_BYTES) body += chunk.toString('utf8');
      });
      response.on('error', (error) => finish({ ok: false, output: error.message }));
      response.on('end', () => {
        const { location } = response.headers;
        if (code >= 300 && code < 400 && location !== undefined) {
          const next = new URL(location, url);
          // Another host's health is not this container's: that it redirects is enough, as for the kubelet.
          if (next.hostname === url.hostname && redirects > 0)
            return void httpAction(next, action, timeoutMs, redirects - 1).then(finish);
        }
        finish(
          code >= 200 && code < 400
            ? { ok: true, output: body }
            : { ok: false, output: `HTTP probe failed with statuscode: ${code}` },
        );
      });
    });
    const timer = setTimeout(() => {
      finish({
        ok: false,
        output: `Get "${url.href}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`,
      });
      request.destroy();
    }, timeoutMs);
    const finish = (outcome: ProbeOutcome): void => {
      clearTimeout(timer);
      resolve(outcome);
    };
    request.on('error', (error) => finish({ ok: false, output: `Get "${url.href}": ${error.message}` }));
    request.end();
  });
}

function tcpAction(host: string, port: number, timeoutMs: number): Promise<ProbeOutcome> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (outcome: ProbeOutcome): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(() => finish({ ok: false, output: `dial tcp ${host}:${port}: i/o timeout` }), timeoutMs);
    socket.on('connect', () => finish({ ok: true, output: '' }));
    socket.on('error', (error) => finish({ ok: false, output: `dial tcp ${host}:${port}: ${error.message}` }));
  });
}

/** grpc.health.v1.Health/Check: `service` is field 1 of the request, `status` field 1 of the answer. */
function grpcAction(address: string, service: string, timeoutMs: number): Promise<ProbeOutcome> {
  const client = new Client(address, credentials.createInsecure());
  const name = Buffer.from(service);
  return new Promise((resolve) => {
    const finish = (outcome: ProbeOutcome): void => {
      client.close();
      resolve(outcome);
    };
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      () => (name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.of(0x0a, ...varint(name.length)), name])),
      (bytes: Buffer) => (bytes[0] === 0x08 ? (bytes[1] ?? 0) : 0),
      undefined,
      new Metadata(),
      { deadline: Date.now() + timeoutMs },
      (error, health) => {
        if (!error) return finish({ ok: health === SERVING, output: `service unhealthy (responded with ${health})` });
        const why =
          error.code === grpcStatus.DEADLINE_EXCEEDED
            ? `timeout: failed to connect service "${address}" within ${timeoutMs / 1000}s`
            : error.message;
        finish({ ok: false, output: why });
      },
    );
  });
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}
