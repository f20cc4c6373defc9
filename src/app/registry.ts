import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '#base/clock.ts';
import { defineError, describeChain, errnoOf, isCode } from '#base/errors.ts';
import { logger } from '#base/log.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import { type AccessFile, accessFileShape, hashPassword, hashSecret } from '#registry/server/access.ts';
import { collectBytes, registryRoots } from '#registry/server/gc.ts';
import { openRegistry } from '#registry/server/open.ts';
import { openEmbedded } from '#storage/embedded.ts';
import { writeFileAtomic } from '#storage/files.ts';

/** The registry as a process of its own, where no daemon runs one. */
const HELP = `estiba registry serve [--data-root D] [--listen ADDRESS:PORT] [--tls-cert FILE --tls-key FILE] [--open] [--sparse]
                      [--gc-every SECONDS] [--gc-grace SECONDS]
estiba registry user add NAME [--robot] --allow ACTIONS:PATTERN...   password from standard input; prints a robot's secret
estiba registry user remove NAME
estiba registry anonymous --allow ACTIONS:PATTERN...

ACTIONS are some of pull,push,delete; a PATTERN is a repository's name with * for one part, ** for any number of them.
Under the data root: blobs/, store/, registry/access.json (read anew when it changes), registry/token.key.
`;

const Usage = defineError('USAGE', (d: { why: string }) => ({
  message: d.why,
  hint: HELP,
}));

const log = logger('registry');

async function main(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      'data-root': { type: 'string', default: '/var/lib/estiba' },
      listen: { type: 'string', default: '127.0.0.1:5000' },
      'tls-cert': { type: 'string' },
      'tls-key': { type: 'string' },
      open: { type: 'boolean', default: false },
      sparse: { type: 'boolean', default: false },
      'gc-every': { type: 'string', default: '3600' },
      'gc-grace': { type: 'string', default: '86400' },
      robot: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      allow: { type: 'string', multiple: true, default: [] },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  const folder = join(values['data-root'], 'registry');
  switch (positionals.slice(0, 2).join(' ')) {
    case 'serve':
      return serve({
        dataRoot: values['data-root'],
        listen: values.listen,
        tls: values['tls-cert'] && values['tls-key'] ? { cert: values['tls-cert'], key: values['tls-key'] } : undefined,
        open: values.open,
        sparse: values.sparse,
        gcEveryMs: seconds(values['gc-every']),
        gcGraceMs: seconds(values['gc-grace']),
      });
    case 'user add':
      return addAccount(folder, positionals[2] ?? '', values.allow.map(parseAllow), values.robot);
    case 'user remove':
      return changeAccess(folder, (file) => ({
        ...file,
        accounts: (file.accounts ?? []).filter((a) => a.name !== positionals[2]),
      }));
    case 'anonymous':
      return changeAccess(folder, (file) => ({ ...file, anonymous: values.allow.map(parseAllow) }));
    default:
      throw new Usage({ why: `unknown command ${JSON.stringify(positionals.join(' '))}` });
  }
}

interface ServeOptions {
  dataRoot: string;
  listen: string;
  tls: { cert: string; key: string } | undefined;
  open: boolean;
  sparse: boolean;
  gcEveryMs: number;
  gcGraceMs: number;
}

async function serve(o: ServeOptions): Promise<void> {
  const { host, port } = parseListen(o.listen);
  const content = await DiskContentStore.open(join(o.dataRoot, 'blobs'), systemClock);
  const store = await openEmbedded(join(o.dataRoot, 'store'), { clock: systemClock, keepRevisions: 1000, log });
  const registry = await openRegistry({
    folder: join(o.dataRoot, 'registry'),
    content,
    store,
    clock: systemClock,
    log,
    sparse: o.sparse,
    openWithoutAccounts: o.open || isLoopback(host),
    ...(o.tls ? { tls: { cert: await readFile(o.tls.cert), key: await readFile(o.tls.key) } } : {}),
  });
  await new Promise<void>((ready, failed) => {
    registry.server.once('error', failed);
    registry.server.listen(port, host, () => ready());
  });
  const { address, port: bound, family } = registry.server.address() as AddressInfo;
  const authority = `${family === 'IPv6' ? `[${address}]` : address}:${bound}`;
  process.stdout.write(`${JSON.stringify({ registry: `${o.tls ? 'https' : 'http'}://${authority}` })}\n`);

  const timer = setInterval(
    () => void tidy().catch((error) => log.error('tidying failed', { error: describeChain(error) })),
    o.gcEveryMs,
  );
  const tidy = async (): Promise<void> => {
    await registry.tidy({ graceMs: o.gcGraceMs });
    const olderThanMs = systemClock.now() - o.gcGraceMs;
    log.info(
      'bytes collected',
      await collectBytes(content, await registryRoots(registry.services.repositories), { olderThanMs }),
    );
  };
  const stop = async (): Promise<void> => {
    clearInterval(timer);
    await registry.close();
    await store.close();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop());
}

async function addAccount(
  folder: string,
  name: string,
  rules: NonNullable<AccessFile['anonymous']>,
  robot: boolean,
): Promise<void> {
  if (robot) {
    const secret = randomBytes(32).toString('base64url');
    await putAccount(folder, {
      name: name.startsWith('robot$') ? name : `robot$${name}`,
      secret: hashSecret(secret),
      rules,
    });
    process.stdout.write(`${secret}\n`);
    return;
  }
  // From standard input: an argument would stand in the process list and in the shell's history.
  const password = (await readStdin()).replace(/\r?\n$/, '');
  if (password === '') throw new Usage({ why: 'the password is read from standard input, which is empty' });
  await putAccount(folder, { name, password: await hashPassword(password), rules });
}

/** Not by opening /dev/stdin: a program that starts us may have given us a socket, and opening that is ENXIO. */
async function readStdin(): Promise<string> {
  let text = '';
  for await (const part of process.stdin.setEncoding('utf8')) text += part;
  return text;
}

function putAccount(folder: string, account: NonNullable<AccessFile['accounts']>[number]): Promise<void> {
  return changeAccess(folder, (file) => ({
    ...file,
    accounts: [...(file.accounts ?? []).filter((a) => a.name !== account.name), account],
  }));
}

async function changeAccess(folder: string, change: (file: AccessFile) => AccessFile): Promise<void> {
  const path = join(folder, 'access.json');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return '{}';
  });
  const file = accessFileShape(change(accessFileShape(JSON.parse(text), path)), path);
  await writeFileAtomic(path, `${JSON.stringify(file, null, 2)}\n`);
}

/** `pull,push:team/**` */
function parseAllow(text: string): NonNullable<AccessFile['anonymous']>[number] {
  const colon = text.indexOf(':');
  const actions = text.slice(0, Math.max(0, colon)).split(',');
  const known = (['pull', 'push', 'delete'] as const).filter((a) => actions.includes(a));
  if (colon < 0 || known.length !== actions.length) throw new Usage({ why: `--allow ${text} is not ACTIONS:PATTERN` });
  return { repositories: [text.slice(colon + 1)], actions: known };
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  if (!match || Number(match[3]) > 65_535) throw new Usage({ why: `--listen ${text} is not ADDRESS:PORT` });
  return { host: match[1] || match[2] || '0.0.0.0', port: Number(match[3]) };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0 || value > 10 ** 6)
    throw new Usage({ why: `${text} is not a number of seconds up to a million` });
  return value * 1000;
}

main(process.argv.slice(2)).catch((error: unknown) => {
  const hint = isCode(error, 'USAGE', 'REGISTRY_ACCOUNTS_MISSING') ? `\n${error.hint}` : '';
  process.stderr.write(`estiba registry: ${describeChain(error)}${hint}\n`);
  process.exitCode = 1;
});
