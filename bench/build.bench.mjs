// Ten steps from a Dockerfile to an image: from nothing, wholly from the cache, and after one file has changed, by the HTTP API beside
// dockerd's classic builder, and beside the command lines of buildah and Podman; a context of 100 MB of which one file changed; two
// stages that do not need each other. All without a network, which no step needs.
//
//   node bench/build.bench.mjs [ROUNDS] [alone]     prints medians in milliseconds; exit 1 when a goal is missed; `alone`: no peers
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, statfsSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { commandLine } from './common/command.mjs';
import { atEnd, breathe, takeBack } from './common/end.mjs';

const { words, count, refuse } = commandLine('node bench/build.bench.mjs [ROUNDS] [alone]', { mostWords: 2 });
const ROUNDS = count(words[0], 5);
const ALONE = words[1] === 'alone';
if (words[1] !== undefined && !ALONE) refuse(`not known: ${words[1]}`);
const GOALS = { cold: 800, cached: 30, changed: 250, resent: 150 };
const NAME = 'ebenchbuild';
const here = fileURLToPath(new URL('.', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'estiba-bench-build-'));
// Both daemons' run roots are where they are on a host, on a file system in memory.
const TMPFS_MAGIC = 0x01021994;
const memory = ['/run', '/dev/shm'].find((path) => existsSync(path) && statfsSync(path).type === TMPFS_MAGIC);
const volatile = mkdtempSync(join(memory ?? tmpdir(), 'estiba-bench-build-'));
const estiba = join(here, '../bin/estiba');
const context = join(dir, 'context');
const missed = [];
const children = [];
atEnd(cleanUp);

const TEN_STEPS = `FROM busybox
WORKDIR /app
COPY package.txt ./
RUN mkdir deps && for i in 1 2 3 4 5; do cp package.txt deps/$i; done
RUN echo configured > /etc/app.conf
COPY src/ src/
RUN cat src/*.txt > all.txt && wc -c all.txt
RUN adduser 2>/dev/null; echo "app:x:900:900::/app:/bin/sh" >> /etc/passwd
ENV MODE=production
CMD ["cat", "/app/all.txt"]
`;
const TWO_STAGES = `FROM busybox AS a
ARG ROUND
RUN sleep 1; echo $ROUND > /a
FROM busybox AS b
ARG ROUND
RUN sleep 1; echo $ROUND > /b
FROM busybox
COPY --from=a /a /
COPY --from=b /b /
`;

try {
  makeContext();
  const ours = await startOurs();
  const docker = ALONE ? undefined : await startDocker();
  await api(ours, { nocache: 1 }); // warm
  if (docker) await api(docker, { nocache: 1 });
  const tools = ALONE ? {} : commandLines();

  await compare(
    'cold',
    (socket) => api(socket, { nocache: 1 }),
    (tool) => tool('--no-cache', '--layers'),
    { ours, docker, tools },
  );
  await api(ours, {});
  if (docker) await api(docker, {});
  await compare(
    'cached',
    (socket) => api(socket, {}),
    (tool) => tool('--layers'),
    { ours, docker, tools },
  );
  await compare(
    'changed',
    (socket) => {
      writeFileSync(join(context, 'src/1.txt'), `${Math.random()}\n`);
      return api(socket, {});
    },
    (tool) => {
      writeFileSync(join(context, 'src/1.txt'), `${Math.random()}\n`);
      return tool('--layers');
    },
    { ours, docker, tools },
  );
  await resent(ours, docker);
  await stages(ours);
} finally {
  for (const child of children.reverse()) await ended(child);
}
process.stdout.write(missed.length === 0 ? 'all goals met\n' : `missed: ${missed.join(', ')}\n`);
process.exitCode = missed.length === 0 ? 0 : 1;

async function compare(what, byApi, byTool, { ours, docker, tools }) {
  const mine = await rounds(() => byApi(ours));
  const others = [];
  if (docker) others.push(`docker ${await rounds(() => byApi(docker))}`);
  for (const [name, tool] of Object.entries(tools)) others.push(`${name} ${await rounds(() => byTool(tool))}`);
  tell(what, mine, others);
}

/** 1 000 files of 100 KB; the command line and its cache of hashes, from its start to the image. */
async function resent(ours, docker) {
  const big = join(dir, 'big');
  mkdirSync(big);
  const bytes = Buffer.alloc(100_000, 'x');
  for (let i = 0; i < 1000; i++) {
    bytes.writeUInt32BE(i, 0);
    writeFileSync(join(big, `${i}`), bytes);
  }
  writeFileSync(join(big, 'Dockerfile'), 'FROM scratch\nCOPY 7 /\n');
  const env = { ...process.env, DOCKER_HOST: `unix://${ours}`, XDG_CACHE_HOME: join(dir, 'cache') };
  const build = () => execFileSync(estiba, ['build', '-q', big], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  build();
  await sleep(2100); // files younger than the clock's grain are hashed again: a later build is what counts
  build();
  const change = (run) => () => {
    bytes.writeUInt32BE(Math.floor(Math.random() * 2 ** 32), 0);
    writeFileSync(join(big, '7'), bytes);
    return run();
  };
  const mine = await rounds(change(build));
  const theirs = docker
    ? [
        `docker ${await rounds(
          change(() =>
            execFileSync('docker', ['build', '-q', big], {
              env: { ...process.env, DOCKER_HOST: `unix://${docker}`, DOCKER_BUILDKIT: '0' },
              stdio: 'ignore',
            }),
          ),
        )}`,
      ]
    : [];
  tell('resent', mine, theirs);
}

async function stages(ours) {
  let round = 0;
  const ms = await rounds(() =>
    api(ours, { dockerfile: 'Stages', buildargs: JSON.stringify({ ROUND: String(round++) }) }),
  );
  tell('two stages of 1 s', ms, [], 1800);
}

function tell(what, ms, others, goal = GOALS[what]) {
  if (ms > goal) missed.push(what);
  process.stdout.write(`${what.padEnd(18)} ${String(ms).padStart(5)} ms   goal ${goal}   ${others.join('   ')}\n`);
}

async function rounds(run) {
  const times = [];
  for (let i = 0; i < ROUNDS; i++) {
    await breathe();
    const startedAt = performance.now();
    await run();
    times.push(performance.now() - startedAt);
    await sleep(50);
  }
  return Math.round(times.sort((a, b) => a - b)[Math.floor(times.length / 2)]);
}

function makeContext() {
  mkdirSync(join(context, 'src'), { recursive: true });
  writeFileSync(join(context, 'Dockerfile'), TEN_STEPS);
  writeFileSync(join(context, 'Stages'), TWO_STAGES);
  writeFileSync(join(context, 'package.txt'), 'one two three\n');
  for (let i = 0; i < 20; i++) writeFileSync(join(context, `src/${i}.txt`), `${i}\n`.repeat(1000));
}

function api(socketPath, query) {
  const tar = execFileSync('tar', ['-C', context, '-c', '.'], { maxBuffer: 1 << 30 });
  const path = `/v1.41/build?${new URLSearchParams({ t: 'bench', networkmode: 'none', rm: '1', ...query })}`;
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath, path, method: 'POST', headers: { 'Content-Type': 'application/x-tar' } },
      (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () =>
          text.includes('"error"') || response.statusCode !== 200 ? reject(new Error(text.slice(-500))) : resolve(),
        );
      },
    );
    call.on('error', reject);
    call.end(tar);
  });
}

async function startOurs() {
  const run = join(volatile, 'run');
  const roots = ['--data-root', join(dir, 'data'), '--run-root', run];
  children.push(
    spawn(estiba, ['daemon', '--only', 'engine', '--name', NAME, ...roots], { stdio: ['ignore', 'ignore', 'ignore'] }),
  );
  await until(() => existsSync(join(run, 'endpoints.json')));
  return join(run, 'docker.sock');
}

/** Undefined, and said, when it is not installed. */
async function startDocker() {
  const socket = join(dir, 'docker.sock');
  const config = join(dir, 'dockerd.json');
  writeFileSync(config, '{}');
  const args = [
    '--config-file',
    config,
    '--data-root',
    join(dir, 'dd'),
    '--exec-root',
    join(volatile, 'de'),
    '-H',
    `unix://${socket}`,
  ];
  const off = ['--bridge', 'none', '--iptables=false', '--ip6tables=false', '--pidfile', join(dir, 'dockerd.pid')];
  const child = spawn('dockerd', [...args, ...off], { stdio: 'ignore' });
  child.on('error', () => process.stdout.write('docker: not installed\n'));
  children.push(child);
  await until(() => existsSync(socket) || child.exitCode !== null);
  if (!existsSync(socket)) {
    process.stdout.write('docker: does not start\n');
    return undefined;
  }
  const env = { ...process.env, DOCKER_HOST: `unix://${socket}` };
  const import_ = spawn('docker', ['import', '-', 'busybox'], { env, stdio: ['pipe', 'ignore', 'inherit'] });
  import_.stdin.end(busyboxTar());
  await new Promise((done) => import_.on('exit', done));
  return socket;
}

function commandLines() {
  const tools = {};
  const archive = join(dir, 'busybox.tar');
  writeFileSync(archive, busyboxTar());
  for (const [name, extra] of [
    ['buildah', ['--isolation', 'chroot']],
    ['podman', ['--isolation', 'chroot']],
  ]) {
    const storage = ['--root', join(dir, name), '--runroot', join(dir, `${name}-run`), '--storage-driver', 'overlay'];
    try {
      if (name === 'podman') execFileSync(name, [...storage, 'import', '-q', archive, 'busybox'], { stdio: 'ignore' });
      else {
        const container = execFileSync(name, [...storage, 'from', 'scratch'], { encoding: 'utf8' }).trim();
        execFileSync(name, [...storage, 'add', '-q', container, archive, '/'], { stdio: 'ignore' });
        execFileSync(name, [...storage, 'commit', '-q', '--rm', container, 'localhost/busybox'], { stdio: 'ignore' });
      }
      tools[name] = (...flags) => {
        const args = [...storage, 'build', '-q', ...extra, '--pull-never', ...flags, '-t', 'bench', context];
        execFileSync(name, name === 'podman' ? args.map((a) => (a === '--pull-never' ? '--pull=never' : a)) : args, {
          stdio: 'ignore',
        });
      };
      tools[name]('--layers');
    } catch (error) {
      delete tools[name];
      process.stdout.write(`${name}: ${String(error.message).split('\n')[0]}\n`);
    }
  }
  return tools;
}

function busyboxTar() {
  const root = join(dir, 'busybox');
  if (!existsSync(root)) {
    for (const sub of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev']) mkdirSync(join(root, sub), { recursive: true });
    execFileSync('cp', ['/bin/busybox', join(root, 'bin/busybox')]);
    for (const applet of ['sh', 'cat', 'cp', 'mkdir', 'echo', 'wc', 'sleep', 'adduser'])
      execFileSync('ln', ['-s', 'busybox', join(root, 'bin', applet)]);
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\n');
  }
  return execFileSync('tar', ['-C', root, '--owner=0', '--group=0', '-c', '.'], { maxBuffer: 1 << 28 });
}

async function until(check) {
  for (let i = 0; i < 600 && !check(); i++) await sleep(50);
}

async function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const done = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await done;
}

function cleanUp() {
  takeBack({ dirs: [dir, volatile], cgroups: new RegExp(`^${NAME}$`) });
  // Fail where the daemon took them back itself, or never came to make them.
  spawnSync('ip', ['link', 'delete', `${NAME}0`], { stdio: 'ignore' });
  spawnSync('nft', ['delete', 'table', 'inet', NAME], { stdio: 'ignore' });
}
