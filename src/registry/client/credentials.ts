import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { errnoOf, messageOf } from '#base/errors.ts';
import { object, optional, record, string } from '#base/shape.ts';
import { CredentialHelperFailed } from '#registry/client/errors.ts';

/** What a user logs in with. An identity token is an OAuth 2 refresh token that stands for name and password. */
export type Credentials = { name: string; password: string } | { identityToken: string } | { registryToken: string };

/** Finds credentials for a registry host (`docker.io`, `reg.example:5000`); undefined: anonymous. */
export type CredentialSource = (host: string) => Promise<Credentials | undefined>;

export const anonymous: CredentialSource = async () => undefined;

const AuthEntry = object({
  auth: optional(string()),
  username: optional(string()),
  password: optional(string()),
  identitytoken: optional(string()),
  registrytoken: optional(string()),
});
const DockerConfig = object({
  auths: optional(record(AuthEntry)),
  credHelpers: optional(record(string())),
  credsStore: optional(string()),
});

/**
 * The Engine API's `X-Registry-Auth`: base64url of JSON, for the one registry of the request. Docker's clients send `{}` or
 * nothing where they know no credentials; what cannot be read is refused with INVALID_VALUE.
 */
export function headerCredentials(header: string | undefined): CredentialSource {
  if (header === undefined || header === '') return anonymous;
  const credentials = fromEntry(AuthEntry(decodeJson(header), 'X-Registry-Auth'));
  return async () => credentials;
}

/** Of credentials for many registries (`X-Registry-Config` of a build) those for one, whatever it was called. */
export function entryFor<T>(host: string, entries: Readonly<Record<string, T>>): T | undefined {
  const name = keysOf(host).find((key) => entries[key] !== undefined);
  return name === undefined ? undefined : entries[name];
}

function decodeJson(header: string): unknown {
  const text = Buffer.from(header, 'base64url').toString('utf8');
  try {
    return JSON.parse(text);
  } catch {
    return text; // the shape says what is wrong with it
  }
}

/** Docker's `config.json`: a helper named for the host, else the common helper, else what stands in the file. */
export function dockerConfigCredentials(path: string, run: RunHelper = runHelper): CredentialSource {
  return async (host) => {
    const config = await readConfig(path);
    const [key = host] = keysOf(host);
    const helper = config.credHelpers?.[key] ?? config.credHelpers?.[host] ?? config.credsStore;
    if (helper) return fromHelper(helper, key, run);
    const entry = entryFor(host, config.auths ?? {});
    return entry && fromEntry(entry);
  };
}

/** Docker Hub's key is a URL of the first registry; other hosts may be written with a scheme or an old version's path. */
function keysOf(host: string): string[] {
  const hub = ['docker.io', 'index.docker.io', 'registry-1.docker.io'].includes(host);
  return [
    ...(hub ? ['https://index.docker.io/v1/', 'docker.io', 'index.docker.io'] : []),
    host,
    ...[`https://${host}`, `https://${host}/v1/`, `https://${host}/v2/`, `http://${host}`],
  ];
}

async function readConfig(path: string): Promise<ReturnType<typeof DockerConfig>> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return '{}';
    throw error;
  });
  return DockerConfig(JSON.parse(text), path);
}

function fromEntry(entry: ReturnType<typeof AuthEntry>): Credentials | undefined {
  if (entry.identitytoken) return { identityToken: entry.identitytoken };
  if (entry.registrytoken) return { registryToken: entry.registrytoken };
  if (entry.username && entry.password) return { name: entry.username, password: entry.password };
  // `docker login` stores base64 of name:password; Docker also strips NULs that an old client appended.
  const text = Buffer.from(entry.auth ?? '', 'base64')
    .toString('utf8')
    .replace(/\0+$/, '');
  const colon = text.indexOf(':');
  return colon > 0 ? { name: text.slice(0, colon), password: text.slice(colon + 1) } : undefined;
}

/** Runs `docker-credential-<helper> get` with the host on stdin; resolves with its exit status and what it prints. */
export type RunHelper = (helper: string, input: string) => Promise<{ status: number; stdout: string }>;

const HELPER_TIMEOUT_MS = 10_000;

const HelperAnswer = object({ Username: optional(string()), Secret: optional(string()) });

async function fromHelper(helper: string, key: string, run: RunHelper): Promise<Credentials | undefined> {
  const failed = (why: string, cause?: unknown): never => {
    throw new CredentialHelperFailed({ helper, host: key, why }, { cause });
  };
  // The name becomes part of a program's path.
  if (!/^[\w.-]+$/.test(helper)) return failed('that is not a helper name');
  const { status, stdout } = await run(helper, key).catch((error: unknown) => failed(messageOf(error), error));
  // The protocol has no code for it: "not found" is a sentence on stdout, the same in every helper.
  if (status !== 0)
    return /credentials not found/.test(stdout) ? undefined : failed(stdout.trim().slice(0, 300) || `status ${status}`);
  try {
    const { Username: name = '', Secret: secret = '' } = HelperAnswer(JSON.parse(stdout), helper);
    if (secret === '') return undefined;
    return name === '<token>' ? { identityToken: secret } : { name, password: secret };
  } catch (error) {
    return failed('it prints no JSON', error);
  }
}

function runHelper(helper: string, input: string): ReturnType<RunHelper> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      `docker-credential-${helper}`,
      ['get'],
      { timeout: HELPER_TIMEOUT_MS, maxBuffer: 1 << 20 },
      (error, stdout) => {
        if (error && typeof error.code !== 'number') reject(error);
        else resolve({ status: Number(error?.code ?? 0), stdout });
      },
    );
    child.stdin?.on('error', () => undefined); // a helper that dies early says more by its status
    child.stdin?.end(`${input}\n`);
  });
}
