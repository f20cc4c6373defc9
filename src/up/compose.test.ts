import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { loadCompose } from '#spec/compose/load.ts';
import type { ComposeInput } from '#up/compose/context.ts';
import { namespaceFor, planCompose } from '#up/compose/plan.ts';
import type { AppPlan } from '#up/objects.ts';

const CASES = join(import.meta.dirname, 'case');

async function plan(text: string, changes: Partial<ComposeInput> = {}): Promise<AppPlan> {
  const read = async (path: string): Promise<string | undefined> => (path === '/app/compose.yaml' ? text : undefined);
  const environment = { DB_PASSWORD: 'hunter2', FROM_SHELL: 'yes', HOME: '/root' };
  const project = await loadCompose({ files: ['/app/compose.yaml'], read, environment });
  return planCompose({
    project,
    namespace: namespaceFor(project.name),
    paths: { '/app/conf': 'directory', '/var/run/docker.sock': 'socket' },
    files: {},
    environment,
    folder: '/app',
    cluster: 'estiba',
    ...changes,
  });
}

const service = (lines: string): string => `services:\n  a:\n    image: x\n${lines.replace(/^/gm, '    ')}\n`;

describe('planCompose', () => {
  for (const name of readdirSync(CASES)) {
    it(`${name} becomes its reviewed objects`, async () => {
      const { builds, objects } = await plan(readFileSync(join(CASES, name, 'compose.yaml'), 'utf8'));
      const documents = [...(builds.length === 0 ? [] : [{ builds }]), ...objects];
      const text = documents.map((d) => stringify(d, { lineWidth: 0, aliasDuplicateObjects: false })).join('---\n');
      await expect(text).toMatchFileSnapshot(join(CASES, name, 'objects.yaml'));
    });
  }

  it('gives the same objects for the same file', async () => {
    const text = readFileSync(join(CASES, 'shop/compose.yaml'), 'utf8');
    expect(await plan(text)).toEqual(await plan(text));
  });

  it.each([
    ['ulimits: {nofile: 1024}', 'compose.yaml:4: services.a.ulimits: has no counterpart in Kubernetes'],
    ['devices: [/dev/kvm]', 'compose.yaml:4: services.a.devices: has no counterpart'],
    ['user: postgres', 'services.a.user: "postgres" is a name of the image\'s own'],
    ['ports: ["127.0.0.1:80:80"]', 'compose.yaml:4: services.a.ports'],
    ['healthcheck: {interval: 5s}', 'services.a.healthcheck: has no test'],
    ['networks: {default: {ipv4_address: 10.0.0.2}}', 'services.a.networks'],
    ['networks: {default: {mac_address: "02:00:00:00:00:09"}}', 'services.a.networks.default.mac_address'],
    ['volumes: ["/a:/b:ro,nocopy"]', '"nocopy" is no mode of a bind mount'],
    ['logging: {driver: syslog}', 'services.a.logging.driver: "syslog" has no counterpart'],
    ['logging: {options: {max-size: 10m}}', 'services.a.logging.options: logs of pods are kept as the node keeps them'],
    ['stop_signal: "15"', 'Kubernetes takes the name of a signal'],
    ['extra_hosts: ["x=host-gateway"]', '"host-gateway" is no address'],
    ['network_mode: "service:b"', 'services.a.network_mode'],
    ['deploy: {rollback_config: {parallelism: 1}}', 'services.a.deploy.rollback_config: has no counterpart'],
    ['container_name: Not_A_Name', '"Not_A_Name": in Kubernetes a name has lower case letters'],
  ])('refuses %s by file and line', async (lines, problem) => {
    await expect(plan(service(lines))).rejects.toThrow(problem);
  });

  it('hands a bind’s propagation on, in whichever syntax', async () => {
    const long = '{type: bind, source: /a, target: /c, bind: {propagation: rshared}}';
    const objects = JSON.stringify(await plan(service(`volumes: ["/a:/b:ro,rslave", ${long}, "/a:/d:rprivate"]`)));
    expect(objects).toContain(
      '{"name":"bind-a","mountPath":"/b","readOnly":true,"mountPropagation":"HostToContainer"}',
    );
    expect(objects).toContain('{"name":"bind-a-2","mountPath":"/c","mountPropagation":"Bidirectional"}');
    expect(objects).toContain('{"name":"bind-a-3","mountPath":"/d"}');
  });

  it('refuses a bind of this machine for another cluster, and gates nothing there', async () => {
    const bound = service('volumes: ["./conf:/etc/conf"]');
    await expect(plan(bound, { cluster: 'other' })).rejects.toThrow('which another cluster does not have');
    const text = 'services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x}\n';
    expect(JSON.stringify(await plan(text))).toContain('schedulingGates');
    expect(JSON.stringify(await plan(text, { cluster: 'other' }))).not.toContain('schedulingGates');
  });

  it('says when two volumes come to one name', async () => {
    const text = 'services:\n  a: {image: x, volumes: ["d_a:/1", "d-a:/2"]}\nvolumes: {d_a: , d-a: }\n';
    await expect(plan(text)).rejects.toThrow('two things of this file come to the same name');
  });

  it('rolls the pods when a secret, a built image or a dependency changes', async () => {
    const text = readFileSync(join(CASES, 'shop/compose.yaml'), 'utf8');
    const templateOf = ({ objects }: AppPlan, name: string): string =>
      JSON.stringify(
        objects.find((o) => 'spec' in o && /Deployment|StatefulSet/.test(o.kind) && o.metadata.name === name),
      );
    const before = await plan(text);
    const rebuilt = await plan(text, { built: { web: 'sha256:1' } });
    expect(templateOf(rebuilt, 'web')).not.toBe(templateOf(before, 'web'));
    expect(templateOf(rebuilt, 'db')).toBe(templateOf(before, 'db'));
    const otherImage = await plan(text.replace('postgres:16', 'postgres:17'));
    expect(templateOf(otherImage, 'web')).not.toBe(templateOf(before, 'web'));
    expect(templateOf(otherImage, 'cache')).toBe(templateOf(before, 'cache'));
  });
});
