import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { seededRandom } from '#base/random.ts';
import type { Deployment, Pod } from '#spec/kubernetes/types.gen.ts';
import { Machine, waitFor } from './machine.ts';

const FULL = process.env['SOAK'] === 'full';
const CHURN_MS = FULL ? 600_000 : 15_000;
const SEED = Number(process.env['SOAK_SEED'] ?? 1);
const SETTLE_MS = 60_000;

/**
 * Deployments are scaled, rolled and taken away while the daemon is killed at random. Afterwards the state is what was last
 * acknowledged, and nothing of what is gone is left: no container, sandbox, cgroup, directory.
 */
describe('churn, with the daemon killed at random', () => {
  let machine: Machine;
  const random = seededRandom(SEED);
  /** What the API last acknowledged, by deployment. */
  const wished = new Map<string, number>();

  beforeAll(async () => {
    machine = await Machine.open('soak');
  });
  afterAll(() => machine.close());

  /** Undefined when the daemon was away: whether it was done is then to be looked up. */
  const ask = async (line: string): Promise<string | undefined> => {
    const answer = await machine.run('sh', ['-c', `kubectl ${line}`]);
    return answer.code === 0 ? answer.text : undefined;
  };

  async function disturb(): Promise<void> {
    const name = `d${Math.floor(random.next() * 4)}`;
    const replicas = Math.floor(random.next() * 5);
    const what = random.next();
    if (!wished.has(name)) {
      const command = `create deployment ${name} --image=busybox --replicas=${replicas} -- sh -c "trap exit TERM; while :; do sleep 0.1; done"`;
      if (await ask(command)) wished.set(name, replicas);
    } else if (what < 0.5) {
      if (await ask(`scale deployment ${name} --replicas=${replicas}`)) wished.set(name, replicas);
    } else if (what < 0.7) await ask(`rollout restart deployment ${name}`);
    else if (what < 0.85) await ask(`delete pods -l app=${name} --wait=false`);
    else if (await ask(`delete deployment ${name} --wait=false`)) wished.delete(name);
    // A call that was cut may have been carried out.
    const now = await ask(`get deployment ${name} -o jsonpath={.spec.replicas} --ignore-not-found`);
    if (now === '') wished.delete(name);
    else if (now !== undefined) wished.set(name, Number(now));
  }

  it(`for ${CHURN_MS / 1000} s: the state is right, and nothing is left behind`, {
    timeout: CHURN_MS + 4 * SETTLE_MS,
  }, async () => {
    const end = performance.now() + CHURN_MS;
    let kills = 0;
    while (performance.now() < end) {
      const work = Array.from({ length: 3 }, disturb);
      if (random.next() < 0.4) {
        await machine.kill();
        await machine.start();
        kills++;
      }
      await Promise.all(work);
    }
    for (const name of ['d0', 'd1', 'd2', 'd3']) {
      const { items } = await machine.get<{ items: Deployment[] }>(
        `deployments --field-selector metadata.name=${name}`,
      );
      const [now] = items;
      if (now) wished.set(name, now.spec?.replicas ?? 0);
      else wished.delete(name);
    }
    const total = [...wished.values()].reduce((sum, n) => sum + n, 0);
    await waitFor(`${total} pods`, SETTLE_MS, async () => {
      const { items } = await machine.get<{ items: Pod[] }>('pods');
      return items.length === total && items.every((p) => p.status?.containerStatuses?.[0]?.ready === true);
    });
    expect(kills).toBeGreaterThan(0);
    const { items } = await machine.get<{ items: Pod[] }>('pods');
    // No program ended by itself: neither was an end told that never was, nor a start that never was.
    expect(items.map((p) => p.status?.containerStatuses?.[0]?.restartCount)).toEqual(items.map(() => 0));
    const programs = `for f in ${machine.runRoot}/shims/*/init; do cat /proc/$(cut -d' ' -f1 $f)/comm; done`;
    if (total > 0) expect((await machine.run('sh', ['-c', programs])).text).toBe('sh\n'.repeat(total));
    const uids = items.map((p) => p.metadata.uid).sort();
    const list = async (dir: string): Promise<string[]> =>
      (await machine.run('ls', [dir])).text
        .split('\n')
        .filter((n) => n !== '')
        .sort();
    expect(await list(`${machine.runRoot}/sandboxes`)).toEqual(uids);
    expect(await list(`${machine.runRoot}/pods`)).toEqual(uids);
    expect(await list(`${machine.dataRoot}/pods`)).toEqual(uids);
    expect((await list(`${machine.runRoot}/shims`)).length).toBe(total);
    const cgroups = await list(`/sys/fs/cgroup/memory/${machine.name}/kubepods/besteffort`);
    expect(cgroups.filter((n) => n.startsWith('pod'))).toEqual(uids.map((uid) => `pod${uid}`));
    await machine.kubectl('delete deployments --all --cascade=foreground --wait');
    await waitFor('an empty node', SETTLE_MS, async () => (await list(`${machine.runRoot}/shims`)).length === 0);
    expect(await list(`${machine.dataRoot}/containers`)).toEqual([]);
  });
});
