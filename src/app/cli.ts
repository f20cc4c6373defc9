import { existsSync, statfsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { VERSION } from '#app/version.ts';
import { defineError } from '#base/errors.ts';
import { runCli } from '#cli/main.ts';
import { type Command, type Io, MANY_ARGS, type Verb } from '#cli/verb.ts';
import { ALL_VERBS } from '#cli/verbs/all.ts';
import { diagnose, renderDiagnosis } from '#kernel/doctor.ts';
import { hostFiles } from '#kernel/files.ts';
import { readHostFacts } from '#kernel/host-facts.ts';

const EdgeRuns = defineError('EDGE_RUNS', (d: { runRoot: string }) => ({
  message: `an edge process serves ${d.runRoot} already`,
}));
const NotHere = defineError('NOT_BY_LAUNCHER', (d: { name: string }) => ({
  message: `estiba ${d.name} is a process of its own, which bin/estiba starts`,
}));

/** Verbs that need no daemon, or are it. `daemon` and `registry` stand here for help and completion. */
const LOCAL_VERBS: readonly Verb[] = [
  local('doctor', 'Tell what this machine can do for containers, with the fix for what it cannot', doctor),
  local('daemon', 'Serve containers, registry and Kubernetes API of one node', launcherOnly),
  local('registry', 'Serve a registry for OCI and Docker images', launcherOnly),
  local('edge', 'Serve names and published ports of containers; the daemon starts it itself', edge),
  local('build', 'Make an image from a Dockerfile and its files', build),
  local('debug-build', 'Open a shell in what a failed build step left', build),
];

function local(name: string, summary: string, command: Command): Verb {
  return { name, summary, usage: '…', args: MANY_ARGS, flags: [], raw: true, load: async () => command };
}

function completer(verbs: readonly Verb[]): Verb {
  const load = async (): Promise<Command> => (await import('#cli/complete.ts')).completeCommand(() => verbs);
  return { name: 'complete', summary: '', usage: '', args: MANY_ARGS, flags: [], raw: true, load };
}

async function launcherOnly({ verb }: Parameters<Command>[0]): Promise<number> {
  throw new NotHere({ name: verb.name });
}

async function build({ verb, args, io, global }: Parameters<Command>[0]): Promise<number> {
  const cancel = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => cancel.abort(new Error('cancelled')));
  const { buildCommand } = await import('#cli/build.ts'); // no other command needs to read them
  const { debugBuildCommand } = await import('#cli/debug-build.ts');
  const where = [
    ...(global.host === undefined ? [] : ['--host', global.host]),
    ...(global.runRoot === undefined ? [] : ['--run-root', global.runRoot]),
  ];
  const world = { ...io, signal: cancel.signal };
  if (verb.name === 'build') return buildCommand([...where, ...args], world);
  return debugBuildCommand([...where, ...args], world, (words) => runCli(words, io, ALL_VERBS));
}

async function edge({ args, global }: Parameters<Command>[0]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { 'run-root': { type: 'string' } } });
  const { runEdge } = await import('#app/edge.ts'); // no other command needs to read it
  const runRoot = values['run-root'] ?? global.runRoot ?? '/run/estiba';
  if (!(await runEdge(runRoot))) throw new EdgeRuns({ runRoot });
  return 0;
}

/** Where a daemon without --data-root keeps its state, or will make the directory for it. */
function freeRoomAt(path: string): { path: string; freeBytes: number; freeFiles?: number } {
  if (!existsSync(path)) return freeRoomAt(dirname(path));
  const { bavail, bsize, files, ffree } = statfsSync(path);
  // btrfs and the like count no inodes.
  return { path, freeBytes: bavail * bsize, ...(files > 0 ? { freeFiles: ffree } : {}) };
}

async function doctor({ args, io }: Parameters<Command>[0]): Promise<number> {
  const options = { json: { type: 'boolean' }, problems: { type: 'boolean' } } as const;
  const { values } = parseArgs({ args: [...args], options });
  const facts = readHostFacts({
    files: hostFiles,
    uid: process.getuid?.() ?? 0,
    nodeArch: process.arch,
    nodeVersion: process.versions.node,
    userName: userInfo().username,
    path: io.env['PATH'] ?? '',
    freeRoom: freeRoomAt('/var/lib/estiba'),
  });
  const { withFirewall } = await import('#app/doctor-firewall.ts'); // no other command needs to read it
  const diagnosis = await withFirewall(diagnose(facts));
  const text = values.json
    ? `${JSON.stringify(diagnosis, null, 2)}\n`
    : renderDiagnosis(diagnosis, values.problems ? 'problems' : 'all');
  io.stdout.write(text);
  return 0;
}

const io: Io = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  version: VERSION,
  now: () => Date.now(),
};
// A reader that has gone (`| head`) wants no more.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
const verbs: readonly Verb[] = [...LOCAL_VERBS, ...ALL_VERBS];
const [first, ...rest] = process.argv.slice(2);
// Shells ask for candidates by a word that is no verb: it is in no help.
const asked =
  first === '__complete'
    ? runCli(['complete', ...rest], io, [completer(verbs)])
    : runCli(process.argv.slice(2), io, verbs);
let answered = false;
asked.then((code) => {
  answered = true;
  process.exitCode = code;
});
// With nothing left to wait for, Node.js ends with 0, whatever was promised: a daemon that went silent is no success.
process.once('exit', () => {
  if (answered || process.exitCode !== undefined) return;
  process.exitCode = 1;
  process.stderr.write('estiba: the connection to the daemon ended before its answer\n');
});
