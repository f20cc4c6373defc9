import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxRoot, handmadeExec, handmadePlan } from '#kernel/plan/handmade.ts';
import { olderExecutor } from '#kernel/plan/older-executor.ts';
import type { OpName, Plan } from '#kernel/plan/plan.ts';
import { OWN_VOCABULARY, toldVocabulary } from '#kernel/plan/vocabulary.ts';
import { Shim } from '#shim/shim.ts';
import { Spawner } from '#shim/spawner.ts';

const SILENT = toldVocabulary(Buffer.alloc(0));
const withoutSetsid: OpName[] = ['setsid'];

/** The daemon is replaced by one of a later build; its spawner and the shims of what runs are of the one before. */
describe.each([
  ['says nothing of what it knows', { lacks: [...OWN_VOCABULARY].filter((name) => !SILENT.has(name)), silent: true }],
  ['says that it lacks an operation', { lacks: withoutSetsid, silent: false }],
])('a shim of an older build, which %s', (_, { lacks, silent }) => {
  const root = busyboxRoot('older');
  const socket = join(root.dir, 'spawner.sock');
  const home = join(root.dir, 'c1');
  let spawner: Spawner;
  let shim: Shim;

  beforeAll(async () => {
    mkdirSync(home);
    const older = await Spawner.start(socket, olderExecutor(join(root.dir, 'build'), lacks, { silent }));
    const plan = handmadePlan({ rootfs: root.rootfs, argv: ['sleep', '600'], awaitStart: true });
    const made = await older.create({ steps: plan.steps.filter(({ op }) => !lacks.includes(op)) }, { dir: home });
    await made.start();
    made.close();
    older.close();
    spawner = await Spawner.start(socket);
    shim = await Shim.connect(home);
  });
  afterAll(async () => {
    await shim.shutdown();
    await spawner.quit();
    root.remove();
  });

  it('is known for what it knows', async () => {
    await shim.signal(0);
    expect([...OWN_VOCABULARY].filter((name) => !shim.knows.has(name)).sort()).toEqual([...lacks].sort());
  });

  it('runs a plan of what it knows, and tells of an operation that it lacks what is to be done', async () => {
    const known: Plan = {
      steps: handmadeExec(shim.pid, ['sh', '-c', 'exit 3']).steps.filter(({ op }) => !lacks.includes(op)),
    };
    expect(await (await shim.exec(known, { name: 'known' })).wait()).toMatchObject({ code: 3 });
    const [lacked = 'setTime'] = lacks;
    const step =
      lacked === 'setsid'
        ? ({ op: 'setsid', where: 'init', because: 'test' } as const)
        : ({ op: 'setTime', where: 'host', because: 'test', path: home, seconds: 0n, nanoseconds: 0 } as const);
    await expect(shim.exec({ steps: [...known.steps, step] }, { name: 'unknown' })).rejects.toMatchObject({
      code: 'SHIM_TOO_OLD',
      data: { dir: home, request: 'exec', lacks: [step.op] },
    });
  });

  it('is the last of its kind: the next container’s is of this build, though the spawner of the older one still ran', async () => {
    const dir = join(root.dir, 'c2');
    mkdirSync(dir);
    const next = await spawner.create(handmadePlan({ rootfs: root.rootfs, argv: ['true'], awaitStart: true }), { dir });
    expect(next.knows).toBe(OWN_VOCABULARY);
    await next.start();
    expect(await next.wait()).toMatchObject({ code: 0 });
    expect(readdirSync(home)).toContain('shim.sock'); // and the older one lives on
  });
});

describe('a spawner', () => {
  it('of this very build is kept by the next daemon', async () => {
    const root = busyboxRoot('spawner');
    const socket = join(root.dir, 'spawner.sock');
    const first = await Spawner.start(socket);
    const second = await Spawner.start(socket);
    const dir = join(root.dir, 'here');
    await first.run({ steps: [{ op: 'mkdir', where: 'host', because: 'test', path: dir, mode: 0o755, flags: 0 }] });
    await second.run({ steps: [{ op: 'rmdir', where: 'host', because: 'test', path: dir }] });
    await second.quit();
    first.close();
    root.remove();
  });
});
