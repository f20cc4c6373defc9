import { describe, expect, it } from 'vitest';
import {
  type ForeignContainer,
  foreignConfig,
  lastComplaint,
  notUpdated,
  planForeignCreate,
  planForeignExec,
  shownPlaces,
} from '#engine/core/foreign-plan.ts';
import type { Files } from '#kernel/files.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { printPlan } from '#kernel/plan/print.ts';

const container = (changes: Partial<ForeignContainer> = {}): ForeignContainer => ({
  id: 'c1',
  runtime: { name: 'runc', path: '/usr/sbin/runc', args: [] },
  bundle: '/r/bundles/c1',
  root: '/r/oci-runc',
  searchPath: '/bin',
  terminal: false,
  ownPids: true,
  cgroupsPath: '/estiba/c1',
  ...changes,
});
const commands = ({ steps }: Plan): string[] =>
  steps.flatMap((step) => (step.op === 'program' ? [step.argv.join(' ')] : []));
const LOG = (verb: string): string => `--log /r/bundles/c1/${verb}.log --log-format json`;

describe('a container of another runtime', () => {
  it('is made and started by its verbs, and what a failure leaves goes by its delete', () => {
    const plan = planForeignCreate(container());
    expect(commands(plan)).toEqual([
      `/usr/sbin/runc --root /r/oci-runc ${LOG('create')} create --bundle /r/bundles/c1 --pid-file /r/bundles/c1/pid c1`,
      `/usr/sbin/runc --root /r/oci-runc ${LOG('start')} start c1`,
    ]);
    expect(printPlan(plan)).toContain(`undo: /usr/sbin/runc --root /r/oci-runc ${LOG('delete')} delete --force c1`);
  });

  it('has its own arguments before the verb, and a console socket when it has a terminal', () => {
    const kata = container({ terminal: true, runtime: { name: 'k', path: '/k', args: ['--config', '/c'] } });
    expect(commands(planForeignCreate(kata))[0]).toMatch(
      /^\/k --config \/c --root .* --console-socket \{console\} c1$/,
    );
    expect(commands(planForeignExec(kata, 'e1', true))).toEqual([
      `/k --config /c --root /r/oci-runc ${LOG('exec-e1')} exec --process /r/bundles/c1/exec-e1.json --pid-file /r/bundles/c1/exec-e1.pid --console-socket {console} --detach c1`,
    ]);
  });

  it('has a config.json that runtimes of all ages read', () => {
    const config = foreignConfig({ ociVersion: '1.3.0', domainname: 'd.x', linux: { sysctl: { 'net.a': '1' } } });
    expect(config).toEqual({ ociVersion: '1.0.2', linux: { sysctl: { 'net.a': '1', 'kernel.domainname': 'd.x' } } });
  });

  it('lies where the kernel shows it, and nowhere that its runtime made it no cgroup', () => {
    const files: Record<string, string> = {
      '/proc/self/mountinfo': [
        '30 20 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory',
        '31 20 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
      ].join('\n'),
      '/proc/7/cgroup': '2:memory:/estiba/c1\n0::/\n',
    };
    expect(shownPlaces('c1', 7, { read: (path) => files[path] } as Files)).toEqual([
      { version: 1, mount: '/sys/fs/cgroup/memory', path: '/estiba/c1', controllers: ['memory'] },
    ]);
  });

  it('is not told that a limit has changed which its runtime does not update', () => {
    const made = { memory: { limit: 1, swappiness: 10 }, blockIO: { weight: 100 } };
    expect(notUpdated(made, { memory: { limit: 2, swappiness: 10 }, blockIO: { weight: 200 } })).toBeUndefined();
    expect(notUpdated(made, { memory: { limit: 1, swappiness: 20 } })).toBe('memory swappiness');
    const rate = { major: 8, minor: 0, rate: 1 };
    expect(notUpdated(made, { ...made, blockIO: { weight: 100, throttleReadBpsDevice: [rate] } })).toBe(
      'rates and weights of devices',
    );
  });

  it('fails in the words of its runtime', () => {
    const log = [
      '{"level":"warning","msg":"odd","time":"t"}',
      '{"msg":"no such file","level":"error","time":"t"}',
      'not json',
      '',
    ];
    expect(lastComplaint(log.join('\n'))).toBe('no such file');
    expect(lastComplaint(log[0] ?? '')).toBeUndefined();
  });
});
