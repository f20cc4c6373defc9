import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { DAEMON_FLAGS, DAEMON_LOG, ESTIBA, Failed, ROOT, RUN_ROOT, TREE, until } from './place.mjs';

/** Pids of processes whose arguments contain all of `words`, or end a path with them; never our own. */
export async function processesWith(...words) {
  const found = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const args = (await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (words.every((word) => args.some((arg) => arg === word || arg.endsWith(`/${word}`)))) found.push(Number(name));
  }
  return found;
}

/** The demo's daemon, or undefined. */
export async function daemonPid() {
  return (await processesWith('daemon.run.cjs', '--run-root', RUN_ROOT))[0];
}

export async function endpoints() {
  return JSON.parse(await readFile(`${RUN_ROOT}/endpoints.json`, 'utf8'));
}

/** Starts the daemon unless it runs already from this build; containers do not notice either. */
export async function ensureDaemon(say) {
  const pid = await daemonPid();
  if (pid !== undefined) {
    if (await isOfThisBuild(pid)) return 'was running';
    say('another build runs: it gives way, containers stay');
    await stopDaemon();
  }
  await startDaemon();
  return pid === undefined ? 'started' : 'renewed';
}

/** Resolves when it is ready: a request sent now succeeds. */
export async function startDaemon() {
  mkdirSync(ROOT, { recursive: true, mode: 0o711 });
  // Of a daemon that was killed: it would look like the new one's.
  await rm(`${RUN_ROOT}/endpoints.json`, { force: true });
  const log = openSync(DAEMON_LOG, 'a');
  // A process of its own session: it stays when the demo ends, whatever its terminal does.
  const child = spawn(ESTIBA, ['daemon', ...DAEMON_FLAGS], { cwd: '/', detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.unref();
  await until('the daemon', 60_000, async () => {
    if (child.exitCode !== null) throw new Failed(`it ended: ${await endOfLog()}`);
    return (await daemonPid()) !== undefined && (await endpoints().catch(() => undefined)) !== undefined;
  });
}

/** What it said last, in one line. */
async function endOfLog() {
  return (await readFile(DAEMON_LOG, 'utf8')).trim().split('\n').at(-1);
}

export async function stopDaemon(signal = 'SIGTERM') {
  const pid = await daemonPid();
  if (pid === undefined) return;
  process.kill(pid, signal);
  await until('the end of the daemon', 20_000, async () => (await daemonPid()) !== pid, 50);
}

async function isOfThisBuild(pid) {
  const args = await readFile(`/proc/${pid}/cmdline`, 'utf8');
  if (!args.includes(TREE) || !args.includes(DAEMON_FLAGS.join('\0'))) return false;
  const [built, started] = await Promise.all([stat(`${TREE}/dist/daemon.run.cjs`), stat(`/proc/${pid}`)]);
  return built.mtimeMs < started.ctimeMs;
}
