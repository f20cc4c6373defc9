import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { authHeader, dropCredentials, registryAuth, saveCredentials } from '#cli/registry-auth.ts';
import type { Io } from '#cli/verb.ts';

const HUB = 'https://index.docker.io/v1/';
let home: string;
let io: Io;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'estiba-cli-auth-'));
  mkdirSync(join(home, '.docker'));
  // Keeps one secret a server as a file: the protocol of docker-credential-helpers.
  const program = `#!/bin/sh
cd ${home}; read -r server || true
at=$(printf %s "$server" | tr -c 'a-z0-9\\n' _)
case $1 in
get) [ -f "kept-$at" ] && cat "kept-$at" || { echo 'credentials not found in native keychain'; exit 1; } ;;
list) printf '{"kept.example":"ann"}' ;;
store) at=$(printf %s "$server" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr -c 'a-z0-9\\n' _); printf %s "$server" > "kept-$at" ;;
erase) rm "kept-$at" ;;
esac
`;
  writeFileSync(join(home, 'docker-credential-files'), program);
  writeFileSync(join(home, 'docker-credential-broken'), '#!/bin/sh\necho the keychain is locked; exit 1\n');
  for (const name of ['files', 'broken']) chmodSync(join(home, `docker-credential-${name}`), 0o755);
  io = { env: { HOME: home, PATH: `${home}:${process.env['PATH']}` } } as unknown as Io;
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const config = (value: object): void => writeFileSync(join(home, '.docker/config.json'), JSON.stringify(value));
const written = (): unknown => JSON.parse(readFileSync(join(home, '.docker/config.json'), 'utf8'));
const decoded = (text: string | undefined): unknown =>
  text === undefined ? undefined : JSON.parse(Buffer.from(text, 'base64url').toString());
const header = (registry: string): unknown => decoded(authHeader(io, registry)['X-Registry-Auth']);

describe('credentials of docker login', () => {
  it('are kept in the file, and dropped', () => {
    expect(header(HUB)).toBeUndefined();
    expect(saveCredentials(io, HUB, { username: 'ann', password: 'a:b' })).toBe(join(home, '.docker/config.json'));
    expect(header(HUB)).toEqual({ username: 'ann', password: 'a:b', serveraddress: HUB });
    expect([dropCredentials(io, HUB), dropCredentials(io, HUB)]).toEqual([true, false]);
  });

  it('lie with a helper where the configuration names one, and never in the file then', () => {
    config({ credsStore: 'files', psFormat: 'x' });
    expect(header('kept.example')).toBeUndefined();
    expect(saveCredentials(io, 'kept.example', { username: 'ann', password: 's3cret' })).toBeUndefined();
    expect(written()).toEqual({ credsStore: 'files', psFormat: 'x', auths: { 'kept.example': {} } });
    const login = { username: 'ann', password: 's3cret', serveraddress: 'kept.example' };
    expect(header('kept.example')).toEqual(login);
    expect(decoded(registryAuth(io).registryAuth)).toEqual({ 'kept.example': login });
    expect(dropCredentials(io, 'kept.example')).toBe(true);
    expect(header('kept.example')).toBeUndefined();
    expect(registryAuth(io)).toEqual({});
  });

  it('a helper for one registry stands before the common one; its tokens are identity tokens', () => {
    config({ credHelpers: { 'kept.example': 'files' }, auths: { 'other.example': { auth: btoa('bob:pw') } } });
    saveCredentials(io, 'kept.example', { username: 'ann', password: 'x', identitytoken: 'tok' });
    expect(header('kept.example')).toEqual({ identitytoken: 'tok', serveraddress: 'kept.example' });
    expect(Object.keys(decoded(registryAuth(io).registryAuth) as object)).toEqual(['other.example', 'kept.example']);
  });

  it('a helper that fails or is missing is named with what it says', () => {
    config({ credsStore: 'broken' });
    expect(() => header('x.example')).toThrow('docker-credential-broken fails: the keychain is locked');
    config({ credsStore: 'nowhere' });
    expect(() => header('x.example')).toThrow(/docker-credential-nowhere fails: .*ENOENT/);
    config({ credsStore: '../../bin/sh' });
    expect(() => header('x.example')).toThrow('is not a helper name');
    writeFileSync(join(home, '.docker/config.json'), '{');
    expect(() => registryAuth(io)).toThrow('config.json cannot be read');
  });
});
