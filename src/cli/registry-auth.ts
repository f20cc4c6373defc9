import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { CliUsage, HelperFailed } from '#cli/errors.ts';
import type { Io } from '#cli/verb.ts';

/** `~/.docker/config.json`: shared with docker, so what others keep there is left as it is. */
interface DockerConfig {
  auths?: Record<string, { auth?: string; identitytoken?: string }>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
  [other: string]: unknown;
}

export interface Credentials {
  username: string;
  password: string;
}

const HUB = 'https://index.docker.io/v1/';

/** The registry of `host/name:tag`; Docker Hub's key for names without a host. */
export function registryOf(image: string): string {
  const [first = '', ...rest] = image.split('/');
  const isHost = rest.length > 0 && (/[.:]/.test(first) || first === 'localhost');
  return isHost && first !== 'docker.io' && first !== 'index.docker.io' ? first : HUB;
}

type World = Pick<Io, 'env'>;
/** As the API's headers have it. */
type Login = ({ identitytoken: string } | Credentials) & { serveraddress: string };

/** `X-Registry-Auth` for a registry; none when nobody logged in there. */
export function authHeader(io: World, registry: string): Record<string, string> {
  const login = loginOf(readConfig(io), registry, io);
  return login ? { 'X-Registry-Auth': base64(login) } : {};
}

/** Every log-in there is, for the base images of a build (`X-Registry-Config`). */
export function registryAuth(io: World): { registryAuth?: string } {
  const config = readConfig(io);
  const stored =
    config.credsStore === undefined ? [] : Object.keys(parse(helper(config.credsStore, 'list', '', io) ?? '{}'));
  const registries = new Set([...Object.keys(config.auths ?? {}), ...Object.keys(config.credHelpers ?? {}), ...stored]);
  const logins = [...registries].flatMap((registry) => loginOf(config, registry, io) ?? []);
  if (logins.length === 0) return {};
  return { registryAuth: base64(Object.fromEntries(logins.map((login) => [login.serveraddress, login]))) };
}

function loginOf(config: DockerConfig, registry: string, io: World): Login | undefined {
  const name = helperFor(config, registry);
  if (name !== undefined) {
    const { Username = '', Secret = '' } = parse(helper(name, 'get', registry, io) ?? '{}');
    if (Secret === '') return undefined;
    return Username === '<token>'
      ? { identitytoken: Secret, serveraddress: registry }
      : { username: Username, password: Secret, serveraddress: registry };
  }
  const { auth = '', identitytoken } = config.auths?.[registry] ?? {};
  if (identitytoken) return { identitytoken, serveraddress: registry };
  const [username, password] = decode(auth);
  return auth === '' ? undefined : { username, password, serveraddress: registry };
}

/** Where they lie in the clear from now on; undefined when a helper keeps them. */
export function saveCredentials(
  io: Io,
  registry: string,
  credentials: Credentials & { identitytoken?: string },
): string | undefined {
  const { username, password, identitytoken } = credentials;
  const config = readConfig(io);
  const put = (entry: { auth?: string; identitytoken?: string }): string =>
    writeConfig(io, { ...config, auths: { ...config.auths, [registry]: entry } });
  const name = helperFor(config, registry);
  if (name !== undefined) {
    const kept = {
      ServerURL: registry,
      Username: identitytoken ? '<token>' : username,
      Secret: identitytoken ?? password,
    };
    helper(name, 'store', JSON.stringify(kept), io);
    put({}); // docker writes such an entry too: it tells where somebody is logged in
    return undefined;
  }
  const auth = Buffer.from(`${username}:${identitytoken ? '' : password}`).toString('base64');
  return put({ auth, ...(identitytoken ? { identitytoken } : {}) });
}

/** False when nobody was logged in. */
export function dropCredentials(io: Io, registry: string): boolean {
  const config = readConfig(io);
  const { [registry]: known, ...auths } = config.auths ?? {};
  const name = helperFor(config, registry);
  const wasKept = name !== undefined && helper(name, 'get', registry, io) !== undefined;
  if (wasKept) helper(name, 'erase', registry, io);
  if (known) writeConfig(io, { ...config, auths });
  return known !== undefined || wasKept;
}

function helperFor({ credHelpers, credsStore }: DockerConfig, registry: string): string | undefined {
  return credHelpers?.[registry] ?? (credsStore === '' ? undefined : credsStore);
}

const HELPER_TIMEOUT_MS = 10_000;

/** Runs `docker-credential-NAME`: a server or credentials on stdin, JSON on stdout. Undefined: it has none for that server. */
function helper(
  name: string,
  verb: 'get' | 'list' | 'store' | 'erase',
  input: string,
  { env }: World,
): string | undefined {
  const failed = (why: string, cause?: unknown): never => {
    throw new HelperFailed({ helper: name, why }, { cause });
  };
  // The name becomes part of a program's path.
  if (!/^[\w.-]+$/.test(name)) return failed('that is not a helper name');
  const program = `docker-credential-${name}`;
  const ran = spawnSync(program, [verb], { input, encoding: 'utf8', env: { ...env }, timeout: HELPER_TIMEOUT_MS });
  // EPIPE of one that ends before it has read says less than its status.
  if (ran.error && ran.status === null) return failed(ran.error.message, ran.error);
  if (ran.status === 0) return ran.stdout;
  // The protocol has no code for it: "not found" is a sentence on stdout, the same in every helper.
  if (/credentials not found/.test(ran.stdout)) return undefined;
  return failed(ran.stdout.trim().slice(0, 300) || ran.stderr.trim().slice(0, 300) || `status ${ran.status}`);
}

function parse(text: string): Record<string, string> {
  try {
    return JSON.parse(text) as Record<string, string>;
  } catch (cause) {
    throw new CliUsage({ why: 'a credential helper prints no JSON' }, { cause });
  }
}

function base64(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

export function registryKey(server: string | undefined): string {
  return server === undefined || server === 'docker.io' ? HUB : server.replace(/^https?:\/\//, '').replace(/\/$/, '');
}

function pathOf({ env }: World): string {
  return join(env['DOCKER_CONFIG'] ?? join(env['HOME'] ?? '/root', '.docker'), 'config.json');
}

function readConfig(io: World): DockerConfig {
  const path = pathOf(io);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as DockerConfig;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return {};
    throw new CliUsage({ why: `${path} cannot be read` }, { cause: error });
  }
}

/** Whole or not at all: docker reads the same file. */
function writeConfig(io: Io, config: DockerConfig): string {
  const path = pathOf(io);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.new`, `${JSON.stringify(config, null, '\t')}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
  return path;
}

function decode(auth: string): [string, string] {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)];
}
