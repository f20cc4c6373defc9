/**
 * `make demo-clean`: what `make demo` brought goes, and what is left on the host is looked for and shown: nothing.
 *
 *     apps down → containers away → daemon, edge, helpers end → mounts → links, tables, cgroups → directories → the audit
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { daemonPid, ensureDaemon, processesWith, stopDaemon } from './daemon.mjs';
import { ask, ESTIBA, MEDIAWIKI, NAME, ROOT, RUN_ROOT, TREE, until, WORDPRESS } from './place.mjs';

const SECRETS = [`${TREE}/examples/wordpress/secrets`, `${TREE}/examples/mediawiki/manifests/secrets`];
const say = (text) => process.stdout.write(`${text}\n`);

if (existsSync(ROOT) && existsSync(ESTIBA)) await takeDown();
await endProcesses();
await unmountAll();
await removeLinks();
await removeTables();
await removeCgroups();
for (const path of [ROOT, RUN_ROOT, ...SECRETS]) await rm(path, { recursive: true, force: true });
process.exitCode = await audit();

/** By the daemon itself, as a user would; what it cannot do any more is done below. */
async function takeDown() {
  try {
    if ((await daemonPid()) === undefined) await ensureDaemon(() => {});
    for (const { app } of [WORDPRESS, MEDIAWIKI]) {
      const { length } = (await ask(ESTIBA, ['app', 'ls'])).split('\n').filter((line) => line.startsWith(`${app} `));
      if (length > 0) say((await ask(ESTIBA, ['down', '--volumes', app])).trim());
    }
    const ids = (await ask(ESTIBA, ['ps', '--all', '--quiet'])).split('\n').filter((id) => id !== '');
    if (ids.length > 0) await ask(ESTIBA, ['rm', '--force', '--volumes', ...ids]);
    await stopDaemon();
  } catch (error) {
    say(`the daemon could not do it all (${error.message}); the rest goes by hand`);
  }
}

/** The daemon if it still runs, the edge process, shims, spawners and network helpers: all that name this run root. */
async function endProcesses() {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    const pids = await ours();
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if (error.code !== 'ESRCH') throw error;
      }
    }
    if (pids.length === 0) return;
    await until('the end of the demo’s processes', 5_000, async () => (await ours()).length === 0, 50).catch(() => {});
  }
}

async function ours() {
  const byRunRoot = await processesWith('--run-root', RUN_ROOT);
  const bySocket = await processesWith('spawner', `${RUN_ROOT}/spawner.sock`);
  return [...new Set([...byRunRoot, ...bySocket, ...(await inCgroup())])];
}

/** Whoever lives in the daemon's cgroups: containers. */
async function inCgroup() {
  const pids = [];
  for (const directory of await cgroups())
    for (const line of (await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => '')).split('\n'))
      if (line !== '') pids.push(Number(line));
  return pids;
}

/** `/sys/fs/cgroup[/CONTROLLER]/demo` and all below, the deepest first. */
async function cgroups() {
  const tops = ['/sys/fs/cgroup', ...(await readdir('/sys/fs/cgroup')).map((name) => `/sys/fs/cgroup/${name}`)];
  const found = [];
  for (const top of tops) {
    const root = join(top, NAME);
    if (!existsSync(root)) continue;
    const below = await readdir(root, { recursive: true, withFileTypes: true });
    found.push(root, ...below.filter((e) => e.isDirectory()).map((e) => join(e.parentPath ?? e.path, e.name)));
  }
  return found.sort((a, b) => b.length - a.length);
}

async function removeCgroups() {
  for (const directory of await cgroups())
    await until(`empty ${directory}`, 5_000, () => rmdir(directory).then(() => true), 50).catch((e) => say(e.message));
}

async function mounts() {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const points = lines.map((line) => line.split(' ')[4]?.replaceAll('\\040', ' ') ?? '');
  return points.filter((point) => [ROOT, RUN_ROOT].some((root) => point === root || point.startsWith(`${root}/`)));
}

/** The last mounted goes first. */
async function unmountAll() {
  for (const point of (await mounts()).reverse()) await ask('umount', ['--lazy', point]).catch((e) => say(e.message));
}

async function links() {
  return (await readdir('/sys/class/net')).filter((name) => name === `${NAME}0` || name.startsWith(`${NAME}-`));
}

async function removeLinks() {
  for (const name of await links()) await ask('ip', ['link', 'delete', name]).catch((e) => say(e.message));
}

async function tables() {
  const lines = (await ask('nft', ['list', 'tables'])).split('\n');
  return lines
    .map((line) => line.replace('table ', ''))
    .filter((table) => [NAME, `${NAME}-services`].includes(table.split(' ')[1]));
}

async function removeTables() {
  for (const table of await tables()) await ask('nft', ['delete', 'table', ...table.split(' ')]);
}

async function audit() {
  const left = {
    processes: await ours(),
    mounts: await mounts(),
    links: await links(),
    'nftables tables': await tables(),
    cgroups: await cgroups(),
    directories: [ROOT, RUN_ROOT].filter((path) => existsSync(path)),
  };
  say('left of the demo on this host:');
  for (const [what, found] of Object.entries(left))
    say(`  ${what.padEnd(16)} ${found.length === 0 ? 'none' : found.join(', ')}`);
  return Object.values(left).every((found) => found.length === 0) ? 0 : 1;
}
