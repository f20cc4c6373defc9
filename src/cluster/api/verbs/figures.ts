import { isCode } from '#base/errors.ts';
import { json } from '../http/respond.ts';
import type { ApiResponse } from '../http/types.ts';
import { parseSelection, selects } from '../selectors.ts';
import { notFound } from '../status.ts';
import type { Call, Handler } from './call.ts';

/** What somebody uses, over the window that ended at `atMs`. */
export interface Usage {
  name: string;
  atMs: number;
  windowMs: number;
  cpuNanoCores: number;
  memoryBytes: number;
}

export interface PodUsage {
  namespace: string;
  name: string;
  atMs: number;
  windowMs: number;
  containers: readonly { name: string; cpuNanoCores: number; memoryBytes: number }[];
}

/** Seam: who measures. */
export interface Figures {
  nodes(): Promise<readonly Usage[]>;
  pods(): Promise<readonly PodUsage[]>;
}

/** Verbs of `metrics.k8s.io`. */
export const FIGURE_VERBS: Record<string, Handler> = { get, list };

async function list(call: Call): Promise<ApiResponse> {
  const { kind, apiVersion } = call.route.resource.facts;
  return json(200, { kind: `${kind}List`, apiVersion, metadata: {}, items: await measured(call) });
}

async function get(call: Call): Promise<ApiResponse> {
  const { name = '', resource } = call.route;
  const found = (await measured(call)).find((item) => item.metadata.name === name);
  if (!found) throw notFound({ group: resource.facts.group, resource: resource.facts.resource, name });
  return json(200, found);
}

interface Figure {
  kind: string;
  apiVersion: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; creationTimestamp: string };
  timestamp: string;
  /** Go's duration. */
  window: string;
  usage?: Quantities;
  containers?: { name: string; usage: Quantities }[];
}

type Quantities = { cpu: string; memory: string };

/** Figures of objects that exist, with their labels, so that selectors mean what they mean elsewhere. */
async function measured({ services, route }: Call): Promise<Figure[]> {
  const { kind, apiVersion, resource: plural } = route.resource.facts;
  const { registry, table, figures } = services;
  const objects = table.get(`v1 ${plural}`);
  if (!objects || !figures) return [];
  const { query, namespace } = route;
  const selection = parseSelection(
    { labels: query.get('labelSelector'), fields: query.get('fieldSelector') },
    objects.fields,
    apiVersion,
  );
  const find = async (at: { namespace?: string | undefined; name: string }) => {
    const { object } = await registry.get(objects, { namespace: at.namespace, name: at.name });
    return object;
  };
  const out: Figure[] = [];
  const put = async (usage: Usage | PodUsage): Promise<void> => {
    const at = { namespace: 'namespace' in usage ? usage.namespace : undefined, name: usage.name };
    if (namespace !== undefined && at.namespace !== namespace) return;
    // It may have gone while it was measured.
    const object = await find(at).catch(unlessGone);
    if (!object || !selects(selection, object, objects.fields)) return;
    const { labels } = object.metadata;
    out.push({
      kind,
      apiVersion,
      metadata: {
        name: at.name,
        ...(at.namespace === undefined ? {} : { namespace: at.namespace }),
        ...(labels ? { labels } : {}),
        creationTimestamp: timestampOf(usage.atMs),
      },
      timestamp: timestampOf(usage.atMs),
      window: `${(usage.windowMs / 1000).toFixed(3)}s`,
      ...('containers' in usage
        ? { containers: usage.containers.map((c) => ({ name: c.name, usage: quantities(c) })) }
        : { usage: quantities(usage) }),
    });
  };
  for (const usage of plural === 'nodes' ? await figures.nodes() : await figures.pods()) await put(usage);
  return out;
}

function quantities(of: { cpuNanoCores: number; memoryBytes: number }): Quantities {
  return { cpu: `${Math.round(of.cpuNanoCores)}n`, memory: `${Math.round(of.memoryBytes / 1024)}Ki` };
}

function timestampOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

function unlessGone(error: unknown): undefined {
  if (!isCode(error, 'KUBE_NOTFOUND')) throw error;
}
