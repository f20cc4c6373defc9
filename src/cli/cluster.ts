import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import type { Flags, GlobalFlags, Io } from '#cli/verb.ts';
import { HttpTransport } from '#cluster/client/http.ts';
import { Cluster } from '#up/cluster.ts';
import { KubeconfigInvalid } from '#up/errors.ts';
import { readKubeconfig } from '#up/kubeconfig.ts';

export interface OpenCluster extends Disposable {
  cluster: Cluster;
  transport: HttpTransport;
  namespace: string | undefined;
  /** `other`: not the one of the daemon beside us. */
  kind: 'estiba' | 'other';
}

/** `--kubeconfig`, `--kube-context`; else the cluster of the daemon that is meant. */
export function openCluster(flags: Flags, global: GlobalFlags, io: Io): OpenCluster {
  const context = flags.text('kube-context');
  const given = flags.text('kubeconfig');
  const other = context !== undefined || given !== undefined;
  const runRoot = global.runRoot ?? io.env['ESTIBA_RUN_ROOT'] ?? '/run/estiba';
  // KUBECONFIG may be a list; the first is where kubectl writes.
  const usual = io.env['KUBECONFIG']?.split(':')[0] ?? join(io.env['HOME'] ?? '/root', '.kube/config');
  const path = given ?? (other ? usual : join(runRoot, 'kubeconfig'));
  const read = (file: string): string => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      throw new KubeconfigInvalid(
        { path: file, problem: errnoOf(error) === 'ENOENT' ? 'there is no such file' : 'cannot be read' },
        { cause: error },
      );
    }
  };
  const target = readKubeconfig(read(path), path, context, read);
  const transport = new HttpTransport(target.connection);
  return {
    cluster: new Cluster(transport),
    transport,
    namespace: flags.text('namespace') ?? (other ? target.namespace : undefined),
    kind: other ? 'other' : 'estiba',
    [Symbol.dispose]: () => transport.close(),
  };
}
