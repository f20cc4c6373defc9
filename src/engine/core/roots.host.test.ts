import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { OverlayRoots } from '#engine/core/roots.ts';
import type { ImageStore } from '#image/images.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { runPlan } from '#kernel/plan/execute.ts';

const dir = mkdtempSync(join(tmpdir(), 'estiba-roots-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

it('a root that need not last is not synced when it goes, and can be mounted again', async () => {
  const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(dir, name));
  for (const path of [lower, upper, work]) mkdirSync(path ?? '');
  const rootfs = { lower: [lower], upper, work, options: [] };
  const snapshots = { toMount: async () => ({ rootfs, missing: [] }), workOf: () => work };
  const roots = await OverlayRoots.open({
    images: {} as ImageStore,
    snapshots: snapshots as unknown as SnapshotStore,
    runPlan: (plan) => runPlan(plan),
    dir: join(dir, 'roots'),
    kernelRelease: release(),
    readInside: () => undefined,
  });
  const options = (): string | undefined =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((line) => line.includes(` ${join(dir, 'roots/web')} `));

  const root = await roots.mount('web', { volatile: true });
  expect(options()).toContain('volatile');
  writeFileSync(join(root, 'written'), 'yes');
  await roots.unmount('web');
  expect(options()).toBeUndefined();

  const again = await roots.mount('web');
  expect(options()).not.toContain('volatile');
  expect(readFileSync(join(again, 'written'), 'utf8')).toBe('yes');
  await roots.unmount('web');
});
