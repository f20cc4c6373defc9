// Cold pull of a 4-layer image (about 132 MB compressed, 350 MB, 16 000 entries) from docker-registry on loopback, ready to
// run, with fsync on; beside skopeo, podman and dockerd where they are installed.
//
//   node bench/pull-layers.mjs [ROUNDS]
//
// Needs root, docker-registry, skopeo, GNU tar; takes the layers from this host's own /usr.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const rounds = process.argv[2] ?? '3';
const root = mkdtempSync(join(tmpdir(), 'estiba-image-pull-'));
const here = fileURLToPath(new URL('..', import.meta.url));
const sh = (script, options = {}) =>
  execFileSync('bash', ['-euc', script], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'], ...options }).toString();
let registry;

try {
  makeImage();
  const port = await freePort();
  registry = startRegistry(port);
  await answering(port);
  const reference = `127.0.0.1:${port}/bench/image:1`;
  sh(`skopeo copy -q --dest-tls-verify=false oci:layout:1 docker://${reference}`);
  for (const name of ['bench/pull-layers.ts', 'src/image/layer/worker.ts']) {
    await build({
      entryPoints: [join(here, name)],
      outfile: join(root, name.replace(/.*\//, '').replace(/ts$/, 'mjs')),
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    });
  }
  const init = join(here, 'native/build/estiba-init');
  const line = (who, text) => process.stdout.write(`${who.padEnd(10)} ${text}\n`);
  for (const result of sh(
    `node ${process.env.NODE_FLAGS ?? ''} pull-layers.mjs ${reference} ${rounds} ${root}/worker.mjs`,
    {
      env: { ...process.env, ESTIBA_INIT: init, UV_THREADPOOL_SIZE: '8' },
    },
  )
    .trim()
    .split('\n'))
    line('estiba', result);
  const timed = (who, before, command) => {
    for (let i = 0; i < Number(rounds); i++) {
      sh(before);
      const started = performance.now();
      sh(command);
      line(who, `${Math.round(performance.now() - started)} ms`);
    }
  };
  timed(
    'skopeo',
    'rm -rf copy',
    `skopeo copy -q --src-tls-verify=false docker://${reference} oci:copy:1 # a copy, not unpacked`,
  );
  if (has('podman'))
    timed(
      'podman',
      'rm -rf p',
      `podman --root ${root}/p/root --runroot ${root}/p/run pull -q --tls-verify=false ${reference}`,
    );
} finally {
  registry?.kill();
  if (has('podman'))
    try {
      sh(
        `podman --root ${root}/p/root --runroot ${root}/p/run rmi -a -f >/dev/null 2>&1 || true; umount ${root}/p/root/overlay 2>/dev/null || true`,
      );
    } catch {}
  rmSync(root, { recursive: true, force: true });
}

function makeImage() {
  const cache = process.env.ESTIBA_BENCH_LAYERS;
  mkdirSync(join(root, 'layout/blobs/sha256'), { recursive: true });
  if (cache && existsSync(join(cache, 'l1.tar.gz')))
    for (let i = 1; i <= 4; i++)
      for (const end of ['tar', 'tar.gz']) cpSync(join(cache, `l${i}.${end}`), join(root, `l${i}.${end}`));
  else {
    sh(`tar -C / --numeric-owner --sort=name -cf l1.tar usr/sbin usr/lib/git-core usr/share/perl 2>/dev/null
        (cd / && tar --numeric-owner --sort=name -cf ${root}/l2.tar usr/lib/python3 usr/lib/python3.11) 2>/dev/null
        head -c 33000000 /dev/urandom > blob; tar -C / --numeric-owner -cf l3.tar usr/lib/gcc/x86_64-linux-gnu/12/cc1 -C ${root} blob
        tar -C / --numeric-owner --sort=name -cf l4.tar usr/share/doc 2>/dev/null
        for i in 1 2 3 4; do gzip -6 -k l$i.tar; done`);
  }
  const blob = (path) => {
    const digest = `sha256:${hashFile(path)}`;
    cpSync(path, join(root, 'layout/blobs/sha256', digest.slice(7)));
    return { digest, size: statSync(path).size };
  };
  const json = (name, value) => {
    writeFileSync(join(root, name), JSON.stringify(value));
    return blob(join(root, name));
  };
  const layers = [1, 2, 3, 4].map((i) => ({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    ...blob(join(root, `l${i}.tar.gz`)),
  }));
  const diffIds = [1, 2, 3, 4].map((i) => `sha256:${hashFile(join(root, `l${i}.tar`))}`);
  const config = json('config.json', {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Cmd: ['true'] },
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  const manifest = json('manifest.json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers,
  });
  writeFileSync(join(root, 'layout/oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(root, 'layout/index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          ...manifest,
          annotations: { 'org.opencontainers.image.ref.name': '1' },
        },
      ],
    }),
  );
  process.stdout.write(`image: ${Math.round(layers.reduce((s, l) => s + l.size, 0) / 1e6)} MB compressed\n`);
}

function hashFile(path) {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  const chunk = Buffer.alloc(1 << 20);
  for (let n = readSync(fd, chunk); n > 0; n = readSync(fd, chunk)) hash.update(chunk.subarray(0, n));
  closeSync(fd);
  return hash.digest('hex');
}

function startRegistry(port) {
  writeFileSync(
    join(root, 'registry.yml'),
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${root}/registry}}\nhttp: {addr: 127.0.0.1:${port}}\n`,
  );
  return spawn('docker-registry', ['serve', join(root, 'registry.yml')], { stdio: 'ignore' });
}

async function answering(port) {
  for (let i = 0; i < 100; i++) {
    try {
      if ((await fetch(`http://127.0.0.1:${port}/v2/`)).ok) return;
    } catch {}
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error('docker-registry does not answer');
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function has(program) {
  try {
    return readFileSync('/dev/null') && execFileSync('which', [program]).length > 0;
  } catch {
    return false;
  }
}
