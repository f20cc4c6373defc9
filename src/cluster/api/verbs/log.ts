import { isObject, type JsonObject } from '../codec/json.ts';
import type { ApiResponse, Sink } from '../http/types.ts';
import type { ContainerTarget, LogOptions, PodTarget } from '../node-proxy.ts';
import { badRequest } from '../status.ts';
import type { Call } from './call.ts';
import { flag, wholeNumber } from './options.ts';
import { place } from './resource.ts';

/** `GET pods/NAME/log`: the node's stream, passed on. */
export async function podLog(call: Call): Promise<ApiResponse> {
  const { services, route } = call;
  const stored = await services.registry.get(route.resource, place(call));
  const target = containerTarget(stored.object as unknown as JsonObject, route.query.get('container') ?? '');
  const abort = new AbortController();
  const log = await services.nodes.logs(target, logOptions(route.query), abort.signal);
  return {
    code: 200,
    headers: { 'content-type': 'text/plain' },
    stream: (sink: Sink) => {
      log.on('data', (chunk: Buffer | string) => {
        if (sink.write(Buffer.from(chunk))) return;
        // The reader is behind: so is the log, until it catches up.
        log.pause();
        const resume = services.clock.after(20, function again() {
          if (sink.pendingBytes() === 0) log.resume();
          else services.clock.after(20, again);
        });
        abort.signal.addEventListener('abort', resume, { once: true });
      });
      log.on('end', () => sink.end());
      log.on('error', () => sink.destroy());
      return () => {
        abort.abort();
        log.destroy();
      };
    },
  };
}

export function logOptions(query: URLSearchParams): LogOptions {
  const tailLines = wholeNumber(query, 'tailLines');
  const limitBytes = wholeNumber(query, 'limitBytes');
  const sinceSeconds = wholeNumber(query, 'sinceSeconds');
  const sinceTime = query.get('sinceTime');
  const stream = query.get('stream');
  if (sinceSeconds !== undefined && sinceTime !== null)
    throw badRequest('at most one of `sinceTime` or `sinceSeconds` may be specified');
  if (stream !== null && !['All', 'Stdout', 'Stderr'].includes(stream))
    throw badRequest(`stream: Unsupported value: ${JSON.stringify(stream)}`);
  return {
    follow: flag(query, 'follow') ?? false,
    previous: flag(query, 'previous') ?? false,
    timestamps: flag(query, 'timestamps') ?? false,
    ...(tailLines === undefined ? {} : { tailLines }),
    ...(limitBytes === undefined ? {} : { limitBytes }),
    ...(sinceSeconds === undefined ? {} : { sinceSeconds }),
    ...(sinceTime === null ? {} : { sinceTime }),
    ...(stream === null ? {} : { stream: stream as 'All' | 'Stdout' | 'Stderr' }),
  };
}

/** Which container of a pod is meant, and where it runs; refuses what cannot be told. */
export function containerTarget(pod: JsonObject, asked: string): ContainerTarget {
  const spec = isObject(pod['spec']) ? pod['spec'] : {};
  const metadata = isObject(pod['metadata']) ? pod['metadata'] : {};
  const names = (part: string): string[] =>
    (Array.isArray(spec[part]) ? spec[part] : []).filter(isObject).map((c) => String(c['name']));
  const containers = names('containers');
  const all = [...containers, ...names('initContainers'), ...names('ephemeralContainers')];
  const annotations = isObject(metadata['annotations']) ? metadata['annotations'] : {};
  const wanted =
    asked ||
    String(annotations['kubectl.kubernetes.io/default-container'] ?? '') ||
    (containers.length === 1 ? (containers[0] ?? '') : '');
  const pod1 = String(metadata['name']);
  if (wanted === '')
    throw badRequest(`a container name must be specified for pod ${pod1}, choose one of: [${all.join(' ')}]`);
  if (!all.includes(wanted)) throw badRequest(`container ${wanted} is not valid for pod ${pod1}`);
  return { ...podTarget(pod), container: wanted };
}

export function podTarget(pod: JsonObject): PodTarget {
  const spec = isObject(pod['spec']) ? pod['spec'] : {};
  const metadata = isObject(pod['metadata']) ? pod['metadata'] : {};
  const name = String(metadata['name']);
  const node = String(spec['nodeName'] ?? '');
  if (node === '') throw badRequest(`pod ${name} does not have a host assigned`);
  return { node, namespace: String(metadata['namespace']), pod: name, uid: String(metadata['uid']) };
}
