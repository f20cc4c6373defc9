import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import { BOOTSTRAP_LABEL, bootstrapper } from '#registry/bootstrap.ts';
import type { Progress } from '#registry/client/progress.ts';
import { plainRegistries } from '#registry/testing.ts';
import { parseImageConfig } from '#spec/image/manifest.ts';
import { run } from './room.ts';

// Needs root and the package mirrors of this host's own apt configuration.

const AMD64 = { os: 'linux', architecture: 'amd64' };
const folder = mkdtempSync(join(tmpdir(), 'estiba-registry-bootstrap-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each([
  ['busybox:1.36', 'bin/sh'],
  ['debian:bookworm-slim', 'etc/debian_version'],
])('%s comes into being where no registry can be reached, says how, and is whole', async (name, file) => {
  const content = await DiskContentStore.open(mkdtempSync(join(folder, 'n-')), systemClock);
  const registries = plainRegistries(content, {
    // Nobody listens at port 1: the hub is out of reach.
    table: { registries: { 'docker.io': { mirrors: ['http://127.0.0.1:1'], only: 'mirrors' } } },
    bootstrap: bootstrapper({ content, clock: systemClock, platform: AMD64 }),
  });
  const events: Progress[] = [];
  const pulled = await registries.pull(name, { platform: AMD64, onProgress: (e) => events.push(e) });
  const manifest = pulled.image?.manifest.manifest;
  const config = parseImageConfig(await content.read(manifest?.config.digest ?? 'sha256:', 1 << 20), name);
  expect(config.config?.Labels?.[BOOTSTRAP_LABEL]).toMatch(/busybox|debian bookworm/);
  expect(events.some((e) => e.at === 'note' && e.text.startsWith('No registry can be reached'))).toBe(true);
  const [layer] = manifest?.layers ?? [];
  expect(await run('tar', ['-tf', content.pathOf(layer?.digest ?? 'sha256:')])).toContain(file);
  await registries.close();
});
