import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { CliUsage } from '#cli/errors.ts';
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

/** `X-Registry-Auth` for a registry; an empty one when nobody logged in there. */
export function authHeader(io: Io, registry: string): Record<string, string> {
  const known = readConfig(io).auths?.[registry];
  if (!known?.auth && !known?.identitytoken) return {};
  const [username, password] = decode(known.auth ?? '');
  const body = known.identitytoken
    ? { identitytoken: known.identitytoken, serveraddress: registry }
    : { username, password, serveraddress: registry };
  return { 'X-Registry-Auth': Buffer.from(JSON.stringify(body)).toString('base64url') };
}

export function saveCredentials(
  io: Io,
  registry: string,
  credentials: Credentials & { identitytoken?: string },
): string {
  const { username, password, identitytoken } = credentials;
  const auth = Buffer.from(`${username}:${identitytoken ? '' : password}`).toString('base64');
  const config = readConfig(io);
  const entry = { auth, ...(identitytoken ? { identitytoken } : {}) };
  return writeConfig(io, { ...config, auths: { ...config.auths, [registry]: entry } });
}

/** False when nobody was logged in. */
export function dropCredentials(io: Io, registry: string): boolean {
  const config = readConfig(io);
  const { [registry]: known, ...auths } = config.auths ?? {};
  if (known) writeConfig(io, { ...config, auths });
  return known !== undefined;
}

export function registryKey(server: string | undefined): string {
  return server === undefined || server === 'docker.io' ? HUB : server.replace(/^https?:\/\//, '').replace(/\/$/, '');
}

function pathOf({ env }: Io): string {
  return join(env['DOCKER_CONFIG'] ?? join(env['HOME'] ?? '/root', '.docker'), 'config.json');
}

function readConfig(io: Io): DockerConfig {
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
