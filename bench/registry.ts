import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#base/clock.ts';
import { writeBlob } from '#image/content.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import type { Registries } from '#registry/registries.ts';
import { plainRegistries } from '#registry/testing.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';
import { RegistryProcess } from '../test/suites/registry/process.ts';

// Push and pull of 139 MB in four layers over loopback, registry in a process of its own, fsync on: our client and skopeo,
// our registry and Debian's docker-registry. Layers are random bytes: a registry moves them and never looks inside.
//   node bench/registry.mjs

const AMD64 = { os: 'linux', architecture: 'amd64' };
const LAYERS = [52, 40, 30, 17].map((mb) => mb * 1_000_000);
const ROUNDS = Number(process.env['ROUNDS'] ?? 3);

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'estiba-bench-registry-'));
  try {
    const source = await node(join(folder, 'source'));
    const root = await makeImage(source.content);
    const rows = new Rows();
    for (let round = 0; round < ROUNDS; round++) {
      for (const kind of ['ours', 'docker-registry'] as const) {
        const own = mkdtempSync(join(folder, 'r-'));
        const registry = kind === 'ours' ? await RegistryProcess.ours(own) : await RegistryProcess.dockerRegistry(own);
        const name = `${registry.host}/bench:1`;
        const row = rows.row(`estiba → ${kind}`);
        await timed(row, 'push', () => source.registries.push(name, root, quiet));
        await timed(row, 'push again', () => source.registries.push(name, root, quiet));
        const to = await node(join(own, 'to'));
        const delay = watchLoop();
        await timed(row, 'pull', () => to.registries.pull(name, { ...quiet, platform: AMD64 }));
        row.add('loop blocked', delay());
        await timed(row, 'pull again', () => to.registries.pull(name, { ...quiet, platform: AMD64 }));
        await to.registries.close();

        const peer = rows.row(`skopeo → ${kind}`);
        const layout = join(folder, 'layout');
        const skopeo = (...args: string[]) => execFileSync('skopeo', ['copy', '-q', ...args]);
        if (!exists(layout)) skopeo('--src-tls-verify=false', `docker://${name}`, `oci:${layout}:1`);
        const second = mkdtempSync(join(folder, 's-'));
        const empty =
          kind === 'ours' ? await RegistryProcess.ours(second) : await RegistryProcess.dockerRegistry(second);
        await timed(peer, 'push', () =>
          skopeo('--dest-tls-verify=false', `oci:${layout}:1`, `docker://${empty.host}/bench:1`),
        );
        await timed(peer, 'push again', () =>
          skopeo('--dest-tls-verify=false', `oci:${layout}:1`, `docker://${empty.host}/bench:1`),
        );
        const pulled = join(second, 'pulled');
        await timed(peer, 'pull', () =>
          skopeo('--src-tls-verify=false', `docker://${empty.host}/bench:1`, `oci:${pulled}:1`),
        );
        await timed(peer, 'pull again', () =>
          skopeo('--src-tls-verify=false', `docker://${empty.host}/bench:1`, `oci:${pulled}:1`),
        );
        await Promise.all([registry.kill(), empty.kill()]);
        rmSync(own, { recursive: true });
        rmSync(second, { recursive: true });
      }
    }
    await source.registries.close();
    print(rows);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Milliseconds of one pairing, by what was timed. */
class Row {
  readonly cells = new Map<string, number[]>();
  add(what: string, ms: number): void {
    this.cells.set(what, [...(this.cells.get(what) ?? []), ms]);
  }
}

class Rows {
  readonly rows = new Map<string, Row>();
  row(name: string): Row {
    const row = this.rows.get(name) ?? new Row();
    this.rows.set(name, row);
    return row;
  }
}

const quiet = { onProgress: () => undefined };

async function timed(row: Row, what: string, work: () => unknown): Promise<void> {
  const startMs = performance.now();
  await work();
  row.add(what, performance.now() - startMs);
}

/** Longest time the event loop did not come round, in ms. */
function watchLoop(): () => number {
  let longestMs = 0;
  let lastMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs - 1);
    lastMs = nowMs;
  }, 1);
  return () => {
    clearInterval(timer);
    return longestMs;
  };
}

async function node(folder: string): Promise<{ content: DiskContentStore; registries: Registries }> {
  const content = await DiskContentStore.open(folder, systemClock);
  const registries = plainRegistries(content);
  return { content, registries };
}

async function makeImage(content: DiskContentStore): Promise<Digest> {
  const layers = [];
  for (const bytes of LAYERS) {
    const { digest } = await writeBlob(content, 'layer', [randomBytes(bytes)]);
    layers.push({ mediaType: MEDIA.ociLayerGzip, digest, size: bytes });
  }
  const config = Buffer.from(
    JSON.stringify({ ...AMD64, rootfs: { type: 'layers', diff_ids: layers.map((l) => l.digest) } }),
  );
  await writeBlob(content, 'config', [config]);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: digestOf(config), size: config.byteLength },
    layers,
  };
  return (await writeBlob(content, 'manifest', [Buffer.from(JSON.stringify(manifest))])).digest;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function print(rows: Rows): void {
  for (const [name, row] of rows.rows) {
    const text = [...row.cells].map(([what, ms]) => {
      const sorted = [...ms].sort((a, b) => a - b);
      return `${what} ${sorted[Math.floor(sorted.length / 2)]?.toFixed(0)} ms (${sorted.map((m) => m.toFixed(0)).join(' ')})`;
    });
    process.stdout.write(`${name.padEnd(28)} ${text.join(' · ')}\n`);
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
