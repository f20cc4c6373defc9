import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { sweepDead } from './net/owned.ts';

/**
 * What a test run may leave on the machine: nothing. The state is read before the first test and after the last one;
 * a mount, link, cgroup, nftables table, named namespace or process of ours that is new fails the run.
 */
export interface HostState {
  mounts: string[];
  links: string[];
  cgroups: string[];
  tables: string[];
  namespaces: string[];
  processes: string[];
}

export function readHostState(): HostState {
  return {
    mounts: lines('/proc/self/mountinfo').map((l) => l.split(' ')[4] ?? ''),
    links: readdirSync('/sys/class/net'),
    cgroups: cgroupDirectories('/sys/fs/cgroup', 3),
    tables: run('nft', ['list', 'tables']),
    namespaces: existsSync('/run/netns') ? readdirSync('/run/netns') : [],
    processes: readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && isOurs(pid)),
  };
}

/** What `after` has and `before` lacks, one line each. */
export function leaked(before: HostState, after: HostState): string[] {
  return (Object.keys(before) as (keyof HostState)[]).flatMap((kind) => {
    const known = new Map<string, number>();
    for (const item of before[kind]) known.set(item, (known.get(item) ?? 0) + 1);
    return after[kind].flatMap((item) => {
      const left = known.get(item) ?? 0;
      known.set(item, left - 1);
      return left > 0 ? [] : [`${kind}: ${kind === 'processes' ? describeProcess(item) : item}`];
    });
  });
}

export default function setup(): () => Promise<void> {
  for (const dir of sweepDead()) process.stderr.write(`removed what a test run that was killed left: ${dir}\n`);
  // Several checkouts at work on one machine see each other's containers; only then is the check switched off, aloud.
  if (process.env['ESTIBA_TEST_LEAKS'] === 'off') {
    process.stderr.write('leak check off (ESTIBA_TEST_LEAKS=off)\n');
    return async () => undefined;
  }
  const before = readHostState();
  return async () => {
    // The kernel tears network namespaces and memory cgroups down behind the last close: give it a moment, not a pass.
    let left: string[] = [];
    for (let attempt = 0; attempt < 20; attempt++) {
      left = leaked(before, readHostState());
      if (left.length === 0) return;
      await new Promise((done) => setTimeout(done, 250));
    }
    throw new Error(`the tests left on this machine:\n${left.map((l) => `  ${l}`).join('\n')}`);
  };
}

function isOurs(pid: string): boolean {
  const exe = readOr(`/proc/${pid}/comm`, '').trim();
  return exe.startsWith('estiba');
}

function describeProcess(pid: string): string {
  return `${pid} ${readOr(`/proc/${pid}/cmdline`, '?').replaceAll('\0', ' ').trim()}`;
}

function cgroupDirectories(root: string, depth: number): string[] {
  if (depth === 0 || !existsSync(root)) return [];
  return readdirSync(root).flatMap((name) => {
    const path = join(root, name);
    try {
      if (!statSync(path).isDirectory()) return [];
    } catch {
      return []; // gone between readdir and stat
    }
    return [path, ...cgroupDirectories(path, depth - 1)];
  });
}

function run(command: string, args: string[]): string[] {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')
      .filter(Boolean);
  } catch {
    return []; // not installed: then nobody made tables with it, and the host tests say what they lack themselves
  }
}

function lines(path: string): string[] {
  return readFileSync(path, 'utf8').split('\n').filter(Boolean);
}

function readOr(path: string, fallback: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return fallback;
  }
}
