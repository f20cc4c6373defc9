import { describe, expect, it } from 'vitest';
import { START_GATE } from '#spec/estiba/cluster.ts';
import type { Job, Pod } from '#spec/kubernetes/types.gen.ts';
import { missingFor } from './start-gate.ts';

const labels = (service: string): Record<string, string> => ({
  'estiba.dev/app': 'shop',
  'estiba.dev/service': service,
});
const gated = (annotation: string): Pod => ({
  metadata: { name: 'web', labels: labels('web'), annotations: { [START_GATE]: annotation } },
  spec: { containers: [] },
});
const pod = (service: string, state: object, ready = 'False'): Pod => ({
  metadata: { name: service, labels: labels(service) },
  spec: { containers: [] },
  status: {
    conditions: [{ type: 'Ready', status: ready }],
    containerStatuses: [{ name: 'main', image: '', imageID: '', ready: ready === 'True', restartCount: 0, state }],
  },
});
const job = (status: string): Job => ({
  metadata: { name: 'db', labels: labels('db') },
  spec: { template: {} },
  status: { conditions: [{ type: 'Complete', status }] },
});

describe('the start gate', () => {
  it.each([
    ['service_started', [], [], 'db has not started'],
    ['service_started', [pod('db', { waiting: {} })], [], 'db has not started'],
    ['service_started', [pod('db', { running: {} })], [], ''],
    ['service_started', [pod('db', { running: {} }), pod('db', { waiting: {} })], [], 'db has not started'],
    ['service_started', [pod('other', { running: {} })], [], 'db has not started'],
    ['service_healthy', [pod('db', { running: {} })], [], 'db is not ready'],
    ['service_healthy', [pod('db', { running: {} }, 'True')], [], ''],
    ['service_completed_successfully', [], [job('False')], 'db has not completed'],
    ['service_completed_successfully', [], [job('True')], ''],
    ['service_dreaming', [], [], 'db: nobody knows the condition service_dreaming'],
  ] as const)('%s', (condition, pods, jobs, missing) => {
    expect(missingFor(gated(JSON.stringify({ db: condition })), pods, jobs).join()).toBe(missing);
  });

  it('stays shut when the annotation is no JSON', () => {
    expect(missingFor(gated('{'), [], [])).not.toEqual([]);
  });
});
