import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeChain, EstibaError, isCode } from '#base/errors.ts';
import { nearest, parseArgs } from '#cli/args.ts';
import { CliUsage } from '#cli/errors.ts';
import { groupsOf, helpOf, overview } from '#cli/help.ts';
import { type Flag, Flags, type GlobalFlags, type Io, MANY_ARGS, type Verb } from '#cli/verb.ts';
import { EngineClient } from '#engine/client/client.ts';
import { addressOf, type ClientTls, DaemonConnection } from '#engine/client/connection.ts';

/** Flags before the verb. */
export const GLOBAL_FLAGS: readonly Flag[] = [
  {
    name: 'host',
    short: 'H',
    type: 'text',
    value: 'ADDRESS',
    summary: 'Daemon to talk to: unix:///PATH or tcp://HOST:PORT',
  },
  {
    name: 'run-root',
    type: 'text',
    value: 'DIR',
    summary: 'Run root of the daemon that is meant',
    fallback: '/run/estiba',
  },
  { name: 'tls', type: 'bool', summary: 'Use TLS' },
  { name: 'tlsverify', type: 'bool', summary: 'Use TLS and verify the daemon' },
  { name: 'tlscacert', type: 'text', value: 'FILE', summary: 'Authority that signed the daemon', complete: 'file' },
  { name: 'tlscert', type: 'text', value: 'FILE', summary: 'Certificate of the client', complete: 'file' },
  { name: 'tlskey', type: 'text', value: 'FILE', summary: 'Key of the client', complete: 'file' },
  { name: 'version', short: 'v', type: 'bool', summary: 'Print the version of this program' },
];

/** The command line: finds the verb, reads its flags, runs it. Answers the exit code. */
export async function runCli(words: readonly string[], io: Io, verbs: readonly Verb[]): Promise<number> {
  try {
    return await run(words, io, verbs);
  } catch (error) {
    return report(error, io);
  }
}

async function run(words: readonly string[], io: Io, verbs: readonly Verb[]): Promise<number> {
  const before = parseArgs({ name: '', flags: GLOBAL_FLAGS, usage: '', stopAtArgument: true, args: MANY_ARGS }, words);
  if (before.flags.on('version')) {
    io.stdout.write(`estiba ${io.version.version} (${io.version.commit})\n`);
    return 0;
  }
  const rest = before.args[0] === 'help' ? [...before.args.slice(1), '--help'] : before.args;
  const found = findVerb(verbs, rest);
  if (!found) return explainUnknown(verbs, rest, io);
  const { verb, words: own } = found;
  const { flags, args, help } = verb.raw
    ? { flags: new Flags(new Map()), args: own, help: false }
    : parseArgs(verb, own);
  if (help) {
    io.stdout.write(helpOf(verb));
    return 0;
  }
  const host = before.flags.text('host');
  const runRoot = before.flags.text('run-root');
  const global: GlobalFlags = {
    ...(host === undefined ? {} : { host }),
    ...(runRoot === undefined ? {} : { runRoot }),
  };
  const engine = new EngineClient(
    new DaemonConnection(addressOf({ host, runRoot, tls: tlsOf(before.flags, io.env), env: io.env })),
  );
  const command = await verb.load();
  return (await command({ verb, flags, args, io, engine, global })) ?? 0;
}

/** Two words before one: `container ls` before `container`. */
export function findVerb(
  verbs: readonly Verb[],
  words: readonly string[],
): { verb: Verb; words: readonly string[] } | undefined {
  for (const count of [2, 1]) {
    const name = words.slice(0, count).join(' ');
    if (words.length < count) continue;
    const verb = verbs.find((v) => v.name === name || v.aliases?.includes(name));
    if (verb) return { verb, words: words.slice(count) };
  }
  return undefined;
}

function explainUnknown(verbs: readonly Verb[], words: readonly string[], io: Io): number {
  const [first = '', second] = words;
  const group = groupsOf(verbs).includes(first) ? first : '';
  const wanted = group === '' ? first : (second ?? '');
  if (wanted === '' || wanted === '--help' || wanted === '-h') {
    io.stdout.write(overview(verbs, group));
    return 0;
  }
  const names = verbs.flatMap((v) => [v.name, ...(v.aliases ?? [])]);
  const here = names.flatMap((n) =>
    group === '' ? (n.includes(' ') ? [] : [n]) : n.startsWith(`${group} `) ? [n.slice(group.length + 1)] : [],
  );
  const near = nearest(wanted, [...here, ...(group === '' ? groupsOf(verbs) : [])]);
  const path = group === '' ? 'estiba' : `estiba ${group}`;
  throw new CliUsage({
    why: `'${wanted}' is no command of ${path}${near === undefined ? '' : `; did you mean ${near}?`}`,
    see: path,
  });
}

/** `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH` and the flags, as docker reads them. */
function tlsOf(
  flags: { on(name: string): boolean; text(name: string): string | undefined },
  env: Io['env'],
): ClientTls | undefined {
  const wanted = flags.on('tls') || flags.on('tlsverify') || Boolean(env['DOCKER_TLS_VERIFY'] || env['DOCKER_TLS']);
  if (!wanted) return undefined;
  const folder = env['DOCKER_CERT_PATH'] ?? join(env['HOME'] ?? '/root', '.docker');
  const read = (flag: string, name: string): string => readFileSync(flags.text(flag) ?? join(folder, name), 'utf8');
  return { ca: read('tlscacert', 'ca.pem'), cert: read('tlscert', 'cert.pem'), key: read('tlskey', 'key.pem') };
}

function report(error: unknown, io: Io): number {
  if (isCode(error, 'CLI_EXIT')) {
    if (error.message !== '') io.stderr.write(`estiba: ${error.message}\n`);
    return Number(error.data['code']);
  }
  const hint = error instanceof EstibaError && error.hint !== undefined ? `\n${error.hint}` : '';
  const prefix = isCode(error, 'REQUEST_REFUSED') ? 'Error response from daemon: ' : 'estiba: ';
  // These say all there is; what lies below them is for whoever looks for a fault of ours.
  const whole = isCode(error, 'REQUEST_REFUSED', 'DAEMON_UNREACHABLE') ? error.message : describeChain(error);
  io.stderr.write(`${prefix}${whole}${hint}\n`);
  // As docker: 125 is the command line's own failure.
  return isCode(error, 'CLI_USAGE') ? 125 : 1;
}
