import { gunzipSync, gzipSync } from 'node:zlib';
import { keyIn, SECRETS } from '#cluster/client/resources.ts';
import { APP_LABEL } from '#spec/estiba/cluster.ts';
import type { Secret } from '#spec/kubernetes/types.gen.ts';
import type { Cluster } from '#up/cluster.ts';
import { UpInvalid } from '#up/errors.ts';
import type { UpObject } from '#up/objects.ts';

/**
 * What an app was applied as, kept in the Secret `estiba.app.NAME` of its namespace:
 *
 *     objects    the app as it was applied last, in full: what `--undo-on-failure` brings back
 *     pending    what is being applied right now; written first, so that what a crash leaves behind is found and removed later
 */
export interface AppRecord {
  app: string;
  namespace: string;
  objects: readonly UpObject[];
  pending: readonly UpObject[];
}

const RECORD_LABEL = 'estiba.dev/record';
const TYPE = 'estiba.dev/app';
// A Secret holds 1 MiB; base64 takes a third of it.
const MAX_BYTES = 700 * 1024;

export async function readRecord(cluster: Cluster, namespace: string, app: string): Promise<AppRecord | undefined> {
  const secret = await cluster.client.find(SECRETS, keyIn(namespace, secretName(app)));
  return secret && parse(secret);
}

/** The apps of one namespace, or of all. */
export async function listRecords(cluster: Cluster, namespace?: string): Promise<AppRecord[]> {
  const where = namespace === undefined ? {} : { namespace };
  const { items } = await cluster.client.list(SECRETS, { ...where, labelSelector: RECORD_LABEL });
  return items.flatMap((secret) => parse(secret) ?? []);
}

export async function writeRecord(cluster: Cluster, { app, namespace, objects, pending }: AppRecord): Promise<void> {
  const packed = gzipSync(JSON.stringify({ objects, pending }));
  if (packed.length > MAX_BYTES)
    throw new UpInvalid({
      where: app,
      problem: `is too large to be remembered: ${packed.length} bytes packed, ${MAX_BYTES} at most`,
    });
  await cluster.apply({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: secretName(app), namespace, labels: { [APP_LABEL]: app, [RECORD_LABEL]: 'true' } },
    type: TYPE,
    data: { app: packed.toString('base64') },
  } as UpObject);
}

export async function dropRecord(
  cluster: Cluster,
  { namespace, app }: Pick<AppRecord, 'namespace' | 'app'>,
): Promise<void> {
  await cluster.remove({ apiVersion: 'v1', kind: 'Secret', metadata: { name: secretName(app), namespace } });
}

function secretName(app: string): string {
  return `estiba.app.${app.replaceAll('_', '-')}`;
}

function parse({ metadata, type, data }: Secret): AppRecord | undefined {
  const packed = data?.['app'];
  if (type !== TYPE || packed === undefined) return undefined;
  const { objects, pending } = JSON.parse(gunzipSync(Buffer.from(packed, 'base64')).toString('utf8')) as Pick<
    AppRecord,
    'objects' | 'pending'
  >;
  return { app: metadata.labels?.[APP_LABEL] ?? '', namespace: metadata.namespace ?? '', objects, pending };
}
