import { execFile, spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * Where the demo lives. A daemon of its own beside any other: own roots, own name (which names its bridge, nftables tables and
 * cgroup), own ports on 127.0.0.1.
 *
 *     /var/lib/estiba-demo/data         what the daemon keeps       /run/estiba-demo    sockets, what a reboot takes
 *     /var/lib/estiba-demo/daemon.log   what it says
 *     /var/lib/estiba-demo/pages.json   the pages the demo wrote, to be read back
 */
export const TREE = resolve(import.meta.dirname, '../..');
/** Another name is another daemon: `ESTIBA_DEMO_NAME=tour node tools/demo/clean.mjs` cleans away that of the README. */
export const NAME = process.env.ESTIBA_DEMO_NAME ?? 'demo';
export const ROOT = `/var/lib/estiba-${NAME}`;
export const RUN_ROOT = `/run/estiba-${NAME}`;
export const ESTIBA = `${TREE}/bin/estiba`;
export const DAEMON_LOG = `${ROOT}/daemon.log`;
export const PAGES = `${ROOT}/pages.json`;
export const KUBECONFIG = `${RUN_ROOT}/kubeconfig`;

/** Not the default ranges and ports: another Estiba, a Docker or a web server may be on this machine. */
export const DAEMON_FLAGS = [
  ...['--data-root', `${ROOT}/data`, '--run-root', RUN_ROOT, '--name', NAME],
  ...['--kube', '127.0.0.1:0', '--registry', '127.0.0.1:0', '--ingress', '127.0.0.1:8080,8443'],
  ...['--ui', '127.0.0.1:8444'],
  ...['--service-cidr', '10.93.0.0/16'],
];

export const WORDPRESS = { app: 'wordpress', path: `${TREE}/examples/wordpress`, namespace: 'wordpress' };
export const MEDIAWIKI = {
  app: 'manifests',
  path: `${TREE}/examples/mediawiki/manifests`,
  namespace: 'wiki',
  images: [
    { tag: 'example/postgresql:1', context: `${TREE}/examples/mediawiki/postgresql` },
    { tag: 'example/mediawiki:1', context: `${TREE}/examples/mediawiki/web` },
  ],
};

export class Failed extends Error {}

/** The words of a program, for what asks for an answer. Throws with the end of what it said when it fails. */
export function ask(program, args, { env = {}, timeoutMs = 120_000 } = {}) {
  return new Promise((done, failed) => {
    const options = { env: environment(env), maxBuffer: 64 << 20, timeout: timeoutMs };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (!error) return done(stdout);
      failed(new Failed(`${[program, ...args].join(' ')}: ${lastWords(`${stdout}\n${stderr}`) || error.message}`));
    });
  });
}

/** Runs a program that talks while it works; `hear` gets each line. Resolves with its exit code and the end of its words. */
export async function watch(program, args, hear, { env = {}, cwd = TREE } = {}) {
  const child = spawn(program, args, { cwd, env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] });
  const tail = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => {
      tail.push(line);
      if (tail.length > 40) tail.shift();
      hear(line);
    });
  const code = await new Promise((done, failed) => child.once('error', failed).once('close', done));
  return { code, tail };
}

/** As `watch`; a failure is thrown with the end of what was said. */
export async function must(program, args, hear, options) {
  const { code, tail } = await watch(program, args, hear, options);
  if (code !== 0) throw new Failed(lastWords(tail.join('\n'), 15) || `${program} ended with ${code}`);
  return tail;
}

function environment(more) {
  return {
    ...process.env,
    ESTIBA_RUN_ROOT: RUN_ROOT,
    DOCKER_HOST: `unix://${RUN_ROOT}/docker.sock`,
    KUBECONFIG,
    ...more,
  };
}

function lastWords(text, lines = 6) {
  return text.trim().split('\n').slice(-lines).join('\n');
}

/** Calls `look` until it answers something other than undefined or false; what it throws is what is told when the time is over. */
export async function until(what, timeoutMs, look, everyMs = 200) {
  const endMs = performance.now() + timeoutMs;
  let why = '';
  for (;;) {
    try {
      const found = await look();
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      why = `: ${error.message}`;
    }
    if (performance.now() > endMs) throw new Failed(`${what}: not within ${Math.round(timeoutMs / 1000)} s${why}`);
    await new Promise((done) => setTimeout(done, everyMs));
  }
}
