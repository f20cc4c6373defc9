import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { dirOf } from '#kernel/cgroup/place.ts';
import { planCgroup } from '#kernel/cgroup/plan.ts';
import { hostFiles } from '#kernel/files.ts';
import { findExecutor, runPlan } from '#kernel/plan/execute.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import { rootContext } from '#runtime/cli/fakes.ts';
import { runCommand } from '#runtime/cli/main.ts';
import { readHost } from '#runtime/host-linux.ts';
import { planCreate } from '#runtime/plan-create.ts';
import { makeBundle } from './bundle.ts';

// A step that fails takes back what came before it (undo.host.test.ts). Whoever is killed with SIGKILL takes back nothing: there
// the record counts, which lies on disk before anything exists. `delete --force` reads it and removes what there may be.

const HOST: Pick<Step, 'where' | 'because'> = { where: 'host', because: 'the test' };

describe('the executor, killed', () => {
  it.each([
    ['with a mount namespace, whose mounts die with it', []],
    ['whose mounts are the host’s', ['mount']],
  ])('after any step of a create %s, leaves nothing that delete --force does not find', async (_, without) => {
    using bundle = makeBundle('crash');
    const id = `estiba-crash-${process.pid}`;
    const root = join(bundle.dir, 'state');
    const marker = join(bundle.dir, 'reached');
    const host = readHost({ uid: 0, gid: 0 });
    const cgroups = planCgroup({ id, unified: true }, host.cgroups, hostFiles);
    const { plan } = planCreate(
      bundle.config((config) => {
        const { linux } = config;
        if (linux) linux.namespaces = linux.namespaces?.filter((ns) => !without.includes(ns.type)) ?? [];
      }),
      {
        id,
        bundle: bundle.dir,
        root,
        created: new Date(0).toISOString(),
        owner: { uid: 0, name: 'root' },
        cgroups,
      },
      host,
    );
    const ready = plan.steps.findIndex((step) => step.op === 'ready');
    // Should the test fail, no mount of the host's may be left below a directory that is about to be removed.
    using _mounts = { [Symbol.dispose]: () => void spawnSync('umount', ['--lazy', '--recursive', bundle.rootfs]) };
    for (let stop = 0; stop <= ready; stop++) {
      rmSync(marker, { force: true });
      // Steps run strictly one after the other, whoever's they are: with the marker all before it is done, and nothing after it.
      await killAt({
        steps: [
          ...plan.steps.slice(0, stop),
          { ...HOST, op: 'write', path: marker, data: new Uint8Array(), flags: 0o101, mode: 0o600 },
          { ...HOST, op: 'waitGone', pid: 1, startTime: 0n, timeoutMs: 60_000 },
        ],
      });
      expect({ stop, code: await oci('delete', '--force', id) }).toEqual({ stop, code: 0 });
      expect({ stop, left: leftOvers() }).toEqual({ stop, left: [] });
    }

    async function killAt(broken: Plan): Promise<void> {
      const child = spawn(findExecutor(), ['run', '3', '4'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
      const ended = new Promise((resolve) => child.once('exit', resolve));
      (child.stdio[3] as Writable).end(encodePlan(broken));
      const end = Date.now() + 10_000;
      while (!existsSync(marker)) {
        if (Date.now() > end) throw new Error('the plan does not come to its marker');
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      child.kill('SIGKILL');
      await ended;
    }

    function oci(...args: string[]): Promise<number> {
      const context = rootContext({
        cwd: bundle.dir,
        stderr: (text) => process.stderr.write(text),
        readFile: async (path) => readFileSync(path, 'utf8'),
        execute: (p) => runPlan(p, { stdio: 'ignore' }),
        run: async () => ({ code: 1, output: '' }),
      });
      return runCommand(['--root', root, ...args], context);
    }

    function leftOvers(): string[] {
      const paths = [join(root, id), ...cgroups.places.map(dirOf)];
      const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(bundle.dir));
      return [...paths.filter((path) => existsSync(path)), ...mounts];
    }
  });
});
