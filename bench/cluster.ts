import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { HttpTransport } from '#cluster/client/http.ts';
import { Informer } from '#cluster/client/informer.ts';
import { DEPLOYMENTS, keyOf, type Live, PODS } from '#cluster/client/resources.ts';
import type { Deployment, Pod } from '#spec/kubernetes/types.gen.ts';
import { Machine } from '../test/cluster/machine.ts';

// `cluster.mjs ROUNDS` makes machines; `cluster.mjs inside KUBECONFIG ROUNDS` measures as a client on one.

interface Figures {
  deployMs: number[];
  scaleMs: number[];
  replaceMs: number[];
}
interface Rest {
  pssMiB: number;
  cpuPercent: number;
}

const REST_SECONDS = 20;
const MANY = 50;
const GOALS = { readyMs: 1_000, deployMs: 150, scaleMs: 3_000, replaceMs: 200, pssMiB: 150, cpuPercent: 0.5 };

const [, self = '', first = '3', ...more] = process.argv;
if (first === 'inside') await inside(more[0] ?? '', Number(more[1]));
else await outside(Number(first));

async function outside(rounds: number): Promise<void> {
  const ready: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const machine = await Machine.open(`b${i}`, [], {}, (ms) => ready.push(ms));
    if (i < rounds - 1) {
      await machine.close();
      continue;
    }
    try {
      // The image is made here: what a registry and a disk take is no part of this.
      await machine.run('docker', ['pull', 'busybox']);
      const rest = await atRest(machine);
      const answer = await machine.run(process.execPath, [
        self,
        'inside',
        join(machine.runRoot, 'kubeconfig'),
        String(rounds),
      ]);
      if (answer.code !== 0) throw new Error(answer.text);
      tell(ready, JSON.parse(answer.text) as Figures, rest);
    } finally {
      await machine.close();
    }
  }
}

function tell(readyMs: number[], figures: Figures, rest: Rest): void {
  const rows: [string, number, number, string][] = [
    ['empty machine → node Ready', median(readyMs), GOALS.readyMs, 'ms'],
    ['Deployment of 3: apply → Available', median(figures.deployMs), GOALS.deployMs, 'ms'],
    ['scale 1 → 50: all ready', median(figures.scaleMs), GOALS.scaleMs, 'ms'],
    ['pod deleted → replacement ready', median(figures.replaceMs), GOALS.replaceMs, 'ms'],
    ['daemon and its helpers at rest, PSS', rest.pssMiB, GOALS.pssMiB, 'MiB'],
    ['the same, share of a core', rest.cpuPercent, GOALS.cpuPercent, '%'],
  ];
  for (const [what, value, goal, unit] of rows) {
    const met = value <= goal;
    process.stdout.write(
      `${what.padEnd(40)} ${value.toFixed(1).padStart(8)} ${unit.padEnd(4)} goal ${goal}${met ? '' : ', missed'}\n`,
    );
    if (!met) process.exitCode = 1;
  }
}

/** Every process of the machine but its holder and ourselves: daemon, edge, spawner, estiba-net. */
async function atRest(machine: Machine): Promise<Rest> {
  await sleep(3_000);
  const pids = machine.pids();
  const ticks = (): number => pids.reduce((sum, pid) => sum + cpuTicks(pid), 0);
  const before = ticks();
  await sleep(REST_SECONDS * 1000);
  const cpuPercent = (ticks() - before) / REST_SECONDS; // 100 ticks a second
  const pssKiB = pids.reduce(
    (sum, pid) => sum + Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0),
    0,
  );
  return { pssMiB: pssKiB / 1024, cpuPercent };
}

function cpuTicks(pid: string): number {
  const fields = read(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // the process has ended
  }
}

// ---- a client on the machine

async function inside(kubeconfig: string, rounds: number): Promise<void> {
  const client = clientOf(kubeconfig);
  const deps = { client, clock: systemClock, random: systemRandom, log: logger('app', silentSink) };
  const deployments = new Informer(deps, DEPLOYMENTS, { namespace: 'default' });
  const pods = new Informer(deps, PODS, { namespace: 'default' });
  deployments.start();
  pods.start();
  await Promise.all([deployments.synced, pods.synced]);
  const until = (check: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (check()) resolve();
      };
      deployments.onChange(look);
      pods.onChange(look);
      look();
    });
  const available = (name: string, count: number): boolean =>
    (deployments.get(`default/${name}`)?.status?.availableReplicas ?? 0) >= count;
  const timed = async (work: () => Promise<void>): Promise<number> => {
    const before = performance.now();
    await work();
    return performance.now() - before;
  };
  const figures: Figures = { deployMs: [], scaleMs: [], replaceMs: [] };
  const remove = async (name: string): Promise<void> => {
    await client.delete(DEPLOYMENTS, `default/${name}`, { propagationPolicy: 'Background' });
    await until(() => pods.size === 0);
  };
  for (let round = 0; round < rounds; round++) {
    const name = `web${round}`;
    figures.deployMs.push(
      await timed(async () => {
        await client.create(DEPLOYMENTS, deployment(name, 3));
        await until(() => available(name, 3));
      }),
    );
    await sleep(500);
    const [victim] = pods.list();
    if (victim) figures.replaceMs.push(await timed(() => replace(client, victim, pods, until)));
    await remove(name);
  }
  await client.create(DEPLOYMENTS, deployment('many', 1));
  await until(() => available('many', 1));
  figures.scaleMs.push(
    await timed(async () => {
      await client.patch(DEPLOYMENTS, 'default/many', { spec: { replicas: MANY } }, { type: 'merge' });
      await until(() => pods.list().filter(isReady).length >= MANY);
    }),
  );
  await remove('many');
  process.stdout.write(JSON.stringify(figures));
  process.exit(0);
}

async function replace(
  client: KubeClient,
  victim: Live<Pod>,
  pods: Informer<Pod>,
  until: (check: () => boolean) => Promise<void>,
): Promise<void> {
  const before = new Set(pods.list().map((pod) => pod.metadata.uid));
  await client.delete(PODS, keyOf(victim));
  await until(() => pods.list().some((pod) => !before.has(pod.metadata.uid) && isReady(pod)));
}

function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') ?? false;
}

function deployment(name: string, replicas: number): Deployment {
  const labels = { app: name };
  const command = ['sh', '-c', 'trap exit TERM; httpd -f -p 8080 & wait'];
  return {
    metadata: { namespace: 'default', name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          containers: [{ name: 'c', image: 'busybox', imagePullPolicy: 'IfNotPresent', command }],
          terminationGracePeriodSeconds: 1,
        },
      },
    },
  };
}

function clientOf(path: string): KubeClient {
  const config = JSON.parse(readFileSync(path, 'utf8')) as {
    clusters: [{ cluster: Record<string, string> }];
    users: [{ user: Record<string, string> }];
  };
  const decode = (text: string | undefined): string => Buffer.from(text ?? '', 'base64').toString('utf8');
  const { cluster } = config.clusters[0];
  const { user } = config.users[0];
  const transport = new HttpTransport({
    server: cluster['server'] ?? '',
    ca: decode(cluster['certificate-authority-data']),
    cert: decode(user['client-certificate-data']),
    key: decode(user['client-key-data']),
  });
  return new KubeClient(transport, { fieldManager: 'bench' });
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
