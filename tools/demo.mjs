/**
 * `make demo`: two applications that companies run, from Dockerfiles, a compose file and Kubernetes manifests to answering sites.
 *
 *     packages → build Estiba → daemon → debian ─┬─ estiba up examples/wordpress ───────────────┬─ a page in each → addresses
 *                                                └─ estiba build ×2, estiba up …/manifests ─────┘
 *
 * The daemon stays (`make demo-clean` takes all away), and a second run takes seconds. Ends with non-zero when a step fails.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { endpoints, ensureDaemon } from './demo/daemon.mjs';
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

try {
  await progress.step('Debian packages', WEIGHTS.packages, (say) => must('tools/setup.sh', ['base', 'demo'], say));
  await progress.step('Estiba itself', WEIGHTS.build, (say) => build(say));
  await progress.step('the daemon', WEIGHTS.daemon, ensureDaemon);
  await progress.step('secrets', WEIGHTS.secrets, makeSecrets);
  await progress.step('debian:bookworm', WEIGHTS.debian, ensureDebian);
  await bothOrNone(bringUpWordpress(), bringUpWiki());
  await progress.step('pages, written and read back', WEIGHTS.pages, writePages);
  progress.end();
  await tell();
} catch (error) {
  progress.end();
  process.stderr.write(`\nmake demo failed: ${error.message}\n${hintFor(error.message)}\n`);
  process.exit(1);
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
  if (failed.length > 0) throw new Error(failed.map(({ reason }) => reason.message).join('\n\n'));
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

function hintFor(message) {
  if (
    /Temporary failure resolving|Could not connect|Failed to fetch|Connection timed out|mmdebstrap|E: Unable/.test(
      message,
    )
  )
    return 'A Debian package mirror did not answer. The mirrors are those of /etc/apt/sources.list; `apt-get update` shows whether they do.';
  if (/npm/.test(message)) return 'npm did not get its packages; `npm config get registry` shows where from.';
  if (/EADDRINUSE|in use|listens on/.test(message)) return 'Ports 8080, 8081 and 8443 of 127.0.0.1 must be free.';
  return `Run it again: what is done stays done. The daemon's log is ${DAEMON_LOG}.`;
}
