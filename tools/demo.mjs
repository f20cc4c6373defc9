/**
 * `make demo`: two applications that companies run, from Dockerfiles, a compose file and Kubernetes manifests to answering sites.
 *
 *     packages → build Estiba → daemon → debian ─┬─ estiba up examples/wordpress ───────────────┬─ a page in each → addresses
 *                                                └─ estiba build ×2, estiba up …/manifests ─────┘
 *
 * The daemon stays (`make demo-clean` takes all away), and a second run takes seconds. Ends with non-zero when a step fails.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { daemonPid, endpoints, ensureDaemon, stopDaemon } from './demo/daemon.mjs';
import { explain } from './demo/failed.mjs';
import { takeVolatile } from './demo/host.mjs';
import {
  ask,
  DAEMON_LOG,
  ESTIBA,
  MEDIAWIKI,
  must,
  PAGES,
  ROOT,
  RUN_ROOT,
  TREE,
  until,
  WORDPRESS,
} from './demo/place.mjs';
import { Progress } from './demo/progress.mjs';
import { mediawiki, readBack, wordpress } from './demo/sites.mjs';

const ANSWER_MS = 60_000;

if (process.getuid?.() !== 0) {
  process.stderr.write('make demo needs root: it makes namespaces, mounts and cgroups\n');
  process.exit(1);
}

/** Each step with about how many seconds it takes the first time. */
const WEIGHTS = {
  packages: 10,
  build: 20,
  daemon: 3,
  secrets: 1,
  debian: 35,
  wordpress: 90,
  images: 90,
  wiki: 20,
  pages: 5,
};
const progress = new Progress(Object.values(WEIGHTS));
/** Whether this run started the daemon, which then ends with it when it comes to nothing. */
let isOurDaemon = false;

try {
  await progress.step('Debian packages', WEIGHTS.packages, (say) => must('tools/setup.sh', ['base', 'demo'], say));
  await progress.step('Estiba itself', WEIGHTS.build, (say) => build(say));
  await progress.step('the daemon', WEIGHTS.daemon, async (say) => {
    isOurDaemon = (await daemonPid()) === undefined;
    return ensureDaemon(say);
  });
  await progress.step('secrets', WEIGHTS.secrets, makeSecrets);
  await progress.step('debian:bookworm', WEIGHTS.debian, ensureDebian);
  await bothOrNone(bringUpWordpress(), bringUpWiki());
  await progress.step('pages, written and read back', WEIGHTS.pages, writePages);
  progress.end();
  await tell();
} catch (error) {
  progress.end();
  const [left, host] = [await leave(), await setUp()];
  process.stderr.write(
    `\n${explain({ message: error.message, step: error.step ?? 'the end', host, left, log: DAEMON_LOG })}`,
  );
  process.exit(1);
}

/** A daemon that this run started, and that runs nothing, ends again with all that a reboot would take. */
async function leave() {
  const kept = 'what was fetched and built stays for the next run; `make demo-clean` takes that away, too';
  try {
    const works = (await daemonPid()) !== undefined && (await ask(ESTIBA, ['ps', '--quiet'])).trim() !== '';
    if (works) return `the daemon goes on, with what came up; ${kept}`;
    if (!isOurDaemon) return `nothing of this run; ${kept}`;
    await stopDaemon();
    await takeVolatile();
    await rm(RUN_ROOT, { recursive: true, force: true });
    return `nothing runs; ${kept}`;
  } catch (error) {
    return `perhaps more than there should be (${error.message}): \`make demo-clean\` takes it away`;
  }
}

/** Whom this machine asks for packages. */
async function setUp() {
  const [sites, npmRegistry] = await Promise.all([
    ask('apt-get', ['indextargets', '--format', '$(SITE)', 'Created-By: Packages']).catch(() => ''),
    ask('npm', ['config', 'get', 'registry']).catch(() => ''),
  ]);
  return {
    mirrors: [...new Set(sites.split('\n').filter((site) => site !== ''))],
    npmRegistry: npmRegistry.trim().split('\n').at(-1),
  };
}

async function build(say) {
  const [sources, built] = await Promise.all([
    newestMs(['src', 'native', 'package.json', 'tools/build.mjs']),
    builtMs(),
  ]);
  if (sources < built) return 'was built';
  await must('make', ['--silent', 'build'], say);
  return undefined;
}

async function builtMs() {
  return stat(`${TREE}/dist/daemon.run.cjs`)
    .then(({ mtimeMs }) => mtimeMs)
    .catch(() => 0);
}

/** When something there changed last; what is built there does not count. */
async function newestMs(names) {
  const entries = await Promise.all(
    names.map((name) => readdir(`${TREE}/${name}`, { recursive: true }).catch(() => [])),
  );
  const paths = names.flatMap((name, i) => [name, ...(entries[i] ?? []).map((below) => `${name}/${below}`)]);
  const files = paths.filter((path) => /\.(ts|mjs|c|h|json)$|Makefile$/.test(path) && !path.includes('/build/'));
  return Math.max(...(await Promise.all(files.map(async (path) => (await stat(`${TREE}/${path}`)).mtimeMs))));
}

async function makeSecrets() {
  await ask('sh', [`${TREE}/examples/wordpress/secrets.sh`]);
  await ask('sh', [`${TREE}/examples/mediawiki/secrets.sh`]);
}

/** From a registry, or made here with mmdebstrap from this machine's own package mirror. */
async function ensureDebian(say) {
  const present = await ask(ESTIBA, ['images', '--quiet', 'debian:bookworm']);
  if (present.trim() !== '') return 'was there';
  await must(ESTIBA, ['pull', 'debian:bookworm'], say);
}

async function bringUpWordpress() {
  await progress.step('estiba up examples/wordpress', WEIGHTS.wordpress, (say) =>
    must(ESTIBA, ['up', WORDPRESS.path], briefly(say)),
  );
}

async function bringUpWiki() {
  await progress.step('estiba build: PostgreSQL, MediaWiki', WEIGHTS.images, async (say) => {
    for (const { tag, context } of MEDIAWIKI.images)
      await must(ESTIBA, ['build', '--progress', 'plain', '--tag', tag, context], briefly(say));
  });
  await progress.step('estiba up examples/mediawiki/manifests', WEIGHTS.wiki, (say) =>
    must(ESTIBA, ['up', MEDIAWIKI.path], briefly(say)),
  );
}

/** Both are let come to their end, so that what one left does not race with what is said of the other. */
async function bothOrNone(...works) {
  const failed = (await Promise.allSettled(works)).filter(({ status }) => status === 'rejected');
  if (failed.length === 0) return;
  const [message, step] = ['message', 'step'].map((word) => failed.map(({ reason }) => reason[word]));
  throw Object.assign(new Error(message.join('\n\n')), { step: step.join(' and ') });
}

/** `#1 97.2s Unpacking …` without its number. */
function briefly(say) {
  return (line) => {
    const text = line.replace(/^#\d+ (\d+\.\d+s )?/, '').trim();
    if (text !== '') say(text.slice(0, 70));
  };
}

async function writePages() {
  const known = existsSync(PAGES) ? JSON.parse(await readFile(PAGES, 'utf8')) : {};
  for (const [name, site] of Object.entries({ wordpress, mediawiki })) {
    await until(`${site.title} at ${site.url}`, ANSWER_MS, async () => {
      await site.login();
      return true;
    });
    if (known[name] && (await isReadable(site, known[name]))) continue;
    const text = `Written by make demo at ${new Date().toISOString()}`;
    known[name] = { path: await site.write('Hello from Estiba', text), text };
    await readBack(site, known[name]);
    await writeFile(PAGES, `${JSON.stringify(known)}\n`);
  }
}

/** Of an earlier run; gone when that demo was cleaned away. */
async function isReadable(site, page) {
  try {
    await readBack(site, page);
    return true;
  } catch {
    return false;
  }
}

async function tell() {
  const pages = JSON.parse(await readFile(PAGES, 'utf8'));
  const [disk] = (await ask('du', ['-sh', ROOT])).split('\t');
  const { docker, kube, registry, ui } = await endpoints();
  const site = (s, page) =>
    `  ${s.title}\n    page      ${s.url}${page.path}\n    login     ${s.url}${s.loginPath}\n` +
    `    user      ${s.user}, password in ${s.passwordFile.replace(`${TREE}/`, '')}\n`;
  const times = progress.times.map(([name, s, note]) => `  ${name.padEnd(42)} ${s.toFixed(1).padStart(6)} s  ${note}`);
  process.stdout.write(`
Both sites answer.

${site(wordpress, pages.wordpress)}
${site(mediawiki, pages.mediawiki)}    its certificate is signed by ${RUN_ROOT}/ingress-ca.crt

What took how long (both applications were brought up side by side)
${times.join('\n')}
  ${'in all'.padEnd(42)} ${progress.seconds.toFixed(1).padStart(6)} s
  disk used: ${disk.trim()} in ${ROOT}

The daemon goes on; its log is ${DAEMON_LOG}
  export ESTIBA_RUN_ROOT=${RUN_ROOT} KUBECONFIG=${RUN_ROOT}/kubeconfig DOCKER_HOST=${docker}
  bin/estiba app ls; docker ps; kubectl get pods -A      API ${kube}, registry ${registry}${ui === undefined ? '' : `\n  bin/estiba ui                                          a link to log in to the dashboard at ${ui}`}
  make demo-blows     kills, floods and breaks what runs, and reads both pages back after each blow
  make demo-clean     stops everything and removes it, and shows that nothing is left
`);
}
