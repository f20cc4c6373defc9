import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import {
  type CredentialSource,
  dockerConfigCredentials,
  entryFor,
  headerCredentials,
  type RunHelper,
} from '#registry/client/credentials.ts';

async function source(config: object, run?: RunHelper): Promise<CredentialSource> {
  const folder = await mkdtemp(join(tmpdir(), 'estiba-registry-cred-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  return dockerConfigCredentials(join(folder, 'config.json'), run);
}
const base64 = (text: string): string => Buffer.from(text).toString('base64');

it('finds what docker login wrote, under any of the keys a host has had', async () => {
  const find = await source({
    auths: {
      'https://index.docker.io/v1/': { auth: base64('hub:p:w') },
      'reg.corp:5000': { auth: base64('a:b') },
      'https://old.corp/v1/': { username: 'u', password: 'p' },
      'token.corp': { identitytoken: 'T' },
    },
  });
  expect(await find('docker.io')).toEqual({ name: 'hub', password: 'p:w' });
  expect(await find('reg.corp:5000')).toEqual({ name: 'a', password: 'b' });
  expect(await find('old.corp')).toEqual({ name: 'u', password: 'p' });
  expect(await find('token.corp')).toEqual({ identityToken: 'T' });
  expect(await find('other.corp')).toBeUndefined();
});

it('asks the helper that is named for the host before the common one, and tells its failures from its ignorance', async () => {
  const asked: string[] = [];
  const run: RunHelper = async (helper, host) => {
    asked.push(`${helper} ${host}`);
    if (host === 'none.corp') return { status: 1, stdout: 'credentials not found in native keychain\n' };
    if (host === 'bad.corp') return { status: 1, stdout: 'keychain is locked' };
    return {
      status: 0,
      stdout: JSON.stringify({ ServerURL: host, Username: host === 'id.corp' ? '<token>' : 'u', Secret: 's' }),
    };
  };
  const find = await source({ credsStore: 'common', credHelpers: { 'special.corp': 'special' } }, run);
  expect(await find('special.corp')).toEqual({ name: 'u', password: 's' });
  expect(await find('id.corp')).toEqual({ identityToken: 's' });
  expect(await find('none.corp')).toBeUndefined();
  await expect(find('bad.corp')).rejects.toMatchObject({
    code: 'CREDENTIAL_HELPER_FAILED',
    message: expect.stringContaining('locked'),
  });
  expect(asked.slice(0, 2)).toEqual(['special special.corp', 'common id.corp']);
});

it('a helper with a path for a name is not run', async () => {
  const find = await source({ credsStore: '../../tmp/evil' });
  await expect(find('x.corp')).rejects.toMatchObject({ code: 'CREDENTIAL_HELPER_FAILED' });
});

it('no file is no credentials', async () => {
  expect(await dockerConfigCredentials('/nonexistent/config.json')('docker.io')).toBeUndefined();
});

it("reads what Docker's clients send along with a pull, a push and a build", async () => {
  const header = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  expect(await headerCredentials(header({ username: 'ä', password: '?>' }))('x')).toEqual({
    name: 'ä',
    password: '?>',
  });
  expect(await headerCredentials(header({ identitytoken: 'T' }))('x')).toEqual({ identityToken: 'T' });
  expect(await headerCredentials(header({}))('x')).toBeUndefined();
  expect(await headerCredentials(undefined)('x')).toBeUndefined();
  expect(() => headerCredentials('%%%')).toThrow(/X-Registry-Auth/);
  const entries = { 'https://index.docker.io/v1/': 'hub', 'reg.corp': 'corp' };
  expect(['docker.io', 'reg.corp', 'other'].map((host) => entryFor(host, entries))).toEqual(['hub', 'corp', undefined]);
});
