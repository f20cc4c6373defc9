import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { credentialsFor } from '#cluster/node/images.ts';
import { namedBy } from '#cluster/node/objects.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import { writeAtomically } from '#cluster/node/volumes/atomic-dir.ts';
import { nestedMountPoints } from '#cluster/node/volumes/nested.ts';
import { type Payload, payloadOf } from '#cluster/node/volumes/payload.ts';
import type { Pod, Volume } from '#spec/kubernetes/types.gen.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const pod: Live<Pod> = {
  metadata: {
    name: 'web',
    namespace: 'shop',
    uid: 'u1',
    resourceVersion: '1',
    creationTimestamp: '',
    labels: { b: '2', a: '1' },
  },
  spec: { containers: [] },
};
const self: Self = { pod, ips: [], hostIp: '', allocatable: { cpuMilli: 1, memoryBytes: 1, ephemeralBytes: 1 } };
const sources = {
  configMap: (name: string) =>
    name === 'cm'
      ? { metadata: {}, data: { color: 'blue', size: 'L' }, binaryData: { raw: base64('\0\x01') } }
      : undefined,
  secret: (name: string) => (name === 's' ? { metadata: {}, data: { pw: base64('x') } } : undefined),
  token: () => 'jwt',
};
const files = (volume: Omit<Volume, 'name'>): Record<string, string> =>
  Object.fromEntries(
    [...payloadOf({ name: 'v', ...volume }, self, sources)].map(([path, f]) => [
      path,
      `${f.data.toString()} ${f.mode.toString(8)}`,
    ]),
  );

const root = mkdtempSync(join(tmpdir(), 'estiba-node-volumes-'));
afterAll(() => rmSync(root, { recursive: true }));

describe('what a volume from the cluster holds', () => {
  it('all keys, or those it names, with their modes', () => {
    expect(files({ configMap: { name: 'cm' } })).toEqual({ color: 'blue 644', size: 'L 644', raw: '\0\x01 644' });
    expect(
      files({ secret: { secretName: 's', defaultMode: 0o400, items: [{ key: 'pw', path: 'deep/p', mode: 0o440 }] } }),
    ).toEqual({ 'deep/p': 'x 440' });
    expect(files({ downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } })).toEqual(
      { labels: 'a="1"\nb="2" 644' },
    );
    expect(
      files({
        projected: {
          sources: [
            { serviceAccountToken: { path: 'token' } },
            { configMap: { name: 'cm', items: [{ key: 'size', path: 's' }] } },
          ],
        },
      }),
    ).toEqual({ token: 'jwt 644', s: 'L 644' });
  });

  it('what is missing is told, unless it is optional; no path leads out', () => {
    expect(() => files({ configMap: { name: 'no' } })).toThrow(
      'MountVolume.SetUp failed for volume "v" : configmap "no" not found',
    );
    expect(() => files({ configMap: { name: 'cm', items: [{ key: 'no', path: 'x' }] } })).toThrow(
      'references non-existent config key: no',
    );
    expect(files({ configMap: { name: 'no', optional: true } })).toEqual({});
    for (const path of ['../x', '/x', 'a/../../x', '..data'])
      expect(() => files({ configMap: { name: 'cm', items: [{ key: 'size', path }] } }), path).toThrow(
        'leads out of the volume',
      );
  });
});

describe('a directory that changes all at once', () => {
  let stamps = 0;
  const write = (dir: string, content: Record<string, string>): boolean => {
    const payload: Payload = new Map(
      Object.entries(content).map(([path, text]) => [path, { data: Buffer.from(text), mode: 0o640 }]),
    );
    return writeAtomically(dir, payload, {
      owner: () => ({ uid: 0, gid: 0 }),
      mode: (m) => m,
      stamp: String(stamps++),
    });
  };

  it('keeps the mount points of other volumes inside it', () => {
    const dir = mkdtempSync(join(root, 'atomic-'));
    write(dir, { a: '1' });
    const spec = {
      containers: [
        {
          name: 'c',
          volumeMounts: [
            { name: 'outer', mountPath: '/etc/app/' },
            { name: 'inner', mountPath: '/etc/app/certs' },
            { name: 'deeper', mountPath: '/etc/app/certs/ca' },
            { name: 'beside', mountPath: '/etc/apples' },
            { name: 'outer', mountPath: '/part', subPath: 'a' },
            { name: 'inner', mountPath: '/part/x' },
          ],
        },
      ],
    };
    expect(nestedMountPoints('outer', spec)).toEqual(['certs']);
    expect(nestedMountPoints('inner', spec)).toEqual(['ca']);
    mkdirSync(join(dir, 'certs'));
    write(dir, { b: '2' });
    expect(readdirSync(dir).filter((name) => !name.startsWith('..'))).toEqual(['b', 'certs']);
  });

  it('is swapped by one link; names follow; what is the same is left alone', () => {
    const dir = mkdtempSync(join(root, 'atomic-'));
    expect(write(dir, { a: '1', 'deep/b': '2' })).toBe(true);
    const before = readlinkSync(join(dir, '..data'));
    expect(readFileSync(join(dir, 'deep/b'), 'utf8')).toBe('2');
    expect(statSync(join(dir, 'a')).mode & 0o777).toBe(0o640);
    expect(write(dir, { a: '1', 'deep/b': '2' })).toBe(false);
    expect(readlinkSync(join(dir, '..data'))).toBe(before);
    expect(write(dir, { a: '3', c: '4' })).toBe(true);
    expect(
      readdirSync(dir)
        .filter((n) => !n.startsWith('..'))
        .sort(),
    ).toEqual(['a', 'c']);
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('3');
    expect(readdirSync(dir).filter((n) => n.startsWith('..')).length).toBe(2);
  });

  it('whatever came before, it shows what was written last', () => {
    const name = fc.stringMatching(/^[a-z]{1,3}(\/[a-z])?$/).filter((n) => n.length > 0);
    const states = fc.array(fc.dictionary(name, fc.string(), { maxKeys: 4 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(states, (list) => {
        const dir = mkdtempSync(join(root, 'any-'));
        // A name cannot be a file and a directory at once.
        const clean = list.map((s) =>
          Object.fromEntries(Object.entries(s).filter(([k]) => !Object.keys(s).some((o) => o.startsWith(`${k}/`)))),
        );
        for (const state of clean) write(dir, state);
        for (const [path, text] of Object.entries(clean.at(-1) ?? {}))
          expect(readFileSync(join(dir, path), 'utf8')).toBe(text);
      }),
      { numRuns: 30 },
    );
  });
});

describe('what a pod names', () => {
  it('is watched: each config map and secret of its spec, once', () => {
    const spec = {
      containers: [
        {
          name: 'c',
          env: [{ name: 'X', valueFrom: { secretKeyRef: { name: 's1', key: 'k' } } }],
          envFrom: [{ configMapRef: { name: 'c1' } }],
        },
      ],
      imagePullSecrets: [{ name: 'pull' }],
      volumes: [{ name: 'v', projected: { sources: [{ secret: { name: 's1' } }, { configMap: { name: 'c2' } }] } }],
    };
    expect(
      namedBy({ ...pod, spec })
        .map((n) => n.join(' '))
        .sort(),
    ).toEqual(['configmap c1', 'configmap c2', 'secret pull', 'secret s1']);
  });

  it('pull secrets match by place, the closest first', () => {
    const auths = {
      'reg.example:5000': { auth: base64('a:1') },
      'https://reg.example:5000/team': { username: 'b', password: '2:3' },
      'https://index.docker.io/v1/': { auth: base64('d:4') },
    };
    const secret = { metadata: {}, data: { '.dockerconfigjson': base64(JSON.stringify({ auths })) } };
    expect(credentialsFor('reg.example:5000/team/web', [secret])).toEqual([
      { username: 'b', password: '2:3' },
      { username: 'a', password: '1' },
    ]);
    expect(credentialsFor('docker.io/library/web', [secret])).toEqual([{ username: 'd', password: '4' }]);
    expect(credentialsFor('reg.example:5000x/web', [secret])).toEqual([]);
    expect(credentialsFor('docker.io/x', [{ metadata: {}, data: { '.dockerconfigjson': base64('{') } }])).toEqual([]);
  });
});
