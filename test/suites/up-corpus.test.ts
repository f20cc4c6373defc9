import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { isCode } from '#base/errors.ts';
import { loadCompose } from '#spec/compose/load.ts';
import { planCompose } from '#up/compose/plan.ts';
import { loadKustomization } from '#up/kustomize/load.ts';
import { planManifests } from '#up/manifests/plan.ts';
import { readManifests } from '#up/manifests/read.ts';
import { optionsFor } from './compose-options.ts';

const SHARED = process.env['ESTIBA_SHARED'] ?? '../shared';
const COMPOSE = resolve(SHARED, 'specs/corpus/compose');
const MANIFESTS = resolve(SHARED, 'specs/corpus/manifests');

/** Files that ask for what Kubernetes does not have, and what `estiba up` says about each. */
const REFUSED: Readonly<Record<string, string>> = {
  'awesome-compose-pihole-cloudflared-DoH-compose.yaml':
    'services.cloudflared.networks: dns-net: pods get their addresses',
  'compose-pkg-e2e-testdata-TestLoggingDriver-compose.yaml': 'services.app.logging.options: logs of pods are kept',
  'compose-pkg-e2e-testdata-TestSecretFromEnv-compose.yaml':
    'services.foo.secrets\\[0\\].uid: Kubernetes gives such files to root',
  'dockprom-docker-compose.yaml': 'services.cadvisor.devices: has no counterpart',
  'jaeger-docker-compose-tail-sampling-docker-compose.yaml':
    'services.otel_collector: "otel_collector": in Kubernetes a name',
  'jaeger-examples-grafana-integration-docker-compose.yaml': 'services.grafana.logging.options: logs of pods are kept',
  'microservices-demo-deploy-docker-compose-docker-compose.yaml':
    'services.edge-router.tmpfs: "noexec" has no counterpart',
  'skywalking-docker-docker-compose.yaml': 'services.elasticsearch.ulimits: has no counterpart',
  // Laid upon another file, which is not part of the corpus.
  'zipkin-docker-examples-docker-compose-prometheus.yaml': 'services.prometheus.depends_on: there is no service zipkin',
};

describe('estiba up on Compose files of real applications', () => {
  const files = existsSync(COMPOSE) ? readdirSync(COMPOSE).filter((f) => f.endsWith('.yaml')) : [];

  it('are there', () => {
    expect(files.length, `ESTIBA_SHARED must name the shared folder; ${COMPOSE} has none`).toBeGreaterThanOrEqual(34);
  });

  it.each(files)('%s', async (file) => {
    const path = join(COMPOSE, file);
    const text = readFileSync(path, 'utf8');
    const outcome = await plan(path, text);
    if (REFUSED[file] !== undefined) expect(outcome).toMatch(new RegExp(`^${file}:\\d+: ${REFUSED[file]}`));
    else expect(outcome).toBe('planned');
  });
});

async function plan(path: string, text: string): Promise<string> {
  try {
    const options = optionsFor(path, text);
    const project = await loadCompose(options);
    const contents = [...Object.values(project.secrets), ...Object.values(project.configs)].flatMap(
      ({ file }) => file ?? [],
    );
    const { objects } = planCompose({
      project,
      namespace: 'corpus',
      paths: {},
      files: Object.fromEntries(contents.map((file) => [file, Buffer.from('content')])),
      environment: { SECRET: 'told', ...options.environment },
      folder: COMPOSE,
      cluster: 'estiba',
    });
    expect(objects.length).toBeGreaterThan(1);
    return 'planned';
  } catch (error) {
    if (!isCode(error, 'COMPOSE_INVALID')) throw error;
    return error.message.replace(`${COMPOSE}/`, '');
  }
}

describe('estiba up on manifests of real applications', () => {
  const files = existsSync(MANIFESTS) ? readdirSync(MANIFESTS).filter((f) => f.endsWith('.yaml')) : [];

  it.each(files)('%s', (file) => {
    const objects = readManifests(readFileSync(join(MANIFESTS, file), 'utf8'), file);
    expect(planManifests({ app: 'corpus', objects }).objects.length).toBe(objects.length);
  });
});

describe('kustomizations', () => {
  it('are what kubectl kustomize makes of them', async () => {
    const folder = resolve('src/up/kustomize/case/overlay/overlay');
    const theirs = execFileSync('kubectl', ['kustomize', folder], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const byName = (objects: unknown[]): Record<string, unknown> =>
      Object.fromEntries(
        (objects as { kind: string; metadata: { name: string } }[]).map((o) => [`${o.kind} ${o.metadata.name}`, o]),
      );
    expect(byName(await loadKustomization(folder))).toEqual(byName(parseAllDocuments(theirs).map((d) => d.toJS())));
  });
});
