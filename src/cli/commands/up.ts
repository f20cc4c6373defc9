import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { stringify } from 'yaml';
import { systemClock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { parseDurationNs } from '#base/units.ts';
import { buildImages } from '#cli/build-images.ts';
import { type OpenCluster, openCluster } from '#cli/cluster.ts';
import { ExitWith } from '#cli/errors.ts';
import { printList } from '#cli/output.ts';
import { ProgressLines } from '#cli/progress.ts';
import type { Command, Flags, Io } from '#cli/verb.ts';
import { NODES, PODS, SERVICES } from '#cluster/client/resources.ts';
import { APP_LABEL, SERVICE_LABEL } from '#spec/estiba/cluster.ts';
import { applyDeed, findApp, rehearse, takeDown, undo, waitGone, waitReady } from '#up/apply.ts';
import { renderChanges } from '#up/diff.ts';
import { loadApp, type Planner, type UpWish } from '#up/input.ts';
import { type AppPlan, nameOf } from '#up/objects.ts';
import { readinessOf } from '#up/ready.ts';
import { type AppRecord, listRecords } from '#up/record.ts';
import { EMPTY_WORLD } from '#up/why/world.ts';

/** `estiba up`: read, plan, build, apply, wait. */
export const upCommand: Command = async ({ flags, args, io, engine, global }) => {
  using open = openCluster(flags, global, io);
  const { cluster } = open;
  const planner = await loadApp(wishOf(flags, args[0] ?? '.', io, open));
  const draft = planner();
  if (flags.on('plan')) return await showPlan(open, draft, flags, io);

  const progress = new ProgressLines(io);
  const plan = flags.on('no-build') ? draft : await built(planner, draft, (builds) => buildImages(engine, builds, io));
  const deed = await rehearse(cluster, plan);
  await applyDeed(cluster, plan, deed, progress, waitOf(flags));
  if (flags.on('no-wait')) return 0;
  try {
    await waitReady(cluster, plan.app, deed.objects, progress, waitOf(flags));
  } catch (error) {
    progress.end();
    if (!flags.on('undo-on-failure') || !isCode(error, 'UP_FAILED', 'UP_NOT_READY')) throw error;
    io.stderr.write(`estiba: ${error.message}\nbringing back what ran before\n`);
    await undo(cluster, plan, deed, progress, waitOf(flags));
    throw new ExitWith({ code: 1, says: `${plan.app} is as it was before` });
  }
  progress.end();
  const urls = await addressesOf(open, { app: plan.app, namespace: plan.namespace });
  io.stdout.write(`${plan.app} is up${urls.length === 0 ? '' : `: ${urls.join(' ')}`}\n`);
  return 0;
};

async function built(
  planner: Planner,
  draft: AppPlan,
  build: (builds: AppPlan['builds']) => Promise<Record<string, string>>,
): Promise<AppPlan> {
  return draft.builds.length === 0 ? draft : planner(await build(draft.builds));
}

async function showPlan({ cluster }: OpenCluster, plan: AppPlan, flags: Flags, io: Io): Promise<number> {
  const { changes, objects } = await rehearse(cluster, plan);
  const differs = changes.some((c) => c.kind !== 'same');
  if (flags.on('json')) {
    const plain = changes.map(({ kind, object, lines }) => ({ change: kind, object: nameOf(object), lines }));
    io.stdout.write(`${JSON.stringify({ app: plan.app, builds: plan.builds, objects, changes: plain })}\n`);
  } else {
    const documents = objects.map((o) => stringify(withoutSecrets(o), { lineWidth: 0, aliasDuplicateObjects: false }));
    const builds = plan.builds.map((b) => `# builds ${b.image} from ${b.context}\n`).join('');
    io.stdout.write(`${builds}${documents.join('---\n')}\n`);
    io.stdout.write(renderChanges(changes).replace(/^/gm, '# ').replace(/# $/, ''));
  }
  return differs ? 2 : 0;
}

/** A plan is pasted into tickets. */
function withoutSecrets<T extends { kind: string }>(object: T): T {
  const { data } = object as { data?: Record<string, string> };
  if (object.kind !== 'Secret' || !data) return object;
  return { ...object, data: Object.fromEntries(Object.keys(data).map((key) => [key, '(secret)'])) };
}

function wishOf(flags: Flags, path: string, io: Io, { kind, namespace }: OpenCluster): UpWish {
  const name = flags.text('name');
  return {
    path: resolve(io.cwd, path),
    files: flags.list('file'),
    ...(name === undefined ? {} : { name }),
    ...(namespace === undefined ? {} : { namespace }),
    profiles: flags.list('profile'),
    environment: io.env,
    cluster: kind,
  };
}

function waitOf(flags: Flags): { clock: typeof systemClock; timeoutMs: number } {
  return { clock: systemClock, timeoutMs: (parseDurationNs(flags.text('timeout') ?? '5m') ?? 0) / 1e6 };
}

export const downCommand: Command = async ({ flags, args, io, global }) => {
  using open = openCluster(flags, global, io);
  const { app, namespace } = await appNamed(open, args[0] ?? '.', flags, io);
  const progress = new ProgressLines(io);
  const removed = await takeDown(open.cluster, app, namespace, { volumes: flags.on('volumes') }, progress);
  progress.end();
  if (removed.length === 0) throw new ExitWith({ code: 1, says: `${app} does not run in ${namespace}` });
  if (flags.on('no-wait')) return 0;
  const left = await waitGone(open.cluster, removed, waitOf(flags));
  if (left.length > 0) throw new ExitWith({ code: 1, says: `still there: ${left.join(', ')}` });
  io.stdout.write(`${app} is down\n`);
  return 0;
};

/** A name, or a folder whose app is meant. */
async function appNamed(
  open: OpenCluster,
  given: string,
  flags: Flags,
  io: Io,
): Promise<{ app: string; namespace: string }> {
  if (given !== '.' && !existsSync(resolve(io.cwd, given))) return await findApp(open.cluster, given, open.namespace);
  return (await loadApp(wishOf(flags, given, io, open)))();
}

export const appListCommand: Command = async ({ flags, io, global }) => {
  using open = openCluster(flags, global, io);
  const records = await listRecords(open.cluster, open.namespace);
  const rows = await Promise.all(records.map(async (record) => ({ ...record, state: await stateOf(open, record) })));
  const columns = [
    { name: 'Name', head: 'NAME', value: (r: (typeof rows)[number]) => r.app },
    { name: 'Namespace', head: 'NAMESPACE', value: (r: (typeof rows)[number]) => r.namespace },
    { name: 'Ready', head: 'READY', value: (r: (typeof rows)[number]) => r.state },
    { name: 'Objects', head: 'OBJECTS', value: (r: (typeof rows)[number]) => r.objects.length },
  ];
  printList(io, flags, rows, { columns, shown: columns.map((c) => c.name), quiet: (r) => r.app });
  return 0;
};

async function stateOf({ cluster }: OpenCluster, { objects, pending }: AppRecord): Promise<string> {
  if (pending.length > 0) return 'unfinished';
  const runs = objects.filter((o) => ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'Pod'].includes(o.kind));
  const states = await Promise.all(
    runs.map(async (object) => {
      const live = await cluster.find(object);
      return live ? readinessOf({ ...live, kind: object.kind }, EMPTY_WORLD).state : 'failed';
    }),
  );
  return `${states.filter((s) => s === 'ready').length}/${runs.length}`;
}

export const appLogsCommand: Command = async ({ flags, args, io, global }) => {
  using open = openCluster(flags, global, io);
  const [app = '', ...services] = args;
  const { namespace } = await findApp(open.cluster, app, open.namespace);
  const only = services.length === 0 ? '' : `,${SERVICE_LABEL} in (${services.join(',')})`;
  const { items } = await open.cluster.client.list(PODS, { namespace, labelSelector: `${APP_LABEL}=${app}${only}` });
  const sources = items.flatMap((pod) =>
    pod.spec.containers.map((c) => ({ pod: pod.metadata.name, container: c.name })),
  );
  const width = Math.max(0, ...sources.map((s) => s.pod.length));
  const one = async ({ pod, container }: (typeof sources)[number]): Promise<void> => {
    const query = new URLSearchParams({
      container,
      tailLines: flags.text('tail') ?? '100',
      ...(flags.on('follow') ? { follow: 'true' } : {}),
      ...(flags.on('timestamps') ? { timestamps: 'true' } : {}),
    });
    const path = `/api/v1/namespaces/${namespace}/pods/${pod}/log?${query.toString()}`;
    try {
      for await (const line of open.transport.textLines(path)) io.stdout.write(`${pod.padEnd(width)} | ${line}\n`);
    } catch (error) {
      // One that has not started has no log, which is no reason to keep those of the others.
      if (!isCode(error, 'KUBE_REFUSED', 'KUBE_NOT_FOUND')) throw error;
      io.stderr.write(`${pod.padEnd(width)} | ${error.message}\n`);
    }
  };
  await Promise.all(sources.map(one));
  return 0;
};

export const appOpenCommand: Command = async ({ flags, args, io, global }) => {
  using open = openCluster(flags, global, io);
  const [app = ''] = args;
  const urls = await addressesOf(open, await findApp(open.cluster, app, open.namespace));
  if (urls.length === 0) throw new ExitWith({ code: 1, says: `${app} publishes no port` });
  io.stdout.write(`${urls.join('\n')}\n`);
  return 0;
};

/** Host ports of an app, at the address by which this machine reaches them. */
async function addressesOf(
  { cluster, kind }: OpenCluster,
  { app, namespace }: { app: string; namespace: string },
): Promise<string[]> {
  const { items } = await cluster.client.list(SERVICES, { namespace, labelSelector: `${APP_LABEL}=${app}` });
  const node = async (): Promise<string> => {
    if (kind === 'estiba') return '127.0.0.1';
    const nodes = await cluster.client.list(NODES);
    const addresses = nodes.items[0]?.status?.addresses ?? [];
    return (
      (addresses.find((a) => a.type === 'ExternalIP') ?? addresses.find((a) => a.type === 'InternalIP'))?.address ??
      'NODE'
    );
  };
  const out: string[] = [];
  for (const { spec, status } of items)
    for (const port of spec?.ports ?? []) {
      const scheme = port.protocol === 'UDP' ? 'udp' : 'http';
      const given = status?.loadBalancer?.ingress?.[0];
      const address = given?.ip ?? given?.hostname;
      if (spec?.type === 'LoadBalancer' && (address !== undefined || kind === 'estiba'))
        out.push(`${scheme}://${kind === 'estiba' ? '127.0.0.1' : address}:${port.port}`);
      else if (spec?.type === 'NodePort' && port.nodePort !== undefined)
        out.push(`${scheme}://${await node()}:${port.nodePort}`);
    }
  return out;
}
