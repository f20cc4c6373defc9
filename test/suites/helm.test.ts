import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Pod } from '#spec/kubernetes/types.gen.ts';
import { type Answer, Machine, waitFor } from '../cluster/machine.ts';
import { standInArchive } from './stand-in/images.ts';

const HELM = process.env['HELM'] ?? 'helm';
const PATIENCE_MS = 60_000;

interface Release {
  name: string;
  revision: string;
  status: string;
  chart: string;
}

/** The chart that `helm create` makes, from its first install to nothing left, as a person would go about it. */
describe('helm 3 with a chart of its own making', () => {
  let machine: Machine;
  const dir = mkdtempSync(join(tmpdir(), 'estiba-helm-'));
  const helm = (line: string): Promise<Answer> => machine.run('sh', ['-c', `cd ${dir} && "${HELM}" ${line}`]);
  const good = async (line: string): Promise<string> => {
    const { code, text } = await helm(line);
    expect({ line, code, text }).toMatchObject({ code: 0 });
    return text;
  };
  const pods = async (): Promise<Pod[]> =>
    (await machine.get<{ items: Pod[] }>('pods -l app.kubernetes.io/instance=shop')).items.filter(
      (pod) => pod.metadata.ownerReferences !== undefined, // the chart's own test has none
    );
  const images = async (): Promise<Set<string | undefined>> =>
    new Set((await pods()).filter((p) => !p.metadata.deletionTimestamp).map((p) => p.spec.containers[0]?.image));

  beforeAll(async () => {
    try {
      execFileSync(HELM, ['version'], { stdio: 'ignore' });
    } catch (error) {
      throw new Error(`no helm 3 at "${HELM}": HELM must name one (tools/peers.sh builds it where Go is)`, {
        cause: error,
      });
    }
    const home = (name: string): string => join(dir, 'home', name);
    machine = await Machine.open('helm', [], {
      HELM_CACHE_HOME: home('cache'),
      HELM_CONFIG_HOME: home('config'),
      HELM_DATA_HOME: home('data'),
    });
    await good('create web');
    const version = /^appVersion: "(.*)"$/m.exec(readFileSync(join(dir, 'web/Chart.yaml'), 'utf8'))?.[1];
    const serving = [`nginx:${version}`, 'nginx:next'].map((image) => ({ image, ports: [80], programs: [], ends: [] }));
    const archive = standInArchive(join(dir, 'images'), [
      ...serving,
      { image: 'busybox', ports: [], programs: [], ends: [] },
    ]);
    expect(await machine.run('docker', ['load', '-q', '-i', archive])).toMatchObject({ code: 0 });
  });
  afterAll(async () => {
    await machine?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it('the chart is sound, and is installed when its pods are ready', async () => {
    expect(await good('lint web')).toContain('1 chart(s) linted, 0 chart(s) failed');
    const said = await good('install shop ./web --wait --timeout 60s');
    expect(said).toMatch(/STATUS: deployed\nREVISION: 1/);
    expect((await pods()).every((p) => p.status?.containerStatuses?.[0]?.ready)).toBe(true);
    expect((await helm('install shop ./web')).text).toContain('cannot re-use a name that is still in use');
  });

  it('list, status and get show what was installed', async () => {
    const [release] = JSON.parse(await good('list -o json')) as Release[];
    expect(release).toMatchObject({ name: 'shop', revision: '1', status: 'deployed', chart: 'web-0.1.0' });
    expect(await good('status shop --show-resources')).toMatch(/==> v1\/Deployment\n[\s\S]*shop-web +1\/1/);
    expect(await good('get manifest shop')).toContain('kind: Deployment');
    expect(await good('get values shop --all')).toContain('replicaCount: 1');
    expect(await good('get notes shop')).toContain('Get the application URL');
    expect(await good('get hooks shop')).toContain('helm.sh/hook');
  });

  it('the chart’s own test reaches the application by its name', async () => {
    expect(await good('test shop --timeout 60s')).toMatch(/Phase: +Succeeded/);
    expect(await good('test shop --logs --timeout 60s')).toContain('POD LOGS: shop-web-test-connection');
  });

  it('an upgrade that waits replaces the pods; one that cannot get ready is taken back by --atomic', async () => {
    await good('upgrade shop ./web --set image.tag=next --set replicaCount=2 --wait --timeout 60s');
    await waitFor('the new pods alone', PATIENCE_MS, async () => [...(await images())].join() === 'nginx:next');
    expect((await pods()).filter((p) => !p.metadata.deletionTimestamp)).toHaveLength(2);
    const bad = await helm(
      'upgrade shop ./web --reuse-values --set image.tag=none --set image.pullPolicy=Never --atomic --timeout 5s',
    );
    expect(bad.code).not.toBe(0);
    expect(bad.text).toMatch(/rolled back due to atomic being set/);
    await waitFor('the pods of before', PATIENCE_MS, async () => (await images()).size === 1);
    expect([...(await images())]).toEqual(['nginx:next']);
  });

  it('history names each revision, and rollback brings the first back', async () => {
    await good('rollback shop 1 --wait --timeout 60s');
    const history = JSON.parse(await good('history shop -o json')) as { status: string; description: string }[];
    expect(history.map((h) => h.status)).toEqual(['superseded', 'superseded', 'failed', 'superseded', 'deployed']);
    expect(history.at(-1)?.description).toBe('Rollback to 1');
    await waitFor('the first image', PATIENCE_MS, async () => ![...(await images())].includes('nginx:next'));
  });

  it('Ingress and autoscaler come and go with their values', async () => {
    await good('upgrade shop ./web --set ingress.enabled=true,autoscaling.enabled=true --wait --timeout 60s');
    expect(await machine.kubectl('get ingress,hpa -o name')).toBe(
      'ingress.networking.k8s.io/shop-web\nhorizontalpodautoscaler.autoscaling/shop-web\n',
    );
    await good('upgrade shop ./web --reset-values --wait --timeout 60s');
    expect(await machine.kubectl('get ingress,hpa -o name')).toBe('');
  });

  it('uninstall --wait leaves nothing', async () => {
    expect(await good('uninstall shop --wait --timeout 60s')).toContain('release "shop" uninstalled');
    expect(await machine.kubectl('get deploy,svc,sa -l app.kubernetes.io/instance=shop -o name')).toBe('');
    // Pods follow their owner in the background; the chart's test is a hook, which helm leaves.
    await machine.kubectl('delete pod shop-web-test-connection');
    await waitFor('its pods to go', PATIENCE_MS, async () => (await pods()).length === 0);
    expect(await machine.kubectl('get secrets -l owner=helm -o name')).toBe('');
    expect(JSON.parse(await good('list -a -o json'))).toEqual([]);
  });

  it('what helm template prints is what kubectl applies', async () => {
    writeFileSync(join(dir, 'values.yaml'), 'replicaCount: 2\nresources: { limits: { memory: 64Mi } }\n');
    const said = await good('template shop ./web -f values.yaml --skip-tests | kubectl apply -f -');
    expect(said).toMatch(/deployment\.apps\/shop-web created/);
    await machine.kubectl('rollout status deployment/shop-web --timeout=60s');
    expect(await good('template shop ./web -f values.yaml --skip-tests | kubectl diff -f -')).toBe('');
    await good('template shop ./web -f values.yaml --skip-tests | kubectl delete --wait -f -');
  });
});
