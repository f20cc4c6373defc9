import { existsSync } from 'node:fs';
import { readdir, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { processesWith } from './daemon.mjs';
import { ask, NAME, ROOT, RUN_ROOT, until } from './place.mjs';

/** What the demo has on this host, found without its daemon: by run root, by name, by cgroup. */
const say = (text) => process.stdout.write(`${text}\n`);

/** The daemon if it still runs, the edge process, shims, spawners and network helpers: all that name this run root. */
export async function endProcesses() {
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
    // Those that are left get the harder signal next, and what that leaves is found by whoever asks for `ours`.
    await until('the end of the demo’s processes', 5_000, async () => (await ours()).length === 0, 50).catch(() => {});
  }
}

export async function ours() {
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
export async function cgroups() {
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

export async function removeCgroups() {
  for (const directory of await cgroups())
    await until(`empty ${directory}`, 5_000, () => rmdir(directory).then(() => true), 50).catch((e) => say(e.message));
}

export async function mounts() {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const points = lines.map((line) => line.split(' ')[4]?.replaceAll('\\040', ' ') ?? '');
  return points.filter((point) => [ROOT, RUN_ROOT].some((root) => point === root || point.startsWith(`${root}/`)));
}

/** The last mounted goes first. */
export async function unmountAll() {
  for (const point of (await mounts()).reverse()) await ask('umount', ['--lazy', point]).catch((e) => say(e.message));
}

export async function links() {
  const names = JSON.parse(await ask('ip', ['-json', 'link'])).map(({ ifname }) => ifname);
  return names.filter((name) => name === `${NAME}0` || name.startsWith(`${NAME}-`));
}

export async function removeLinks() {
  for (const name of await links()) await ask('ip', ['link', 'delete', name]).catch((e) => say(e.message));
}

export async function tables() {
  const lines = (await ask('nft', ['list', 'tables'])).split('\n');
  return lines
    .map((line) => line.replace('table ', ''))
    .filter((table) => [NAME, `${NAME}-services`].includes(table.split(' ')[1]));
}

export async function removeTables() {
  for (const table of await tables()) await ask('nft', ['delete', 'table', ...table.split(' ')]);
}

/** All that a reboot takes, by force: processes, mounts, links, tables, cgroups. */
export async function takeVolatile() {
  await endProcesses();
  await unmountAll();
  await removeLinks();
  await removeTables();
  await removeCgroups();
}
