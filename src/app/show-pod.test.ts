import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { type TestApi, testApi } from '#cluster/api/testing/api.ts';
import type { Live } from '#cluster/client/resources.ts';
import { podFiles } from '#cluster/node/pod/files.ts';
import { securityOf } from '#cluster/node/pod/security.ts';
import { plainRecord } from '#engine/core/fakes.ts';
import { show } from '#engine/core/insight/show.ts';
import { plainSpec } from '#engine/core/plain-spec.ts';
import type { Pod } from '#spec/kubernetes/types.gen.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.stop());

it('a container shown as Kubernetes objects is taken by the API as it stands, and read by the node as it was wished', async () => {
  const plain = plainSpec();
  const record = plainRecord({
    ...plain,
    labels: { 'com.example/tier': 'front', note: 'two words' },
    process: { ...plain.process, args: ['serve'], user: '7:8', groups: ['9'] },
    hostname: 'box',
    stop: { signal: 'RTMIN+20', timeoutSeconds: 3 },
    platform: 'linux/amd64',
    mounts: [
      { type: 'tmpfs', target: '/run', options: ['size=1m'], readonly: false },
      { type: 'volume', name: 'Cache_1', target: '/cache', readonly: 'force-recursive', noCopy: false, labels: {} },
    ],
    resources: { ...plain.resources, memoryBytes: 64 << 20, cpuQuotaUs: 50_000 },
    sysctls: { 'net.ipv4.ip_unprivileged_port_start': '0' },
    shmBytes: 1 << 20,
    network: {
      ...plain.network,
      ports: { '80/tcp': [{ hostIp: '', hostPort: '8080' }] },
      dns: ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4'],
      dnsSearch: ['a.example'],
      dnsOptions: ['ndots:2', 'edns0'],
      extraHosts: ['a:[2001:db8::1]', 'b:host-gateway'],
    },
    health: { test: ['CMD', 'true'], intervalNs: 5e9, timeoutNs: 0, startPeriodNs: 0, startIntervalNs: 0, retries: 0 },
  });
  const shown = await show({ ...record, name: 'web', image: { id: '', reference: 'web:1' } }, 'kubernetes');
  const taken = [];
  for (const object of parseAllDocuments(shown).map((d) => d.toJS())) {
    const path = `/api/v1/namespaces/default/${object.kind.toLowerCase()}s?fieldValidation=Strict`;
    const { code, body } = await api.ask('POST', path, object);
    expect({ code, body }).toMatchObject({ code: 201 });
    taken.push(body);
  }
  expect(taken.map((object) => object.kind)).toEqual(['Pod', 'Service']);
  const pod = taken[0] as unknown as Live<Pod>;
  const [container] = pod.spec.containers;
  if (!container) throw new Error('no container');

  const settings = { clusterDomain: 'cluster.local', clusterDns: '10.96.0.10' };
  const files = podFiles(pod, ['10.42.0.2'], settings, { hosts: '', resolv: '' });
  expect(files['resolv.conf']).toBe(
    'search a.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions ndots:2 edns0\n',
  );
  expect(files.hosts).toMatch(/^2001:db8::1\s+a$/m);
  const neverRead = (): never => {
    throw new Error('no profile was named');
  };
  expect(securityOf(pod.spec, container, { user: '' }, neverRead)).toMatchObject({ user: '7:8', groups: ['9'] });
  expect(container.lifecycle?.stopSignal).toBe('SIGRTMAX-10');
});
