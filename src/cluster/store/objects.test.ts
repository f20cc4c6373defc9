import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { get } from '#storage/store.ts';
import { type KubeObject, keyOf, ObjectStore } from './objects.ts';
import { sealer } from './seal.ts';
import { memoryStore } from './testing.ts';

const secretKey = Buffer.alloc(32, 7);
const sealing = sealer({ secretKey, prefixes: ['/registry/secrets/'] });
const secret = (name: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace: 'n', resourceVersion: '99' },
  data: { p: 'cGxhaW4=' },
});

describe('objects in the store', () => {
  it('keep their version in the key, not in the value', async () => {
    const raw = memoryStore(new FakeClock());
    const store = new ObjectStore(raw);
    const key = keyOf('secrets', { namespace: 'n', name: 'a' });
    const revision = await store.create(key, secret('a'));
    expect(key).toBe('/registry/secrets/n/a');
    expect(Buffer.from((await get(raw, key))?.value ?? []).toString()).not.toContain('resourceVersion');
    expect((await store.all()).items[0]?.object.metadata.resourceVersion).toBe(String(revision));
  });

  it('are written by exactly one of two who saw the same version', async () => {
    const store = new ObjectStore(memoryStore(new FakeClock()));
    const key = keyOf('secrets', { namespace: 'n', name: 'a' });
    const first = (await store.create(key, secret('a'))) ?? 0;
    expect(await store.create(key, secret('a'))).toBeUndefined();
    expect(await store.update(key, secret('a'), first)).toBeGreaterThan(first);
    expect(await store.update(key, secret('a'), first)).toBeUndefined();
    expect(await store.delete(key, first)).toBeUndefined();
  });
});

describe('sealed values', () => {
  it('open under their own key and nowhere else', () => {
    const sealed = sealing.seal('/registry/secrets/n/a', Buffer.from('plain'));
    expect(Buffer.from(sealed).includes('plain')).toBe(false);
    expect(Buffer.from(sealing.open('/registry/secrets/n/a', sealed)).toString()).toBe('plain');
    expect(() => sealing.open('/registry/secrets/n/b', sealed)).toThrow('sealed with another key or has been changed');
    expect(() =>
      sealer({ secretKey: Buffer.alloc(32, 8), prefixes: [] }).open('/registry/secrets/n/a', sealed),
    ).toThrow();
  });

  it('a changed or cut value is refused; one from before there was a key is read', () => {
    const sealed = Buffer.from(sealing.seal('/registry/secrets/n/a', Buffer.from('plain')));
    for (let i = 10; i < sealed.length; i++) {
      const changed = Buffer.from(sealed);
      changed[i] = (changed[i] ?? 0) ^ 1;
      expect(() => sealing.open('/registry/secrets/n/a', changed)).toThrow();
    }
    expect(() => sealing.open('/registry/secrets/n/a', sealed.subarray(0, 20))).toThrow('cut short');
    expect(Buffer.from(sealing.open('/registry/secrets/n/a', Buffer.from('{}'))).toString()).toBe('{}');
  });

  it('other objects are left as they are', () => {
    const value = Buffer.from('{}');
    expect(sealing.seal('/registry/pods/n/a', value)).toBe(value);
  });
});
