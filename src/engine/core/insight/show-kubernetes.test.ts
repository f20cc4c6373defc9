import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { plainRecord } from '#engine/core/fakes.ts';
import { show } from '#engine/core/insight/show.ts';
import { mount, network, plain, process, resources, TMPFS } from '#engine/core/insight/wishes.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';

function text(changes: Partial<ContainerSpec>): Promise<string> {
  return show({ ...plainRecord({ ...plain, ...changes }), name: 'web' }, 'kubernetes');
}

async function pod(changes: Partial<ContainerSpec>): Promise<Record<string, unknown>> {
  const [first] = parseAllDocuments(await text(changes));
  return first?.toJS();
}

function unsaid(shown: string): string[] {
  return shown.split('\n').filter((line) => line.startsWith('#'));
}

describe('a container as Kubernetes objects', () => {
  it('names servers of its own alone, and adds search domains and options to the cluster’s', async () => {
    const own = network({ dns: ['192.0.2.1'], dnsSearch: ['a.example', '.'], dnsOptions: ['ndots:2', 'edns0'] });
    expect(await pod(own)).toMatchObject({
      spec: {
        dnsPolicy: 'None',
        dnsConfig: {
          nameservers: ['192.0.2.1'],
          searches: ['a.example'],
          options: [{ name: 'ndots', value: '2' }, { name: 'edns0' }],
        },
      },
    });
    const { spec } = await pod(network({ dnsSearch: ['a.example'] }));
    expect(spec).toMatchObject({ dnsConfig: { searches: ['a.example'] } });
    expect(spec).not.toHaveProperty('dnsPolicy');
  });

  it('has labels that may be selected by as labels, which its Service selects, and others as annotations', async () => {
    const shown = await text({
      labels: { 'com.example/tier': 'front', note: 'two words', 'bad key': 'x' },
      annotations: { by: 'hand' },
      ...network({ ports: { '80/tcp': [{ hostIp: '', hostPort: '80' }] } }),
    });
    const [made, service] = parseAllDocuments(shown).map((d) => d.toJS());
    const labels = { app: 'web', 'com.example/tier': 'front' };
    expect(made.metadata).toEqual({ name: 'web', labels, annotations: { note: 'two words', by: 'hand' } });
    expect(service.spec.selector).toEqual(labels);
    expect(shown).toContain('# not said here: labels "bad key": no names that Kubernetes takes\n');
  });

  it('has memory for files and for /dev/shm of the size that was asked for', async () => {
    const { spec } = await pod({ ...mount({ ...TMPFS, options: ['size=1m', 'mode=1777'] }), shmBytes: 2 << 20 });
    expect(spec).toMatchObject({
      containers: [{ volumeMounts: [{ mountPath: '/t' }, { name: 'shm', mountPath: '/dev/shm' }] }],
      volumes: [
        { emptyDir: { medium: 'Memory', sizeLimit: String(1 << 20) } },
        { name: 'shm', emptyDir: { medium: 'Memory', sizeLimit: String(2 << 20) } },
      ],
    });
  });

  it('has groups, sysctls and a stop signal in Kubernetes’ words', async () => {
    const wishes = { ...process({ groups: ['7', 'wheel'] }), sysctls: { 'net.core.somaxconn': '7' } };
    for (const [signal, word] of Object.entries({
      INT: 'SIGINT',
      10: 'SIGUSR1',
      'RTMIN+3': 'SIGRTMIN+3',
      'RTMAX-2': 'SIGRTMAX-2',
    }))
      expect(await pod({ ...wishes, stop: { signal, timeoutSeconds: 3 } })).toMatchObject({
        spec: {
          os: { name: 'linux' },
          securityContext: { supplementalGroups: [7], sysctls: [{ name: 'net.core.somaxconn', value: '7' }] },
          terminationGracePeriodSeconds: 3,
          containers: [{ lifecycle: { stopSignal: word } }],
        },
      });
  });

  it('says at its head, before all else, what it cannot say', async () => {
    const shown = await text({
      ...process({ groups: ['wheel'] }),
      ...resources({ memoryBytes: 7, memorySwapBytes: 14 }),
      restart: { name: 'on-failure', maxRetries: 3, onUnhealthy: false },
      domainname: 'a\nkind: Secret',
    });
    expect(unsaid(shown)).toEqual([
      '# not said here: swap: each node decides for its pods',
      '# not said here: groups wheel: a pod takes numbers',
      '# not said here: domain name a kind: Secret: a pod has its subdomain and the cluster’s',
      '# not said here: 3 restarts at most: a pod’s go on',
    ]);
    expect(shown.split('\n')[4]).toBe('apiVersion: v1');
    expect(unsaid(await text({}))).toEqual([]);
  });
});
