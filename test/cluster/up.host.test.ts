import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Pod } from '#spec/kubernetes/types.gen.ts';
import { type Answer, Machine, waitFor } from './machine.ts';

// `estiba up` on a machine of its own: Compose, a Dockerfile and a kustomization, from file to answering port and back to nothing.
const ESTIBA = process.env['ESTIBA'] ?? fileURLToPath(new URL('../../bin/estiba', import.meta.url));
let machine: Machine;
let folder: string;

beforeAll(async () => {
  machine = await Machine.open('up', ['--kube', '127.0.0.1:6443']);
  folder = join(machine.dir, 'app');
  mkdirSync(join(folder, 'web'), { recursive: true });
  writeFileSync(join(folder, 'web/Dockerfile'), DOCKERFILE);
});
afterAll(async () => {
  await machine.close();
});

const DOCKERFILE =
  'FROM busybox\nRUN mkdir /www && echo first > /www/index.html\nCMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n';
const compose = (extra = '', image = 'busybox'): string => `name: shop
services:
  web:
    build: ./web
    ports: ["18080:80"]
    depends_on: { db: { condition: service_healthy } }
  db:
    image: ${image}
    command: [sh, -c, "date >> /data/starts; sleep 1; touch /tmp/ok; exec sleep 1000"]
    volumes: ["data:/data"]
    stop_grace_period: 1s
    secrets: [{ source: key, mode: 0400 }]
    healthcheck: { test: "test -e /tmp/ok && test -e /run/secrets/key", interval: 1s, start_period: 20s, start_interval: 1s }
${extra}
volumes: { data: }
secrets: { key: { content: "x" } }
`;

function estiba(...words: string[]): Promise<Answer> {
  return machine.run(ESTIBA, ['--run-root', machine.runRoot, ...words]);
}

async function up(text: string, ...words: string[]): Promise<Answer> {
  writeFileSync(join(folder, 'compose.yaml'), text);
  return estiba('up', folder, '--timeout', '40s', ...words);
}

const fetch = async (url: string): Promise<string> => (await machine.run('curl', ['-sm5', url])).text;

describe('estiba up with a Compose file', () => {
  it('builds, applies, waits, and the port answers at every address of the node', async () => {
    const answer = await up(compose());
    expect(answer).toMatchObject({ code: 0, text: expect.stringContaining('shop is up: http://127.0.0.1:18080') });
    await waitFor('the port', 5_000, async () => (await fetch('http://127.0.0.1:18080')) === 'first\n');
    const service = await machine.get<{ status: { loadBalancer: { ingress: { ip: string }[] } } }>(
      'svc web-published -n shop',
    );
    const address = service.status.loadBalancer.ingress[0]?.ip ?? '';
    expect(await fetch(`http://${address}:18080`)).toBe('first\n');
  });

  it('held web back until db was healthy', async () => {
    interface Pods {
      items: {
        metadata: { labels: Record<string, string> };
        status: { conditions: { type: string; lastTransitionTime: string }[]; startTime: string };
      }[];
    }
    const { items } = await machine.get<Pods>('pods -n shop');
    const of = (service: string) => items.find((p) => p.metadata.labels['estiba.dev/service'] === service)?.status;
    const ready = of('db')?.conditions.find((c) => c.type === 'Ready')?.lastTransitionTime ?? '';
    expect(Date.parse(of('web')?.startTime ?? '')).toBeGreaterThanOrEqual(Date.parse(ready));
  });

  it('says of a second time that nothing would change', async () => {
    const plan = await estiba('up', folder, '--plan');
    expect(plan.text).toContain('0 to create, ');
    const again = await estiba('up', folder);
    expect(again).toMatchObject({ code: 0 });
    expect((await estiba('app', 'ls')).text).toMatch(/shop +shop +2\/2/);
    expect((await estiba('app', 'open', 'shop')).text).toBe('http://127.0.0.1:18080\n');
  });

  it('shows a change before it makes it, rolls what changed, and removes what is gone', async () => {
    const more = '  extra: { image: busybox, command: [sleep, "1000"], stop_grace_period: 1s }';
    writeFileSync(join(folder, 'compose.yaml'), compose(more));
    const plan = await estiba('up', folder, '--plan');
    expect(plan).toMatchObject({ code: 2, text: expect.stringContaining('+ Deployment shop/extra') });
    expect(plan.text).not.toContain('eA=='); // the secret's content
    expect(await up(compose(more))).toMatchObject({ code: 0 });
    writeFileSync(join(folder, 'web/Dockerfile'), DOCKERFILE.replace('first', 'second'));
    const answer = await up(compose());
    expect(answer).toMatchObject({ code: 0, text: expect.stringContaining('Deployment shop/extra removed') });
    await waitFor('the new page', 5_000, async () => (await fetch('http://127.0.0.1:18080')) === 'second\n');
    expect((await machine.get<{ items: object[] }>('deployments -n shop')).items).toHaveLength(1);
  });

  it('says why it does not become ready, and brings back what ran', async () => {
    writeFileSync(join(folder, 'compose.yaml'), compose('', 'nowhere.invalid/db'));
    const answer = await estiba('up', folder, '--timeout', '10s', '--undo-on-failure');
    expect(answer).toMatchObject({ code: 1, text: expect.stringContaining('shop is as it was before') });
    expect(answer.text).toContain('cannot get its image nowhere.invalid/db');
    // At once: undo has waited for it.
    const { items } = await machine.get<{ items: Pod[] }>('pods -n shop');
    const containers = items.flatMap((pod) => pod.spec.containers ?? []);
    expect(containers.filter(({ image }) => image === 'nowhere.invalid/db')).toEqual([]);
    expect(items.find((pod) => pod.metadata.name === 'db-0')?.status?.phase).toBe('Running');
  });

  it('explains objects of the cluster', async () => {
    expect((await estiba('why', 'svc/web', '-n', 'shop')).text).toMatch(/\[SVC_(FINE|POLICY)\]/);
    expect((await estiba('why', 'pvc/data', '-n', 'shop')).text).toContain('[PVC_FINE]');
    expect((await estiba('why', 'deployment/web', '-n', 'shop')).text).toContain('[WORK_FINE]');
    expect(await estiba('why', 'pod/nobody', '-n', 'shop')).toMatchObject({ code: 1 });
  });

  it('goes down, keeps its data, and finds it again', async () => {
    expect(await estiba('down', folder)).toMatchObject({ code: 0, text: expect.stringContaining('shop is down') });
    expect((await machine.get<{ items: object[] }>('pods -n shop')).items).toEqual([]);
    expect(await up(compose())).toMatchObject({ code: 0 });
    const starts = await machine.kubectl('-n shop exec db-0 -- cat /data/starts');
    expect(starts.trim().split('\n').length).toBeGreaterThanOrEqual(2);
    expect(await estiba('down', 'shop', '--volumes')).toMatchObject({ code: 0 });
    await waitFor('the namespace to go', 20_000, async () => !(await machine.kubectl('get ns')).includes('shop'));
    expect(await estiba('down', 'shop')).toMatchObject({
      code: 1,
      text: expect.stringContaining('there is no app shop'),
    });
  });

  it('refuses by file and line what Kubernetes does not have', async () => {
    const answer = await up('services:\n  a:\n    image: busybox\n    devices: [/dev/kvm]\n');
    expect(answer).toMatchObject({
      code: 1,
      text: expect.stringContaining('compose.yaml:4: services.a.devices: has no counterpart'),
    });
  });
});

describe('estiba up with other inputs', () => {
  it('a Dockerfile alone', async () => {
    const alone = join(machine.dir, 'alone');
    mkdirSync(alone);
    writeFileSync(
      join(alone, 'Dockerfile'),
      `${DOCKERFILE}EXPOSE 80\n`.replace('-p", "80', '-p", "18090').replace('EXPOSE 80', 'EXPOSE 18090'),
    );
    expect(await estiba('up', alone, '--timeout', '40s')).toMatchObject({ code: 0 });
    await waitFor('the port', 5_000, async () => (await fetch('http://127.0.0.1:18090')) === 'first\n');
    expect(await estiba('down', 'alone')).toMatchObject({ code: 0 });
  });

  it('a kustomization, whose configuration rolls its pods', async () => {
    const k = join(machine.dir, 'kustom');
    mkdirSync(k);
    const deployment = `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "1000"], envFrom: [{configMapRef: {name: settings}}]}]\n`;
    const kustomization = (value: string): string =>
      `resources: [web.yaml]\nconfigMapGenerator: [{name: settings, literals: [COLOUR=${value}]}]\n`;
    writeFileSync(join(k, 'web.yaml'), deployment);
    for (const colour of ['blue', 'red']) {
      writeFileSync(join(k, 'kustomization.yaml'), kustomization(colour));
      expect(await estiba('up', k, '--timeout', '40s')).toMatchObject({ code: 0 });
      // Of the old pod, which has its grace to end, kubectl may still ask.
      await waitFor('its colour', 10_000, async () => {
        const answer = await machine.run('kubectl', ['exec', 'deploy/web', '--', 'sh', '-c', 'echo $COLOUR']);
        return answer.text === `${colour}\n`;
      });
    }
    // The old one went with the name that nothing has any more.
    expect((await machine.kubectl('get configmaps -l estiba.dev/app=kustom -o name')).trim().split('\n')).toHaveLength(
      1,
    );
    expect(await estiba('down', k)).toMatchObject({ code: 0 });
  });

  it('another cluster, by a kubeconfig: nothing is gated, what is waited for comes first', async () => {
    const other = join(machine.dir, 'other');
    mkdirSync(other);
    const text =
      'services:\n  late: {image: busybox, command: [sleep, "1000"], stop_grace_period: 1s, depends_on: [early]}\n  early: {image: busybox, command: [sleep, "1000"], stop_grace_period: 1s}\n';
    writeFileSync(join(other, 'compose.yaml'), text);
    const target = ['--kubeconfig', join(machine.runRoot, 'kubeconfig')];
    const answer = await estiba('up', other, '--timeout', '40s', ...target);
    expect(answer).toMatchObject({ code: 0 });
    const order = ['Deployment other/early created', 'Deployment other/early: ready', 'Deployment other/late created'];
    expect(order.map((line) => answer.text.indexOf(line))).toEqual(
      [...order.map((line) => answer.text.indexOf(line))].sort((a, b) => a - b),
    );
    expect(answer.text).toContain(order[2]);
    expect(await machine.kubectl('-n other get deploy late -o yaml')).not.toContain('schedulingGates');
    expect(await estiba('down', 'other', ...target)).toMatchObject({ code: 0 });
  });
});
