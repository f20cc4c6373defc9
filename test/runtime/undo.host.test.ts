import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dirOf } from '#kernel/cgroup/place.ts';
import { planCgroup } from '#kernel/cgroup/plan.ts';
import { hostFiles } from '#kernel/files.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { readHost } from '#runtime/host-linux.ts';
import { planCreate } from '#runtime/plan-create.ts';
import { makeBundle } from './bundle.ts';

/** A step that no actor can carry out, in any mount namespace. */
const failing = (where: Step['where']): Step => ({ op: 'rmdir', path: '/proc', where, because: 'the test' });

describe('a create that fails', () => {
  it('after any of its steps leaves no cgroup, mount, process, directory or pid file', async () => {
    using bundle = makeBundle('undo');
    const id = `estiba-undo-${process.pid}`;
    const host = readHost({ uid: 0, gid: 0 });
    const config = bundle.config();
    const cgroups = planCgroup({ id, unified: true }, host.cgroups, hostFiles);
    const { plan } = planCreate(
      config,
      {
        id,
        bundle: bundle.dir,
        root: join(bundle.dir, 'state'),
        created: new Date(0).toISOString(),
        owner: { uid: 0, name: 'root' },
        pidFile: join(bundle.dir, 'pid'),
        cgroups,
      },
      host,
    );
    const ready = plan.steps.findIndex((step) => step.op === 'ready');
    for (let stop = 0; stop <= ready; stop++) {
      const broken: Plan = { steps: [...plan.steps.slice(0, stop), failing(plan.steps[stop]?.where ?? 'host')] };
      const failure = await runPlan(broken, { stdio: 'ignore' }).then(
        () => undefined,
        (error: unknown) => error,
      );
      expect({ stop, code: (failure as { code?: string } | undefined)?.code }).toEqual({ stop, code: 'PLAN_FAILED' });
      expect({ stop, left: leftOvers() }).toEqual({ stop, left: [] });
    }

    function leftOvers(): string[] {
      const paths = [join(bundle.dir, 'state', id), join(bundle.dir, 'pid'), ...cgroups.places.map(dirOf)];
      const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(bundle.dir));
      return [...paths.filter((path) => existsSync(path)), ...mounts];
    }
  });
});
