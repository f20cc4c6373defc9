import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { HttpTransport } from '#cluster/client/http.ts';
import { Informer } from '#cluster/client/informer.ts';
import {
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  type KubeObject,
  keyOf,
  type Live,
  PODS,
  REPLICA_SETS,
  type Resource,
  SERVICES,
} from '#cluster/client/resources.ts';
import type { Deployment, Pod, Service } from '#spec/kubernetes/types.gen.ts';
import { Machine } from '../test/cluster/machine.ts';

// `cluster.mjs ROUNDS` makes machines; `cluster.mjs inside RUN_ROOT ROUNDS` measures as a client on one.

interface Figures {
  deployMs: number[];
  scaleMs: number[];
  replaceMs: number[];
  /** The daemon's own process, until it has come to rest again. */
  cpuMsPerPod: number;
  /** When the last of a Deployment's three was seen in each state, since it was sent. */
  trace: Record<string, number[]>;
}
interface Rest {
  pssMiB: number;
  cpuPercent: number;
}

/** At rest: what a start leaves behind (the heaps of daemon and edge are collected) is done by then. */
const REST_AFTER_MS = 60_000;
const REST_SECONDS = 30;
const MANY = 50;
const PODS_OF_ONE = 3;
/** What is told of late (events) is told by then. */
const REST_MS = 1_000;
const MS_PER_TICK = 10;
const GOALS = {
  readyMs: 1_000,
  deployMs: 150,
  scaleMs: 3_000,
  replaceMs: 200,
  cpuMsPerPod: 25,
  pssMiB: 150,
  cpuPercent: 0.5,
};

const { positionals, values: wish } = parseArgs({
  allowPositionals: true,
  options: { trace: { type: 'boolean', default: false }, profile: { type: 'string' } },
});
const [first = '3', runRoot = '', count = '3'] = positionals;
if (first === 'inside') await inside(runRoot, Number(count));
else await outside(Number(first));

async function outside(rounds: number): Promise<void> {
  const ready: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const machine = await Machine.open(`b${i}`, [], i === rounds - 1 ? profiling() : {}, (ms) => ready.push(ms));
    if (i < rounds - 1) {
      await machine.close();
      continue;
    }
    try {
      // The image is made here: what a registry and a disk take is no part of this.
      await machine.run('docker', ['pull', 'busybox']);
      const rest = await atRest(machine);
      const answer = await machine.run(process.execPath, [
        process.argv[1] ?? '',
        'inside',
        machine.runRoot,
        String(rounds),
      ]);
      if (answer.code !== 0) throw new Error(answer.text);
      if (wish.profile !== undefined) await machine.stop();
      tell(ready, JSON.parse(answer.text) as Figures, rest);
    } finally {
      await machine.close();
    }
  }
}

/** Node writes the profile when the daemon ends. */
function profiling(): Record<string, string> {
  if (wish.profile === undefined) return {};
  const dir = mkdtempSync(join(tmpdir(), 'estiba-bench-node-'));
  const path = join(dir, 'node');
  writeFileSync(path, `#!/bin/sh\nexec ${process.execPath} --cpu-prof --cpu-prof-dir=${resolve(wish.profile)} "$@"\n`, {
    mode: 0o755,
  });
  process.once('exit', () => rmSync(dir, { recursive: true }));
  return { ESTIBA_NODE: path };
}

function tell(readyMs: number[], figures: Figures, rest: Rest): void {
  const rows: [string, number, number, string][] = [
    ['empty machine → node Ready', median(readyMs), GOALS.readyMs, 'ms'],
    ['Deployment of 3: apply → Available', median(figures.deployMs), GOALS.deployMs, 'ms'],
    ['scale 1 → 50: all ready', median(figures.scaleMs), GOALS.scaleMs, 'ms'],
    ['the same, CPU of the daemon a pod', figures.cpuMsPerPod, GOALS.cpuMsPerPod, 'ms'],
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
  if (!wish.trace) return;
  for (const [what, times] of Object.entries(figures.trace))
    process.stdout.write(`  ${what.padEnd(38)} ${median(times).toFixed(1).padStart(8)} ms\n`);
}

/** Every process of the machine but its holder and ourselves: daemon, edge, spawner, estiba-net. */
async function atRest(machine: Machine): Promise<Rest> {
  await sleep(REST_AFTER_MS);
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

async function inside(runRoot: string, rounds: number): Promise<void> {
  const client = clientOf(join(runRoot, 'kubeconfig'));
  const daemon = read(join(runRoot, 'daemon.lock')).split(' ')[0] ?? '';
  const deps = { client, clock: systemClock, random: systemRandom, log: logger('app', silentSink) };
  const informer = <T extends KubeObject>(resource: Resource<T>): Informer<T> => {
    const made = new Informer(deps, resource, { namespace: 'default' });
    made.start();
    return made;
  };
  const [deployments, sets, pods, slices] = [
    informer(DEPLOYMENTS),
    informer(REPLICA_SETS),
    informer(PODS),
    informer(ENDPOINT_SLICES),
  ];
  const all = [deployments, sets, pods, slices];
  await Promise.all(all.map(({ synced }) => synced));
  const listeners = all.map((i) => i.onChange.bind(i));
  const until = (check: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (check()) resolve();
      };
      for (const onLook of listeners) onLook(look);
      look();
    });
  const available = (name: string, count: number): boolean =>
    (deployments.get(`default/${name}`)?.status?.availableReplicas ?? 0) >= count;
  const of = (name: string): Live<Pod>[] => pods.list().filter((pod) => pod.metadata.labels?.['app'] === name);
  const figures: Figures = { deployMs: [], scaleMs: [], replaceMs: [], cpuMsPerPod: 0, trace: {} };
  const remove = async (name: string): Promise<void> => {
    await client.delete(DEPLOYMENTS, `default/${name}`, { propagationPolicy: 'Background' });
    await until(() => pods.size === 0);
  };
  for (let round = 0; round < rounds; round++) {
    const name = `web${round}`;
    const { spec } = await client.create(SERVICES, service(name));
    const startMs = performance.now();
    const seen = async (what: string, check: () => boolean): Promise<void> => {
      await until(check);
      figures.trace[what] = [...(figures.trace[what] ?? []), performance.now() - startMs];
    };
    const endpoints = (): number =>
      slices
        .list()
        .filter((slice) => slice.metadata.labels?.['kubernetes.io/service-name'] === name)
        .flatMap((slice) => slice.endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready).length;
    const steps = [
      seen('ReplicaSet', () => sets.list().some((set) => set.metadata.labels?.['app'] === name)),
      seen('first pod', () => of(name).length > 0),
      seen('all pods', () => of(name).length === PODS_OF_ONE),
      seen('first bound', () => of(name).some((pod) => pod.spec.nodeName !== undefined)),
      seen('all bound', () => of(name).filter((pod) => pod.spec.nodeName !== undefined).length === PODS_OF_ONE),
      seen('first ready', () => of(name).some(isReady)),
      seen('all ready', () => of(name).filter(isReady).length === PODS_OF_ONE),
      seen('ReplicaSet says so', () => sets.list().some((s) => s.status?.availableReplicas === PODS_OF_ONE)),
      seen('Deployment Available', () => available(name, PODS_OF_ONE)),
      seen('endpoints', () => endpoints() === PODS_OF_ONE),
    ];
    await client.create(DEPLOYMENTS, deployment(name, PODS_OF_ONE));
    await seen('answered', () => true);
    await Promise.all(steps);
    await answers(spec?.clusterIP ?? '');
    await seen('its Service answers', () => true);
    figures.deployMs.push(performance.now() - startMs);
    await sleep(REST_MS);
    const [victim] = pods.list();
    if (victim) figures.replaceMs.push(await timed(() => replace(client, victim, pods, until)));
    await remove(name);
  }
  await client.create(DEPLOYMENTS, deployment('many', 1));
  await until(() => available('many', 1));
  await sleep(REST_MS);
  const cpuBefore = cpuTicks(daemon);
  figures.scaleMs.push(
    await timed(async () => {
      await client.patch(DEPLOYMENTS, 'default/many', { spec: { replicas: MANY } }, { type: 'merge' });
      await until(() => pods.list().filter(isReady).length >= MANY);
    }),
  );
  await sleep(REST_MS);
  figures.cpuMsPerPod = ((cpuTicks(daemon) - cpuBefore) * MS_PER_TICK) / (MANY - 1);
  await remove('many');
  process.stdout.write(JSON.stringify(figures));
  process.exit(0);
}

async function timed(work: () => Promise<void>): Promise<number> {
  const before = performance.now();
  await work();
  return performance.now() - before;
}

/** The kernel leads there, and somebody accepts. */
async function answers(ip: string): Promise<void> {
  for (;;) {
    const socket = connect({ host: ip, port: 80 });
    const ok = await new Promise<boolean>((done) => {
      socket.once('connect', () => done(true)).once('error', () => done(false));
    });
    socket.destroy();
    if (ok) return;
    await sleep(1);
  }
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

function service(name: string): Service {
  return {
    metadata: { namespace: 'default', name },
    spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }] },
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
