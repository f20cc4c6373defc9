import { describe, expect, it } from 'vitest';
import { readKubeconfig } from '#up/kubeconfig.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const config = (user: object, cluster: object = {}): string =>
  JSON.stringify({
    'current-context': 'a',
    contexts: [
      { name: 'a', context: { cluster: 'c', user: 'u' } },
      { name: 'b', context: { cluster: 'c', user: 'u', namespace: 'shop' } },
    ],
    clusters: [{ name: 'c', cluster: { server: 'https://k:6443/', ...cluster } }],
    users: [{ name: 'u', user }],
  });
const read = (path: string): string => `<${path}>`;

describe('readKubeconfig', () => {
  it('takes certificates written in it, or beside it', () => {
    const inline = readKubeconfig(
      config({ 'client-certificate-data': base64('C'), 'client-key-data': base64('K') }),
      '/h/config',
      undefined,
      read,
    );
    expect(inline).toEqual({
      context: 'a',
      namespace: undefined,
      connection: { server: 'https://k:6443', cert: 'C', key: 'K' },
    });
    const beside = readKubeconfig(
      config({ 'client-certificate': 'me.crt' }, { 'certificate-authority': '/ca' }),
      '/h/config',
      'b',
      read,
    );
    expect(beside).toMatchObject({ namespace: 'shop', connection: { cert: '</h/me.crt>', ca: '</ca>' } });
  });

  it('takes a token, or the file that holds it', () => {
    expect(readKubeconfig(config({ token: 'T' }), '/c', undefined, read).connection.token?.()).toBe('T');
    expect(readKubeconfig(config({ tokenFile: '/t' }), '/c', undefined, read).connection.token?.()).toBe('</t>');
  });

  it.each([
    [config({}), 'z', 'has no context z; it has a, b'],
    [config({ exec: { command: 'aws' } }), undefined, 'exec of context a is not supported here'],
    [config({}, { 'insecure-skip-tls-verify': true }), undefined, 'insecure-skip-tls-verify'],
    ['{}', undefined, 'names no current-context'],
    ['contexts: 1', undefined, 'is no kubeconfig: $.contexts'],
    ['a: &a [*a]', undefined, 'is no YAML'],
  ])('refuses %s', (text, context, problem) => {
    expect(() => readKubeconfig(text, '/c', context, read)).toThrow(problem);
  });
});
