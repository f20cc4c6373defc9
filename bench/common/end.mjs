// How a benchmark ends, whatever ends it.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';

export const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'];
/** What is asked to end has ended by then, or is killed; and what is killed is gone. */
const GRACE_MS = 3_000;
const GONE_MS = 10_000;
const CGROUPS = '/sys/fs/cgroup';

/**
 * Calls `clean` when this process ends: by itself, by an error, by a signal, or because nobody reads what it prints (`| head`; Node.js
 * gets EPIPE there and no SIGPIPE). `clean` is synchronous: what is under way meanwhile gets no turn to make anything new.
 */
export function atEnd(clean) {
  process.on('exit', clean);
  const end = (signal) => process.exit(128 + constants.signals[signal]);
  for (const signal of SIGNALS) process.on(signal, () => end(signal));
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => end('SIGPIPE'));
}

/** Lets signals in between two steps that hold the event loop, as programs run by `execFileSync` do. */
export const breathe = () => new Promise((done) => setImmediate(done));

/**
 * Ends all processes that run in cgroups of ours or name one of our directories on their command line, and takes away those cgroups,
 * what is mounted below the directories, and the directories. A second call finds nothing. `cgroups`: matches their names.
 */
export function takeBack({ dirs, cgroups }) {
  const ours = () => processes().filter((pid) => belongs(pid, dirs, cgroups));
  for (const [signal, ms] of [
    ['SIGTERM', GRACE_MS],
    ['SIGKILL', GONE_MS],
  ]) {
    for (const pid of ours()) send(pid, signal);
    waitUntil(() => ours().length === 0, ms);
  }
  for (const point of mountPoints().reverse())
    if (dirs.some((dir) => point.startsWith(`${dir}/`))) spawnSync('umount', ['--lazy', point]);
  if (cgroups) waitUntil(() => removeCgroups(CGROUPS, cgroups), GONE_MS);
  for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
}

function processes() {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
}

function belongs(pid, dirs, cgroups) {
  const command = textOr(`/proc/${pid}/cmdline`, ''); // of one that has ended and was not waited for: empty
  if (command === '') return false;
  if (dirs.some((dir) => command.includes(dir))) return true;
  const lines = textOr(`/proc/${pid}/cgroup`, '').split('\n');
  return lines.some((line) =>
    line
      .split('/')
      .slice(1)
      .some((name) => cgroups?.test(name)),
  );
}

function send(pid, signal) {
  try {
    process.kill(Number(pid), signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // it has just ended
  }
}

function mountPoints() {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.map((line) => line.split(' ')[4] ?? '');
}

/** At any depth of any hierarchy; false while one is still in use: a killed process leaves its cgroup after it has left /proc. */
function removeCgroups(dir, cgroups) {
  const each = directories(dir).map((name) =>
    cgroups.test(name) ? removeTree(join(dir, name)) : removeCgroups(join(dir, name), cgroups),
  );
  return each.every(Boolean);
}

function removeTree(cgroup) {
  for (const name of directories(cgroup)) removeTree(join(cgroup, name));
  return removed(cgroup);
}

function removed(cgroup) {
  try {
    rmdirSync(cgroup);
    return true;
  } catch (error) {
    return error.code === 'ENOENT';
  }
}

function directories(dir) {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return []; // somebody has just removed it
  }
}

export function textOr(path, absent) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return absent; // of a process that has just ended
  }
}

/** Without giving anybody else a turn; gives up quietly: what is left then is shown by what follows. */
function waitUntil(check, ms) {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  for (const end = performance.now() + ms; !check() && performance.now() < end; ) Atomics.wait(cell, 0, 0, 20);
}
