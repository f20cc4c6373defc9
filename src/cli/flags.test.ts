import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseArgs } from '#cli/args.ts';
import { createBody, resourceBody } from '#cli/commands/create-body.ts';
import type { Flag } from '#cli/verb.ts';
import { ALL_VERBS } from '#cli/verbs/all.ts';
import { CREATE_FLAGS, UPDATE_FLAGS } from '#cli/verbs/run-flags.ts';

const world = { env: {}, cwd: '/' };
const run = ALL_VERBS.find((v) => v.name === 'run') ?? expect.fail('no verb run');

/** What these do is not in the body: where it is instead. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  name: 'the query',
  platform: 'the query, and that of the pull',
  pull: 'run.ts asks for the image by it',
  quiet: 'pull.ts',
};

/** Values that mean something; others are taken from the kind of the flag. */
const VALUES: Readonly<Record<string, string>> = {
  attach: 'stdin',
  cpus: '1.5',
  'blkio-weight-device': '/dev/a:10',
  'device-read-bps': '/dev/a:1m',
  'device-read-iops': '/dev/a:1',
  'device-write-bps': '/dev/a:1m',
  'device-write-iops': '/dev/a:1',
  'env-file': '/etc/os-release',
  'label-file': '/etc/os-release',
  net: 'web',
  network: 'web',
  env: 'A=b',
  expose: '80',
  mount: 'type=bind,source=/a,target=/b',
  'log-driver': 'local',
  publish: '80:80',
  restart: 'always',
  ulimit: 'nofile=1',
  volume: '/a:/b',
  cgroupns: 'host',
  memory: '64m',
  'memory-reservation': '64m',
  'memory-swap': '64m',
  'shm-size': '64m',
};

function valueOf(flag: Flag): string {
  if (flag.type === 'bool') return 'true';
  if (flag.type === 'int') return '7';
  return VALUES[flag.name] ?? (flag.type === 'duration' ? '7s' : 'a=b');
}

const wished = (words: readonly string[], of: typeof createBody | typeof resourceBody): object => {
  const { flags } = parseArgs(run, [...words, 'image']);
  return of === resourceBody ? resourceBody(flags) : createBody(flags, 'image', [], world);
};

describe('every flag has an effect', () => {
  it.each(CREATE_FLAGS.filter(({ name }) => !(name in ELSEWHERE)).map((f) => [f.name, f] as const))(
    '--%s changes the body of a create',
    (name, flag) => {
      expect(wished([`--${name}=${valueOf(flag)}`], createBody)).not.toEqual(wished([], createBody));
    },
  );

  it.each(UPDATE_FLAGS.map((f) => [f.name, f] as const))('--%s changes the body of an update', (name, flag) => {
    expect(wished([`--${name}=${valueOf(flag)}`], resourceBody)).not.toEqual(wished([], resourceBody));
  });

  const sources = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.includes('.test.') && !file.startsWith('verbs/'))
    .map((file) => readFileSync(join(import.meta.dirname, file), 'utf8'))
    .join('\n');

  it.each(ALL_VERBS.map((v) => [v.name, v.flags] as const))('%s: a command reads each of its flags', (_, flags) => {
    const isRead = (name: string): boolean => new RegExp(`\\w\\((?:flags, )?'${name}'`).test(sources);
    const unread = flags.filter(({ name }) => !isRead(name)).map(({ name }) => name);
    expect(unread).toEqual([]);
  });
});
