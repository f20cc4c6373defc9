import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Example, examplesOf } from '../book/chapter.ts';
import { expectSaid, Shell, SYSTEM_PATH } from '../book/shell.ts';
import { README, ROOT, section } from './readme.ts';
import { copyOfThisMachine } from './room/copy.ts';

const MINUTE_MS = 60_000;

/** Commands of the README's `sh` blocks: what a test of this kind cannot run, and who runs it or why nobody does. */
const ELSEWHERE: Record<string, string> = {
  'make demo': 'test/suites/blows.test.ts',
  'make demo-blows': 'test/suites/blows.test.ts',
  'make demo-clean': 'test/suites/blows.test.ts',
  'make test': 'CI (.ci/run)',
};

describe('the README', () => {
  const tour = examplesOf(section('## A tour'));
  /** Run by systemd.test.ts, on a machine that systemd has started. */
  const systemd = examplesOf(section('### With systemd'));
  const service = examplesOf(section('### Without systemd'));

  afterAll(() => {
    for (const path of ['/var/lib/estiba-tour', '/run/estiba-tour', '/tmp/estiba-tour', '/tmp/estiba-tour.log'])
      rmSync(path, { recursive: true, force: true });
  });

  it('has no command that is run nowhere, and no reason for one that it has not', () => {
    const commands = shellLines(README);
    expect(commands.toSorted()).toEqual(Object.keys(ELSEWHERE).toSorted());
    expect(examplesOf(README)).toHaveLength(tour.length + systemd.length + service.length);
    // Indented blocks would be commands that nobody looks at.
    expect(README.split('\n').filter((line) => /^ {4}(\$|make|apt|npm|bin\/|systemctl|curl)/.test(line))).toEqual([]);
  });

  it('leads through docker, compose, skopeo and kubectl as it says, and leaves nothing', {
    timeout: 10 * MINUTE_MS,
  }, async () => {
    await using shell = await Shell.open({ cwd: ROOT });
    for (const example of tour) expectSaid('README.md', example, await shell.run(example.command));
    expect(leftOf('tour')).toEqual([]);
  });

  it('installs, serves, upgrades and removes without systemd as it says', { timeout: 15 * MINUTE_MS }, async () => {
    const options = {
      cwd: ROOT,
      hostNetwork: true,
      prepare: copyOfThisMachine('/var/lib/estiba'),
      env: { PATH: SYSTEM_PATH },
    };
    await using shell = await Shell.open(options);
    for (const example of service) {
      if (isFirstDaemon(example, service)) await shell.become(WITHOUT_NETWORK);
      expectSaid('README.md', example, await shell.run(example.command));
    }
    expect(leftOf('estiba')).toEqual([]);
  });

  it('has a unit that systemd understands', () => {
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', join(ROOT, 'packaging/estiba.service')], {
      encoding: 'utf8',
    });
    // It looks whether the program is there, too, which it is not: nothing is installed here.
    const complaints = stderr.split('\n').filter((line) => line.includes('estiba') && !/not executable/.test(line));
    expect({ complaints, ran: status !== null }).toEqual({ complaints: [], ran: true });
  });
});

/** Packages come over the network; a daemon with the default ports and ranges gets one of its own. */
const WITHOUT_NETWORK = `unshare --net sh -c 'ip link set lo up; exec bash --norc'`;

function isFirstDaemon(example: Example, all: readonly Example[]): boolean {
  return all.find(({ command }) => command.startsWith('estiba daemon')) === example;
}

/** Commands of `sh` blocks, without what is said of them; those joined by && count singly. */
function shellLines(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, text]) => text ?? '');
  const lines = blocks.flatMap((block) => block.split('\n').map((line) => line.replace(/ *#.*/, '').trim()));
  return [...new Set(lines.flatMap((line) => line.split(' && ')).filter((line) => line !== ''))];
}

/** Cgroups and directories are this host's; mounts, links and tables ended with the room. */
function leftOf(name: string): string[] {
  const cgroups = ['', ...readdirSync('/sys/fs/cgroup')].map((controller) => join('/sys/fs/cgroup', controller, name));
  const directories = name === 'estiba' ? [] : [`/var/lib/estiba-${name}`, `/run/estiba-${name}`];
  return [...cgroups, ...directories].filter((path) => existsSync(path));
}
