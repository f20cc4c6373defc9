import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { kubectl120, NEWEST, Room } from './kubectl/room.ts';
import { FILES, type Step, TOUR } from './kubectl/tour.ts';

const VERSIONS: [name: string, isOld: boolean, binary: () => Promise<string>][] = [
  ['the newest kubectl at hand', false, async () => NEWEST],
  ['kubectl 1.20', true, kubectl120],
];

for (const [name, isOld, binary] of VERSIONS) {
  describe(`a tour with ${name}`, () => {
    let room: Room;
    beforeAll(async () => {
      room = await Room.open(await binary());
      for (const [file, content] of Object.entries(FILES)) room.file(file, content);
    });
    afterAll(() => room.close());

    for (const [i, step] of TOUR.entries()) {
      it(`${i + 1}. kubectl ${step.run}`, async () => {
        const wanted: Pick<Step, 'shows' | 'fails'> = (isOld && step.old) || step;
        const { code, text } = await room.kubectl(step.run, step);
        expect({ failed: code !== 0, text }).toEqual({
          failed: wanted.fails !== undefined,
          text: expect.stringMatching(wanted.fails ?? wanted.shows ?? /.*/),
        });
      });
    }
  });
}

describe('the shared corpus of manifests', () => {
  const corpus = join(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/corpus/manifests');
  if (!existsSync(corpus)) throw new Error(`ESTIBA_SHARED must name the shared folder; there is no ${corpus}`);

  // What a manifest has that is not served: kinds of a later round, and one API version that Kubernetes has removed.
  const REFUSED: Record<string, readonly string[]> = {
    'calico-manifests-csi-driver.yaml': ['storage.k8s.io/v1 CSIDriver'],
    'ingress-nginx-deploy-static-provider-cloud-deploy.yaml': [
      'admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration',
    ],
    'kubernetes-archived-cockroachdb-cockroachdb-statefulset.yaml': ['policy/v1beta1 PodDisruptionBudget'],
    'metallb-config-manifests-metallb-native.yaml': [
      'apiextensions.k8s.io/v1 CustomResourceDefinition',
      'admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration',
    ],
    'metrics-server-manifests-base-apiservice.yaml': ['apiregistration.k8s.io/v1 APIService'],
  };

  for (const file of readdirSync(corpus).filter((f) => f.endsWith('.yaml'))) {
    const refused = REFUSED[file] ?? [];
    it(`${file} ${refused.length === 0 ? 'applies' : `applies but for ${refused.join(', ')}`}`, async () => {
      const room = await Room.open(NEWEST);
      try {
        const objects = parseAllDocuments(readFileSync(join(corpus, file), 'utf8'))
          .map((d) => d.toJS() as Manifest | null)
          .filter((o) => o !== null);
        for (const namespace of missingNamespaces(objects))
          expect(await room.kubectl(`create namespace ${namespace}`)).toMatchObject({ code: 0 });
        for (const [i, object] of objects.entries()) {
          const { code, text } = await room.kubectl(
            `apply --validate=${isRefused(object, refused) ? 'false' : 'true'} -f ${room.file(`${i}.json`, JSON.stringify(object))}`,
          );
          if (isRefused(object, refused))
            expect({ code, text }).toEqual({
              code: 1,
              text: expect.stringContaining(`no matches for kind "${object.kind}"`),
            });
          else expect({ code, text }).toEqual({ code: 0, text: expect.stringMatching(/created|configured/) });
        }
      } finally {
        await room.close();
      }
    });
  }
});

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
}

function isRefused(object: Manifest, refused: readonly string[]): boolean {
  return refused.includes(`${object.apiVersion} ${object.kind}`);
}

function missingNamespaces(objects: readonly Manifest[]): Set<string> {
  const made = new Set([
    'default',
    'kube-system',
    ...objects.filter((o) => o.kind === 'Namespace').map((o) => o.metadata.name),
  ]);
  return new Set(objects.map((o) => o.metadata.namespace).filter((n): n is string => n !== undefined && !made.has(n)));
}
