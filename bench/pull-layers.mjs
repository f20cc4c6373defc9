// Cold pull of a 4-layer image (about 139 MB compressed, 340 MB, 12 000 files) from docker-registry on loopback, ready to
// run, with fsync on; the same pull again; and its push to a registry that has nothing of it. Beside skopeo (which copies and
// does not unpack), podman and dockerd where they are installed.
//
//   node bench/pull-layers.mjs [ROUNDS]
//
// Needs root, docker-registry, skopeo, GNU tar; takes the layers from this host's own /usr. ESTIBA_BENCH_LAYERS keeps them
// between runs. Ends with 1 when a median misses its goal.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { commandLine } from './common/command.mjs';
import { atEnd, breathe, takeBack } from './common/end.mjs';

const GOALS = { readyMs: 2000, pushMs: 800, presentMs: 30, loopRunMs: 20 };
const { words, count } = commandLine('node bench/pull-layers.mjs [ROUNDS]', { mostWords: 1 });
const rounds = count(words[0], 3);
const root = mkdtempSync(join(tmpdir(), 'estiba-image-pull-'));
atEnd(() => takeBack({ dirs: [root] }));
const here = fileURLToPath(new URL('..', import.meta.url));
const sh = (script, options = {}) =>
  execFileSync('bash', ['-euc', script], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'], ...options }).toString();
const children = [];
const line = (who, text) => process.stdout.write(`${who.padEnd(8)} ${text}\n`);
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

try {
  makeImage();
  const [source, empty] = [await startRegistry('source'), await startRegistry('empty')];
  const reference = `${source}/bench/image:1`;
  sh(`skopeo copy -q --dest-tls-verify=false oci:layout:1 docker://${reference}`);
  bundle();
  ours(reference, empty);
  await timed(
    'skopeo',
    'copy',
    'rm -rf copy',
    `skopeo copy -q --src-tls-verify=false docker://${reference} oci:copy:1`,
  );
  if (has('podman')) await podman(reference, empty);
  if (has('dockerd')) await docker(reference, empty);
} finally {
  for (const child of children.reverse()) await stop(child);
}

function ours(reference, empty) {
  // What making the image wrote is on disk before the clock starts: the first fsync would wait for all of it.
  const results = sh(
    `sync; node ${process.env.NODE_FLAGS ?? ''} pull-layers.mjs ${reference} ${empty} ${rounds} ${root}/worker.mjs`,
    {
      env: { ...process.env, ESTIBA_INIT: join(here, 'native/build/estiba-init'), UV_THREADPOOL_SIZE: '8' },
    },
  );
  const all = results
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text));
  for (const result of all) line('estiba', JSON.stringify(result));
  for (const [name, goal] of Object.entries(GOALS)) {
    const value = median(all.map((result) => result[name]));
    line('estiba', `median ${name} ${value}, goal ${goal}: ${value <= goal ? 'met' : 'MISSED'}`);
    if (value > goal) process.exitCode = 1;
  }
}

async function timed(who, what, before, command, times = rounds) {
  const took = [];
  for (let i = 0; i < times; i++) {
    await breathe();
    sh(`${before}; sync`);
    const started = performance.now();
    sh(command);
    took.push(Math.round(performance.now() - started));
  }
  line(who, `${what} ${took.join(' ')} ms, median ${median(took)}`);
}

/** Pushes once: from then on the registry has the layers, and they are mounted. */
async function podman(reference, empty) {
  const run = `podman --root ${root}/p/root --runroot ${root}/p/run`;
  const clean = `${run} rmi -a -f >/dev/null 2>&1 || true`;
  try {
    await timed('podman', 'pull', clean, `${run} pull -q --tls-verify=false ${reference}`);
    await timed('podman', 'pull again', ':', `${run} pull -q --tls-verify=false ${reference}`);
    await timed('podman', 'push', ':', `${run} push -q --tls-verify=false ${reference} ${empty}/podman/image:1`, 1);
  } finally {
    sh(`${clean}; umount ${root}/p/root/overlay 2>/dev/null || true`);
  }
}

/** A dockerd of its own that touches no network. */
async function docker(reference, empty) {
  const socket = `unix://${root}/docker.sock`;
  const flags = ['--data-root', 'd/data', '--exec-root', 'd/exec', '--pidfile', 'd/pid'].map((f) =>
    f.replace(/^d\//, `${root}/d/`),
  );
  mkdirSync(join(root, 'd'));
  children.push(
    spawn('dockerd', ['-H', socket, ...flags, '--bridge', 'none', '--iptables=false', '--ip6tables=false'], {
      stdio: 'ignore',
    }),
  );
  const run = `docker -H ${socket}`;
  await until(() => sh(`${run} version >/dev/null 2>&1 && echo up || true`).includes('up'), 'dockerd');
  const clean = `${run} rmi -f $(${run} images -qa) >/dev/null 2>&1 || true`;
  await timed('docker', 'pull', clean, `${run} pull -q ${reference}`);
  await timed('docker', 'pull again', ':', `${run} pull -q ${reference}`);
  await timed(
    'docker',
    'push',
    `${run} tag ${reference} ${empty}/docker/image:1`,
    `${run} push -q ${empty}/docker/image:1`,
    1,
  );
}

function bundle() {
  for (const name of ['bench/pull-layers.ts', 'src/image/layer/worker.ts']) {
    buildSync({
      entryPoints: [join(here, name)],
      outfile: join(root, name.replace(/.*\//, '').replace(/ts$/, 'mjs')),
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    });
  }
}

function makeImage() {
  const cache = process.env.ESTIBA_BENCH_LAYERS;
  mkdirSync(join(root, 'layout/blobs/sha256'), { recursive: true });
  if (cache && existsSync(join(cache, 'l1.tar.gz')))
    for (let i = 1; i <= 4; i++)
      for (const end of ['tar', 'tar.gz']) cpSync(join(cache, `l${i}.${end}`), join(root, `l${i}.${end}`));
  else {
    // Files in order of their names until a layer is as large as it should be, whatever else is installed here.
    sh(`layer() { # NAME MEGABYTES DIRECTORIES
          (cd / && find $3 -xdev -printf '%s %p\\n' 2>/dev/null) | LC_ALL=C sort -k2 |
            awk -v max=$2 '{ used += $1 + 512; if (used > max * 1e6) exit; sub(/^[0-9]+ /, ""); print }' > files
          tar -C / --numeric-owner --no-recursion -cf $1 -T files 2>/dev/null; }
        layer l1.tar 95 'usr/sbin usr/lib/git-core usr/share/perl'
        layer l2.tar 90 'usr/lib/python3 usr/lib/python3.11'
        head -c 33000000 /dev/urandom > blob; tar -C / --numeric-owner -cf l3.tar usr/lib/gcc/x86_64-linux-gnu/12/cc1 -C ${root} blob
        layer l4.tar 80 usr/share/doc
        for i in 1 2 3 4; do gzip -6 -k l$i.tar; done`);
    if (cache) sh(`mkdir -p ${cache}; cp l?.tar l?.tar.gz ${cache}`);
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

/** docker-registry with a folder of its own; answers its `host:port`. */
async function startRegistry(name) {
  const port = await freePort();
  writeFileSync(
    join(root, `${name}.yml`),
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${root}/${name}}}\nhttp: {addr: 127.0.0.1:${port}}\n`,
  );
  children.push(spawn('docker-registry', ['serve', join(root, `${name}.yml`)], { stdio: 'ignore' }));
  const answers = () =>
    fetch(`http://127.0.0.1:${port}/v2/`).then(
      (answer) => answer.ok,
      () => false,
    );
  await until(answers, 'docker-registry');
  return `127.0.0.1:${port}`;
}

async function until(condition, what) {
  for (let i = 0; i < 200; i++) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`${what} does not answer`);
}

async function stop(child) {
  if (child.exitCode !== null) return;
  const gone = new Promise((done) => child.once('exit', done));
  child.kill();
  await gone;
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
  return spawnSync('which', [program]).status === 0;
}
