/**
 * `make demo-blows`: what runs is killed, filled, updated wrongly, scaled under load and taken from under its feet; after each blow
 * both sites must show the pages that the demo wrote. Ends with non-zero when one does not hold. `node tools/blows.mjs WORD…` does
 * those whose name has one of the words.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { daemonPid, ensureDaemon, startDaemon, stopDaemon } from './demo/daemon.mjs';
import { takeVolatile } from './demo/host.mjs';
import { ask, ESTIBA, Failed, MEDIAWIKI, PAGES, RUN_ROOT, until, watch } from './demo/place.mjs';
import { get, mediawiki, readBack, wordpress } from './demo/sites.mjs';

const COME_BACK_MS = 120_000;
const CLIENTS = 4;

const BLOWS = {
  'kill -9 of every container': killContainers,
  'kill -9 of the daemon': killDaemon,
  'a failed health check': failHealth,
  'a full volume': fillVolume,
  'a wrong new version': wrongVersion,
  'scale to 5 and back under load': scaleUnderLoad,
  'a reboot': reboot,
};

const words = process.argv.slice(2);
const pages = await readFile(PAGES, 'utf8').then(JSON.parse, () => undefined); // none: `make demo` was not run
if (!pages || (await daemonPid()) === undefined) {
  process.stderr.write('the demo does not run: make demo\n');
  process.exit(1);
}
await bothPages('before any blow').catch(({ message }) => {
  process.stderr.write(`the demo does not show what it wrote: ${message}\nmake demo mends or explains it\n`);
  process.exit(1);
});
let failures = 0;
for (const [name, blow] of Object.entries(BLOWS)) {
  if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
  const startMs = performance.now();
  const seconds = () => `${((performance.now() - startMs) / 1000).toFixed(1)} s`.padStart(8);
  try {
    const note = await blow();
    await bothPages(name);
    process.stdout.write(`held  ${seconds()}  ${name}: ${note}; both pages read back\n`);
  } catch (error) {
    failures++;
    process.stdout.write(`BROKE ${seconds()}  ${name}: ${error.message}\n`);
  }
}
process.exitCode = failures === 0 ? 0 : 1;

/** What the demo wrote is there, for a visitor. */
async function bothPages(after, withinMs = COME_BACK_MS) {
  for (const [site, page] of [
    [wordpress, pages.wordpress],
    [mediawiki, pages.mediawiki],
  ])
    await until(`${site.title} ${after}`, withinMs, () => readBack(site, page).then(() => true));
}

/** Id and process of each running container of the demo. */
async function containers() {
  const ids = (await ask(ESTIBA, ['ps', '--quiet', '--no-trunc'])).split('\n').filter((id) => id !== '');
  if (ids.length === 0) return [];
  const all = JSON.parse(await ask(ESTIBA, ['inspect', ...ids]));
  return all.map(({ Id, Name, State }) => ({ id: Id, name: Name.replace(/^\//, ''), pid: State.Pid }));
}

async function killContainers() {
  const before = await containers();
  for (const { id, name, pid } of before) {
    process.kill(pid, 'SIGKILL');
    // k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT: the next attempt of the same container takes its place.
    const place = name.replace(/_\d+$/, '_');
    await until(`another ${place}`, COME_BACK_MS, async () =>
      (await containers()).some((c) => c.id !== id && c.name.startsWith(place)),
    );
    await bothPages(`after ${place}`);
  }
  return `${before.length} containers, one after the other, each replaced`;
}

async function killDaemon() {
  const before = (await containers()).map(({ id }) => id).sort();
  await stopDaemon('SIGKILL');
  await bothPages('without a daemon', 1_000);
  await startDaemon();
  const after = (await containers()).map(({ id }) => id).sort();
  if (before.join() !== after.join()) throw new Failed('not the same containers run after it');
  return 'sites answered without it, and the same containers run with the next';
}

async function failHealth() {
  const web = (await containers()).find(({ name }) => name.startsWith('k8s_main_web-0'));
  if (!web) throw new Failed('web-0 does not run');
  // The check is a command in the container: without curl it fails. (A missing page does not: WordPress leads elsewhere.)
  await ask(ESTIBA, ['exec', web.id, 'mv', '/usr/bin/curl', '/usr/bin/gone']);
  await until('a restart of web-0', 2 * COME_BACK_MS, async () =>
    (await containers()).some((c) => c.id !== web.id && c.name.startsWith('k8s_main_web-0')),
  );
  await until('its health', COME_BACK_MS, () => wordpress.login().then(() => true));
  return 'the container that failed it was replaced';
}

/** A volume of one MiB that gets two: the writer is told, nobody else notices. */
async function fillVolume() {
  const size = ['--opt', 'type=tmpfs', '--opt', 'device=tmpfs', '--opt', 'o=size=1m'];
  await ask(ESTIBA, ['volume', 'create', ...size, 'blow-full']);
  const command =
    'dd if=/dev/zero of=/data/fill bs=1M count=2 2>&1; rm /data/fill; echo again > /data/small && cat /data/small';
  const { code, tail } = await watch(
    ESTIBA,
    ['run', '--rm', '--volume', 'blow-full:/data', 'debian:bookworm', 'sh', '-c', command],
    () => {},
  );
  await ask(ESTIBA, ['volume', 'rm', 'blow-full']);
  const said = tail.join(' ');
  if (code !== 0 || !said.includes('No space left on device') || !said.endsWith('again')) throw new Failed(said);
  return 'its writer was told “No space left on device”, and could write again after';
}

async function wrongVersion() {
  return withManifests(
    (wiki) => wiki.replace(/(name: web\n\s+image: )example\/mediawiki:1/, '$1example/mediawiki:not-there'),
    async (path) => {
      const { answer, served } = await underLoad(() =>
        watch(ESTIBA, ['up', '--undo-on-failure', '--timeout', '30s', path], () => {}),
      );
      const said = answer.tail.join('\n');
      if (answer.code === 0) throw new Failed('estiba up did not notice');
      if (!said.includes('example/mediawiki:not-there')) throw new Failed(`the reason is not named:\n${said}`);
      if (!said.includes('is as it was before')) throw new Failed(`it was not undone:\n${said}`);
      return `named, undone, and ${served} requests answered meanwhile, none failed`;
    },
  );
}

async function scaleUnderLoad() {
  const up = async (path) => {
    const { code, tail } = await watch(ESTIBA, ['up', path], () => {});
    if (code !== 0) throw new Failed(tail.slice(-6).join('\n'));
  };
  const { served } = await underLoad(async () => {
    await withManifests(
      (wiki) => wiki.replace('replicas: 2', 'replicas: 5').replace('minReplicas: 2', 'minReplicas: 5'),
      up,
    );
    await up(MEDIAWIKI.path);
  });
  return `${served} requests, none failed`;
}

async function reboot() {
  await stopDaemon('SIGKILL');
  await takeVolatile();
  await rm(RUN_ROOT, { recursive: true, force: true });
  await ensureDaemon(() => {});
  return 'all processes, mounts, links, tables, cgroups and the run root were gone';
}

/** Clients read the wiki's page one after the other while `work` goes on; one answer that is not the page is a failure. */
async function underLoad(work) {
  let done = false;
  let served = 0;
  const failed = [];
  const clients = Array.from({ length: CLIENTS }, async () => {
    while (!done) {
      try {
        const { status, text } = await get(mediawiki.url + pages.mediawiki.path);
        if (status !== 200 || !text.includes(pages.mediawiki.text)) failed.push(`status ${status}`);
        else served++;
      } catch (error) {
        failed.push(error.message);
      }
    }
  });
  const answer = await work().finally(() => {
    done = true;
  });
  await Promise.all(clients);
  if (failed.length > 0)
    throw new Failed(`${failed.length} of ${served + failed.length} requests failed: ${failed[0]}`);
  return { answer, served };
}

/** A copy of the wiki's manifests in which `wiki.yaml` is another, in a folder of the same name: the same app. */
async function withManifests(change, work) {
  const directory = await mkdtemp(join(tmpdir(), 'estiba-blows-'));
  try {
    const path = join(directory, 'manifests');
    await cp(MEDIAWIKI.path, path, { recursive: true });
    const before = await readFile(join(path, 'wiki.yaml'), 'utf8');
    const after = change(before);
    if (after === before) throw new Failed('wiki.yaml is not as this blow expects it');
    await writeFile(join(path, 'wiki.yaml'), after);
    return await work(path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
