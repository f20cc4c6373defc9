import { posix } from 'node:path';
import { parse } from 'yaml';
import { EstibaError } from '#base/errors.ts';
import { array, type Out, object, optional, string } from '#base/shape.ts';
import type { HttpTransportOptions } from '#cluster/client/http.ts';
import { KubeconfigInvalid } from '#up/errors.ts';

const text = string();
const shape = object({
  'current-context': optional(text),
  contexts: optional(
    array(
      object({
        name: text,
        context: object({ cluster: text, user: optional(text), namespace: optional(text) }, { unknown: 'keep' }),
      }),
    ),
  ),
  clusters: optional(array(object({ name: text, cluster: object({ server: text }, { unknown: 'keep' }) }))),
  users: optional(array(object({ name: text, user: object({}, { unknown: 'keep' }) }))),
});
type Kubeconfig = Out<typeof shape>;

export interface KubeTarget {
  context: string;
  namespace: string | undefined;
  connection: HttpTransportOptions;
}

// What would change whom we talk to, or as whom, if it were passed over.
const REFUSED_CLUSTER = ['insecure-skip-tls-verify', 'proxy-url', 'tls-server-name'];
const REFUSED_USER = ['exec', 'auth-provider', 'username', 'password', 'as', 'as-groups', 'as-uid'];

/** One context of a kubeconfig file. Paths in it are relative to the file; `read` brings them. */
export function readKubeconfig(
  source: string,
  path: string,
  context: string | undefined,
  read: (path: string) => string,
): KubeTarget {
  const no = (problem: string, cause?: unknown): never => {
    throw new KubeconfigInvalid({ path, problem }, { cause });
  };
  const config = decode(source, no);
  const name = context ?? config['current-context'] ?? no('names no current-context');
  const names = (config.contexts ?? []).map((c) => c.name);
  const chosen =
    config.contexts?.find((c) => c.name === name)?.context ??
    no(`has no context ${name}; it has ${names.join(', ') || 'none'}`);
  const cluster =
    config.clusters?.find((c) => c.name === chosen.cluster)?.cluster ?? no(`has no cluster ${chosen.cluster}`);
  const user = config.users?.find((u) => u.name === chosen.user)?.user ?? {};
  for (const [of, fields] of [
    [cluster, REFUSED_CLUSTER],
    [user, REFUSED_USER],
  ] as const)
    for (const field of fields) {
      const value = (of as Record<string, unknown>)[field];
      if (value !== undefined && value !== false) no(`${field} of context ${name} is not supported here`);
    }
  const data = (of: object, field: string): string | undefined => {
    const inline = (of as Record<string, unknown>)[`${field}-data`];
    if (typeof inline === 'string') return Buffer.from(inline, 'base64').toString('utf8');
    const file = (of as Record<string, unknown>)[field];
    return typeof file === 'string' ? read(posix.resolve(posix.dirname(path), file)) : undefined;
  };
  const { token, tokenFile } = user as { token?: unknown; tokenFile?: unknown };
  const secret = typeof token === 'string' ? token : typeof tokenFile === 'string' ? read(tokenFile).trim() : undefined;
  const [ca, cert, key] = [
    data(cluster, 'certificate-authority'),
    data(user, 'client-certificate'),
    data(user, 'client-key'),
  ];
  return {
    context: name,
    namespace: chosen.namespace,
    connection: {
      server: cluster.server.replace(/\/+$/, ''),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(secret === undefined ? {} : { token: () => secret }),
    },
  };
}

function decode(source: string, no: (problem: string, cause?: unknown) => never): Kubeconfig {
  try {
    return shape(parse(source, { maxAliasCount: 0 }), '$');
  } catch (error) {
    return no(error instanceof EstibaError ? `is no kubeconfig: ${error.message}` : 'is no YAML', error);
  }
}
